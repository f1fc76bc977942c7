package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Peers are the nodes of a cluster, as one of them knows them. A node is named by
// its epoch, which is the position in the log at which it joined: one that has
// left or was expelled comes back under a higher one. Their methods may be called
// concurrently.
type Peers interface {
	// Self is the epoch of this node, which stays as long as its Server.
	Self() uint64

	// Leader is the epoch of the node that does what one node does for all: of
	// the members the one that joined first. It is 0 if there is none.
	Leader() uint64

	// Alive reports whether a node is a member.
	Alive(epoch uint64) bool

	// Nodes are the members, in the order in which they joined: the first leads.
	Nodes() []ClusterNode

	// OnChange has fn called when members or leader have changed, in the order of
	// the log, by whoever applies that: fn must not wait.
	OnChange(fn func()) (cancel func())

	// Call asks another node and waits for its answer. The node hears it once, though
	// it may be sent again. ErrNoPeer means that nobody has heard it; after another
	// error, such as ErrPeerGone, that is not known.
	Call(ctx context.Context, to uint64, verb string, question []byte) (answer []byte, err error)

	// Serve answers what other nodes ask. fn is called in a goroutine of its own,
	// with a context that ends when the caller's time is up or this node leaves.
	Serve(verb string, fn func(ctx context.Context, question []byte) (answer []byte, err error)) (stop func())
}

// A ClusterNode is a member of a cluster.
type ClusterNode struct {
	Name   string    `json:"name"`
	Epoch  uint64    `json:"epoch"`
	Host   string    `json:"host"` // the name of its machine; empty if it is not known
	Joined time.Time `json:"joined"`
	Leads  bool      `json:"leads"`
	Self   bool      `json:"self"` // it is the one that was asked

	// Silent is for how many seconds others were heard of, and it was not.
	Silent int `json:"silentInSeconds"`
}

// Nodes returns the nodes of the hub: none for a hub of one.
func (s *Server) Nodes() []ClusterNode {
	if s.peers == nil {
		return []ClusterNode{}
	}
	nodes := s.peers.Nodes()
	for i := range nodes {
		nodes[i].Leads, nodes[i].Self = nodes[i].Epoch == s.peers.Leader(), nodes[i].Epoch == s.peers.Self()
	}
	return nodes
}

// ErrNoPeer means that a node that was to be asked is not there: it has done
// nothing.
var ErrNoPeer = errors.New("the node is not there")

// ErrPeerGone means that a node has gone while it was asked: what it has done is not
// known.
var ErrPeerGone = errors.New("the node has gone while it was asked")

// Clustered reports whether the hub has several nodes.
func (s *Server) Clustered() bool { return s.peers != nil }

// Leads reports whether this node does what one node does for all. A hub of one
// node does.
func (s *Server) Leads() bool { return s.peers == nil || s.peers.Leader() == s.peers.Self() }

// OnMembers has fn called when members or leader have changed, until the server
// closes. fn must not wait. On a hub of one node it never is. It is for those that
// are made with the server.
func (s *Server) OnMembers(fn func()) {
	if s.peers != nil {
		s.hearing = append(s.hearing, s.peers.OnChange(fn))
	}
}

// Epoch names this node among those of the hub: 0 if it is the only one.
func (s *Server) Epoch() uint64 {
	if s.peers == nil {
		return 0
	}
	return s.peers.Self()
}

// Alive reports whether a node is one of the hub's.
func (s *Server) Alive(epoch uint64) bool {
	return epoch == s.Epoch() || s.peers != nil && s.peers.Alive(epoch)
}

// freshPatience is how long the log may take to say what there is.
const freshPatience = 10 * time.Second

// Fresh returns when this node knows what any node had acknowledged before the
// call. A hub of one node knows it.
//
// Errors: ErrServiceUnavailable, and that of ctx.
func (s *Server) Fresh(ctx context.Context) error {
	if s.peers == nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, freshPatience)
	defer cancel()
	err := s.store.Barrier(limited)
	if err == nil || ctx.Err() != nil {
		return cmp.Or(err, ctx.Err())
	}
	return ErrServiceUnavailable.With("this node of the hub does not know what the others have acknowledged: %v", err)
}

// An answer is what one node answers another.
type answer[A any] struct {
	Value   A
	Refusal *Error `json:",omitempty"`
	Failure string `json:",omitempty"` // an error that is none of the hub's
	NotHere bool   `json:",omitempty"` // ErrNoPeer
	Gone    bool   `json:",omitempty"` // ErrPeerGone
}

