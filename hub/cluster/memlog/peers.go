package memlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/store"
)

// Peers are the nodes of a cluster in one process.
type Peers struct {
	Log       *Log
	Snapshots *Snapshots
	Nodes     []*Node

	mu sync.Mutex // guards the nodes' fields
}

// A Node is one of Peers. It implements hub.Peers.
type Node struct {
	*store.Replica

	all    *Peers
	client *Client

	// guarded by the mutex of all
	epoch    uint64
	cut      bool
	handlers map[string]*handler
}

type handler struct {
	fn func(ctx context.Context, question []byte) ([]byte, error)
}

// NewPeers returns n nodes, named node-0 and so on, that have joined in their
// order, over a log that has begun. Nodes are not expelled but by Expel.
func NewPeers(n int, logger *slog.Logger) (*Peers, error) {
	ctx := context.Background()
	p := &Peers{Log: New(), Snapshots: &Snapshots{}}
	if err := store.StartLog(ctx, p.Log, p.Snapshots, nil); err != nil {
		return nil, err
	}
	for i := range n {
		node := &Node{all: p, client: p.Log.Client(Faults{}), handlers: map[string]*handler{}}
		r, err := store.OpenReplica(store.ReplicaOptions{Log: node.client, Snapshots: p.Snapshots, Name: fmt.Sprintf("node-%d", i), Logger: logger})
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		node.Replica = r
		p.Nodes = append(p.Nodes, node)
		if _, err := node.Join(ctx); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// Close closes all nodes.
func (p *Peers) Close() (err error) {
	for _, n := range p.Nodes {
		err = errors.Join(err, n.Close())
	}
	return err
}

// Join begins a new epoch of the node.
func (n *Node) Join(ctx context.Context) (epoch uint64, err error) {
	epoch, err = n.Replica.Join(ctx)
	if err == nil {
		n.all.mu.Lock()
		defer n.all.mu.Unlock()
		n.epoch = epoch
	}
	return epoch, err
}

// Cut cuts the node off from the log and from the others, or connects it again.
func (n *Node) Cut(cut bool) {
	n.client.Cut(cut)
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	n.cut = cut
}

// Self implements hub.Peers.
func (n *Node) Self() uint64 {
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	return n.epoch
}

// OnChange implements hub.Peers.
func (n *Node) OnChange(fn func()) (cancel func()) { return n.OnMembers(fn) }

// Nodes implements hub.Peers.
func (n *Node) Nodes() []hub.ClusterNode {
	var nodes []hub.ClusterNode
	for _, m := range n.Members() {
		nodes = append(nodes, hub.ClusterNode{Name: m.Name, Epoch: m.Epoch, Joined: m.Joined, Silent: m.Silent})
	}
	return nodes
}

// Call implements hub.Peers.
func (n *Node) Call(ctx context.Context, to uint64, verb string, question []byte) ([]byte, error) {
	n.all.mu.Lock()
	var h *handler
	i := slices.IndexFunc(n.all.Nodes, func(other *Node) bool { return other.epoch == to })
	if i >= 0 && !n.cut && !n.all.Nodes[i].cut {
		h = n.all.Nodes[i].handlers[verb]
	}
	n.all.mu.Unlock()
	if h == nil || to == 0 {
		return nil, hub.ErrNoPeer
	}
	ctx, cancel := context.WithCancel(ctx)
	fenced := n.all.Nodes[i].Fenced()
	type answer struct {
		text []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		defer cancel()
		text, err := h.fn(ctx, slices.Clone(question))
		answered <- answer{slices.Clone(text), err}
	}()
	select {
	case a := <-answered:
		return a.text, a.err
	case <-fenced:
		cancel()
		return nil, fmt.Errorf("%s of node %d: %w", verb, to, hub.ErrPeerGone)
	case <-ctx.Done():
		select {
		case a := <-answered:
			return a.text, a.err
		default:
			return nil, ctx.Err()
		}
	}
}

// Serve implements hub.Peers.
func (n *Node) Serve(verb string, fn func(ctx context.Context, question []byte) ([]byte, error)) (stop func()) {
	h := &handler{fn}
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	n.handlers[verb] = h
	return func() {
		n.all.mu.Lock()
		defer n.all.mu.Unlock()
		if n.handlers[verb] == h {
			delete(n.handlers, verb)
		}
	}
}

var _ hub.Peers = (*Node)(nil)
