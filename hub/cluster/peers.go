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
	// pingVerb is answered by every member.
	pingVerb = "ping"

	// patienceHeader is how long the caller waits, in milliseconds.
	patienceHeader = "Iotdm-Patience"

	// failureHeader is why there is no answer.
	failureHeader = "Iotdm-Failure"

	// unheardHeader says that nobody here answers such questions.
	unheardHeader = "Iotdm-Unheard"
)

// callPatience bounds a call whose context has no end.
const callPatience = 30 * time.Second

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
	msg.Header.Set(patienceHeader, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	answer, err := m.conn.RequestMsgWithContext(asked, msg)
	switch {
	case err == nil:
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed):
		return nil, hub.ErrNoPeer
	case asked.Err() != nil:
		return nil, fmt.Errorf("%s of node %d: %w", verb, to, context.Cause(asked))
	default:
		return nil, fmt.Errorf("%s of node %d: %w", verb, to, err)
	}
	if answer.Header.Get(unheardHeader) != "" {
		return nil, hub.ErrNoPeer
	}
	if text := answer.Header.Get(failureHeader); text != "" {
		return nil, fmt.Errorf("%s of node %d: %s", verb, to, text)
	}
	return answer.Data, nil
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
		m.mu.Lock()
		v := m.verbs[strings.TrimPrefix(msg.Subject, prefix)]
		m.mu.Unlock()
		if v == nil || m.ctx.Err() != nil {
			m.respond(msg, unheardHeader, "1", nil)
			return
		}
		go m.answer(v, msg)
	})
	if err != nil {
		return fmt.Errorf("listen to other nodes: %w", err)
	}
	return m.sub.SetPendingLimits(-1, -1)
}

func (m *Membership) answer(v *verb, msg *nats.Msg) {
	patience := callPatience
	if ms, err := strconv.ParseInt(msg.Header.Get(patienceHeader), 10, 64); err == nil && ms > 0 && ms < int64(24*time.Hour/time.Millisecond) {
		patience = time.Duration(ms) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	answer, err := v.fn(ctx, msg.Data)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return // the caller has gone, too
	}
	if err != nil {
		m.respond(msg, failureHeader, oneLine(err), nil)
		return
	}
	m.respond(msg, "", "", answer)
}

func (m *Membership) respond(msg *nats.Msg, header, value string, data []byte) {
	r := nats.NewMsg(msg.Reply)
	if header != "" {
		r.Header.Set(header, value)
	}
	r.Data = data
	err := msg.RespondMsg(r)
	if errors.Is(err, nats.ErrMaxPayload) {
		m.respond(msg, failureHeader, "the answer is too large", nil)
	} else if err != nil {
		m.log.Debug("an answer to another node could not be sent", "err", err)
	}
}

// oneLine is the text of an error as a header can hold it.
func oneLine(err error) string {
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(err.Error())
}