// Answer has this node answer a verb of other nodes. What fn is asked and answers
// goes as JSON; ErrNoPeer from it says that another node is to be asked, and
// ErrPeerGone that this one ends meanwhile. It does nothing on a hub of one node.
func Answer[Q, A any](s *Server, verb string, fn func(context.Context, Q) (A, error)) {
	if s.peers == nil {
		return
	}
	stop := s.peers.Serve(verb, func(ctx context.Context, question []byte) ([]byte, error) {
		var q Q
		if err := json.Unmarshal(question, &q); err != nil {
			return nil, fmt.Errorf("%s: %w", verb, err)
		}
		var a answer[A]
		value, err := fn(ctx, q)
		if refusal, ok := errors.AsType[*Error](err); ok {
			a.Refusal = refusal
		} else if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
			return nil, err // who asks has no time left either, and knows best what that means
		} else if err != nil {
			a.Failure, a.NotHere, a.Gone = err.Error(), errors.Is(err, ErrNoPeer), errors.Is(err, ErrPeerGone)
		}
		a.Value = value
		return json.Marshal(a)
	})
	context.AfterFunc(s.ctx, stop)
}

// AnswerAsLeader has this node answer what others ask by AskLeader, while it leads.
func AnswerAsLeader[Q, A any](s *Server, verb string, fn func(context.Context, Q) (A, error)) {
	Answer(s, verb, func(ctx context.Context, q Q) (a A, err error) {
		if !s.Leads() { // it does not know yet, or the other node does not
			return a, ErrNoPeer
		}
		return fn(ctx, q)
	})
}

// Ask asks another node what that Answers. Besides what that refuses, the errors
// are those of Peers.Call.
func Ask[Q, A any](ctx context.Context, s *Server, to uint64, verb string, q Q) (value A, err error) {
	question, err := json.Marshal(q)
	if err != nil {
		return value, err
	}
	text, err := s.peers.Call(ctx, to, verb, question)
	if err != nil {
		return value, err
	}
	var a answer[A]
	if err := json.Unmarshal(text, &a); err != nil {
		return value, fmt.Errorf("%s: %w", verb, err)
	}
	switch {
	case a.NotHere:
		return a.Value, ErrNoPeer
	case a.Gone:
		return a.Value, ErrPeerGone
	case a.Refusal != nil:
		return a.Value, a.Refusal
	case a.Failure != "":
		return a.Value, ErrServiceUnavailable.With("another node of the hub: %s", a.Failure)
	}
	return a.Value, nil
}

// leaderPatience is how long a question waits for there to be a leader.
const leaderPatience = 10 * time.Second

// AskLeader has the leader answer by AnswerAsLeader, which is local on a hub of one node and on the
// leader itself. A question that reached nobody is asked again of the next leader,
// for a while; one that may have reached one is not.
//
// Errors: those of local, and ErrServiceUnavailable.
func AskLeader[Q, A any](ctx context.Context, s *Server, verb string, q Q, local func(context.Context, Q) (A, error)) (value A, err error) {
	if s.peers == nil {
		return local(ctx, q)
	}
	return askWhere(ctx, s, s.peers.Leader, verb, q, local)
}

// askWhere asks a node, which is looked for again while the question has reached
// nobody.
func askWhere[Q, A any](ctx context.Context, s *Server, where func() uint64, verb string, q Q, local func(context.Context, Q) (A, error)) (value A, err error) {
	deadline := time.Now().Add(leaderPatience)
	for {
		if node := where(); node == s.Epoch() {
			value, err = local(ctx, q)
		} else if value, err = Ask[Q, A](ctx, s, node, verb, q); err != nil && !errors.Is(err, ErrNoPeer) {
			err = unavailable(err)
		}
		if !errors.Is(err, ErrNoPeer) {
			return value, err
		}
		if time.Now().After(deadline) {
			return value, ErrServiceUnavailable.With("the node of the cluster that was to be asked does not answer")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return value, unavailable(ctx.Err())
		case <-s.ctx.Done():
			return value, ErrServiceUnavailable.With("%v", ErrClosing)
		}
	}
}

// unavailable makes an error of the way to another node one of the hub's.
func unavailable(err error) error {
	var refusal *Error
	if err == nil || errors.As(err, &refusal) || errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ErrServiceUnavailable.With("another node of the hub did not answer in time; it may have done what it was asked")
	}
	return ErrServiceUnavailable.With("another node of the hub did not answer: %v", err)
}
