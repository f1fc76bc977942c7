package amqp

import (
	"slices"
	"sync"

	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// replies are the links of a connection on which a node that is asked, such as
// $cbs or $management, answers.
type replies struct {
	mu    sync.Mutex // guards what follows
	links []*engine.Link
}

func (r *replies) add(l *engine.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links = append(r.links, l)
}

func (r *replies) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.links)
}

func (r *replies) remove(l *engine.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links = slices.DeleteFunc(r.links, func(other *engine.Link) bool { return other == l })
}

// send answers a request that came on a link: on the link that it names by its
// target, which the clients of Event Hubs do; else on that of the same session,
// since the "cbs" that others write names none; else on the newest. The answer
// to a peer without such a link is lost, as it wants it.
func (r *replies) send(request *engine.Link, replyTo string, message []byte) {
	r.mu.Lock()
	var to *engine.Link
	rank := 0
	for _, l := range r.links {
		fits := 1
		if l.SameSession(request) {
			fits = 2
		}
		if target, ok := l.Target.Address.(string); ok && target == replyTo && replyTo != "" {
			fits += 2
		}
		if fits >= rank {
			to, rank = l, fits
		}
	}
	r.mu.Unlock()
	if to != nil {
		to.Post(message, to.SndSettleMode != nil && *to.SndSettleMode == wire.SndSettled)
	}
}

// A replier is the outlet of a link on which answers are sent.
type replier struct {
	link *engine.Link
	of   *replies
}

// attach makes l, on which the peer receives, one of the links.
func (r *replies) attach(l *engine.Link) {
	l.Outlet = replier{l, r}
	r.add(l)
}

// Ready implements engine.Outlet.
func (replier) Ready() {}

// Settled implements engine.Outlet.
func (replier) Settled(any, wire.State) wire.State { return nil }

// Detached implements engine.Outlet.
func (r replier) Detached() { r.of.remove(r.link) }
