package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/iotdm/iotdm/hub"
)

var _ hub.Peers = (*Membership)(nil)

const (
	// pingVerb is answered by every member, to whoever asks.
	pingVerb = "ping"

	// callerHeader is the epoch of who asks, numberHeader which of its questions it
	// is, and patienceHeader how long it waits, in milliseconds.
	callerHeader   = "Iotdm-Caller"
	numberHeader   = "Iotdm-Number"
	patienceHeader = "Iotdm-Patience"

	// failureHeader is why there is no answer.
	failureHeader = "Iotdm-Failure"

	// unheardHeader says that nobody here answers such questions.
	unheardHeader = "Iotdm-Unheard"
)

const (
	// callPatience bounds a call whose context has no end.
	callPatience = 30 * time.Second

	// askAgain is after how long without an answer a question is sent again, and
	// longestPause the pause that this grows to.
	askAgain     = time.Second
	longestPause = 4 * time.Second
)

// subjectOf is where a node is asked something.
func subjectOf(epoch uint64, verb string) string {
	return "iotdm.node." + strconv.FormatUint(epoch, 10) + "." + verb
}

// A verb is one thing that this node can be asked.
type verb struct {
	fn func(context.Context, []byte) ([]byte, error)
}

// Self implements hub.Peers.
func (m *Membership) Self() uint64 { return m.epoch }

// Leader implements hub.Peers.
func (m *Membership) Leader() uint64 { return m.replica.Leader() }

// Alive implements hub.Peers.
func (m *Membership) Alive(epoch uint64) bool { return m.replica.Alive(epoch) }

// Nodes implements hub.Peers.
func (m *Membership) Nodes() []hub.ClusterNode {
	members := m.replica.Members()
	nodes := make([]hub.ClusterNode, len(members))
	for i, member := range members {
		var about About
		_ = json.Unmarshal(member.About, &about)
		nodes[i] = hub.ClusterNode{Name: member.Name, Epoch: member.Epoch, Host: about.Host, Joined: member.Joined, Silent: member.Silent}
	}
	return nodes
}

// OnChange implements hub.Peers.
func (m *Membership) OnChange(fn func()) (cancel func()) { return m.replica.OnMembers(fn) }

// Call implements hub.Peers.
func (m *Membership) Call(ctx context.Context, to uint64, verb string, question []byte) ([]byte, error) {
	if !m.Alive(to) || m.ctx.Err() != nil {
		return nil, hub.ErrNoPeer
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(callPatience)
	}
	asked, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.ctx, func() { cancel(context.Cause(m.ctx)) })()
	defer m.OnChange(func() {
		if !m.Alive(to) {
			cancel(hub.ErrPeerGone)
		}
	})()
	asked, stop := context.WithDeadline(asked, deadline)
	defer stop()
	msg := nats.NewMsg(subjectOf(to, verb))
	msg.Data = question
	msg.Header.Set(callerHeader, strconv.FormatUint(m.epoch, 10))
	msg.Header.Set(numberHeader, strconv.FormatUint(m.calls.Add(1), 10))
	answer, err := m.request(asked, deadline, msg)
	switch {
	case errors.Is(err, hub.ErrNoPeer):
		return nil, hub.ErrNoPeer
	case err != nil:
		return nil, fmt.Errorf("%s of node %d: %w", verb, to, err)
	case answer.Header.Get(unheardHeader) != "":
		return nil, hub.ErrNoPeer
	}
	if text := answer.Header.Get(failureHeader); text != "" {
		return nil, fmt.Errorf("%s of node %d: %s", verb, to, text)
	}
	return answer.Data, nil
}

// request sends a question until it is answered: what goes through a server of NATS
// that dies is lost.
func (m *Membership) request(ctx context.Context, deadline time.Time, msg *nats.Msg) (*nats.Msg, error) {
	patience := askAgain
	for first := true; ; first = false {
		msg.Header.Set(patienceHeader, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
		attempt, stop := context.WithTimeout(ctx, patience)
		answer, err := m.conn.RequestMsgWithContext(attempt, msg)
		nobody := errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionClosed)
		if nobody && !first { // but before, it may have been heard
			<-attempt.Done()
		}
		lost := attempt.Err() != nil
		stop()
		switch {
		case err == nil:
			return answer, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case lost:
		case nobody:
			return nil, hub.ErrNoPeer
		default:
			return nil, err
		}
		patience = min(2*patience, longestPause)
	}
}

// Serve implements hub.Peers.
func (m *Membership) Serve(name string, fn func(context.Context, []byte) ([]byte, error)) (stop func()) {
	v := &verb{fn}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verbs[name] = v
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.verbs[name] == v {
			delete(m.verbs, name)
		}
	}
}

// listen has this node hear what it is asked.
func (m *Membership) listen() (err error) {
	prefix := subjectOf(m.epoch, "")
	m.sub, err = m.conn.Subscribe(prefix+">", func(msg *nats.Msg) {
		name := strings.TrimPrefix(msg.Subject, prefix)
		if name == pingVerb {
			m.respond(msg.Reply, answer{})
			return
		}
		id, err := askedIDOf(msg)
		if err != nil {
			m.log.Debug("a question is not answered", "subject", msg.Subject, "err", err)
			return
		}
		if known, answer := m.heard.again(id, msg.Reply); known {
			if answer != nil {
				m.respond(msg.Reply, *answer)
			}
			return
		}
		m.mu.Lock()
		v := m.verbs[name]
		m.mu.Unlock()
		if v == nil || m.ctx.Err() != nil {
			m.respond(msg.Reply, answer{header: unheardHeader, value: "1"})
			return
		}
		m.heard.begin(id, msg.Reply)
		go m.answer(id, v, msg)
	})
	if err != nil {
		return fmt.Errorf("listen to other nodes: %w", err)
	}
	return m.sub.SetPendingLimits(-1, -1)
}

func askedIDOf(msg *nats.Msg) (id askedID, err error) {
	if id.epoch, err = strconv.ParseUint(msg.Header.Get(callerHeader), 10, 64); err != nil {
		return id, err
	}
	id.number, err = strconv.ParseUint(msg.Header.Get(numberHeader), 10, 64)
	return id, err
}

func (m *Membership) answer(id askedID, v *verb, msg *nats.Msg) {
	patience := callPatience
	if ms, err := strconv.ParseInt(msg.Header.Get(patienceHeader), 10, 64); err == nil && ms > 0 && ms < int64(24*time.Hour/time.Millisecond) {
		patience = time.Duration(ms) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	text, err := v.fn(ctx, msg.Data)
	a := answer{text: text}
	if err != nil {
		a = answer{header: failureHeader, value: oneLine(err)}
	}
	inbox := m.heard.answer(id, a)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return // nobody waits any more
	}
	m.respond(inbox, a)
}

// respond sends an answer to where it is waited for.
func (m *Membership) respond(inbox string, a answer) {
	msg := nats.NewMsg(inbox)
	if a.header != "" {
		msg.Header.Set(a.header, a.value)
	}
	msg.Data = a.text
	err := m.conn.PublishMsg(msg)
	if errors.Is(err, nats.ErrMaxPayload) {
		m.respond(inbox, answer{header: failureHeader, value: "the answer is too large"})
	} else if err != nil {
		m.log.Debug("an answer to another node could not be sent", "err", err)
	}
}

// oneLine is the text of an error as a header can hold it.
func oneLine(err error) string {
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(err.Error())
}
