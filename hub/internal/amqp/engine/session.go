package engine

import (
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

const (
	// window is how many transfers the hub takes before it says that it takes
	// more, which it does when half of them have come.
	window = 5000

	// These bound deliveries that were sent and whose ref is kept, of a
	// link and of a connection: what a peer that never settles makes the hub keep.
	maxLinkUnsettled = 2048
	maxConnUnsettled = 32 * maxLinkUnsettled
)

// A session is one of a connection. The hub answers on the channel that the
// peer began it on, and names links by the peer's handles. Only the goroutine
// that reads ends it, but for DetachAll: then what that one is about to do in it
// comes to nothing.
type session struct {
	conn      *Conn
	channel   uint16
	ending    bool // the hub's end is sent, and the peer's is awaited
	maxHandle uint32
	links     map[uint32]*Link
	handles   uint32 // one more than the highest handle that a link had

	nextIncoming uint32 // id of the peer's next transfer
	incoming     uint32 // how many more it may send

	nextOutgoing uint32
	outgoing     uint32 // how many transfers the peer takes
	nextDelivery uint32
	pending      []pending // deliveries that wait for outgoing
	starved      []*Link   // links that wait for pending to become empty
	sent         sentList  // what was sent and is not settled
}

// begin answers the peer's begin.
func (c *Conn) begin(channel uint16, before *session, b *wire.Begin) error {
	switch {
	case before != nil:
		return illegalState("a begin on channel %d, which has a session", channel)
	case b.RemoteChannel != nil:
		return invalidField("a begin with a remote-channel, though the hub begins no session")
	case channel > channelMax || channel > c.peerMax:
		return framingError(errChannel)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) >= c.opt.MaxSessions {
		return failure(condLimit, "more than %d sessions", c.opt.MaxSessions)
	}
	s := &session{
		conn:         c,
		channel:      channel,
		maxHandle:    min(b.HandleMax, c.maxHandle()),
		nextIncoming: b.NextOutgoingID,
		incoming:     window,
		outgoing:     b.IncomingWindow,
	}
	if c.sessions == nil {
		c.sessions = make(map[uint16]*session)
	}
	c.sessions[channel] = s
	c.queueLocked(channel, &wire.Begin{
		RemoteChannel:  &s.channel,
		NextOutgoingID: s.nextOutgoing,
		IncomingWindow: window,
		OutgoingWindow: window,
		HandleMax:      c.maxHandle(),
	})
	return nil
}

// maxHandle is the largest handle of a link, which each peer is told to be at
// least 255.
func (c *Conn) maxHandle() uint32 { return uint32(max(c.opt.MaxLinks, 256)) - 1 }

// endLocked ends s because of what the peer did. Who calls it tells the links
// when the lock is free.
func (s *session) endLocked(e *wire.Error) []*Link {
	s.queueLocked(&wire.End{Error: e})
	s.ending = true
	return s.dropLinksLocked()
}

// fail ends s.
func (s *session) fail(e *wire.Error) {
	s.conn.mu.Lock()
	links := s.endLocked(e) // none if it has ended
	s.conn.mu.Unlock()
	tellAll(links)
}

// endedByPeer answers the peer's end, or takes it as the answer.
func (s *session) endedByPeer() error {
	c := s.conn
	c.mu.Lock()
	var links []*Link
	if !s.ending {
		links = s.endLocked(nil)
	}
	delete(c.sessions, s.channel)
	c.mu.Unlock()
	tellAll(links)
	return nil
}

// dropLinksLocked ends the links of s and returns them.
func (s *session) dropLinksLocked() []*Link {
	s.conn.countLocked(-s.dropLocked())
	links := make([]*Link, 0, len(s.links))
	for _, l := range s.links {
		l.endLocked()
		s.conn.weight -= l.weight
		links = append(links, l)
	}
	s.conn.links -= len(links)
	s.links = nil
	return links
}

// dropLocked forgets what waits in s and its links, and returns how much it was.
func (s *session) dropLocked() (n int) {
	for _, p := range s.pending {
		n += p.size()
	}
	s.pending, s.starved = nil, nil
	s.sent = sentList{}
	for _, l := range s.links {
		l.pending = 0
		if l.Role == wire.Receiver {
			s.conn.unsettled -= int(l.unsettled)
			l.unsettled = 0
		}
		for _, m := range l.posted {
			n += m.size()
		}
		l.posted = nil
	}
	return n
}

// flow takes the peer's flow: how much it takes, of a session and of a link.
func (s *session) flow(f *wire.Flow) error {
	c := s.conn
	c.mu.Lock()
	var l *Link
	if f.Handle != nil {
		// go-amqp 1.7 may send one more flow behind its detach.
		if l = s.links[*f.Handle]; l == nil && (s.ending || *f.Handle >= s.handles) {
			c.mu.Unlock() // s has ended, or does so now
			s.fail(failure(condUnattached, "a flow for handle %d", *f.Handle))
			return nil
		}
	}
	// What is on its way to the peer fills the window as it sees it. The peer
	// has not seen begin if it leaves out its next-incoming-id, which was 0 then.
	var seen uint32
	if f.NextIncomingID != nil {
		seen = *f.NextIncomingID
	}
	s.outgoing = minus(f.IncomingWindow, s.nextOutgoing-seen)
	s.sendPendingLocked()
	ready := l != nil && l.state == open && l.flowLocked(f)
	c.mu.Unlock()

	if ready {
		l.ready()
	}
	c.wakeStarved()

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case l == nil:
		if f.Echo {
			s.queueFlowLocked(nil)
		}
	case l.state != open:
	case l.Role == wire.Receiver && f.Drain:
		l.drainLocked()
	case f.Echo:
		s.queueFlowLocked(l)
	}
	return nil
}

// minus returns what is left of n when serial numbers have advanced by used.
// One that seems to lie behind has not advanced.
func minus(n, used uint32) uint32 {
	if int32(used) < 0 {
		return n
	}
	return n - min(n, used)
}

// queueFlowLocked says how much the hub takes, of s and of a link if that is
// not nil.
func (s *session) queueFlowLocked(l *Link) {
	f := wire.Flow{}
	if l != nil {
		f.Handle, f.DeliveryCount = &l.handle, &l.count
		f.LinkCredit = &l.credit
		if l.Role == wire.Receiver {
			f.Available = new(uint32)
		}
	}
	s.queueWindowLocked(&f)
}

// queueWindowLocked queues f with the state of the session.
func (s *session) queueWindowLocked(f *wire.Flow) {
	s.incoming = window
	f.NextIncomingID = &s.nextIncoming
	f.IncomingWindow = window
	f.NextOutgoingID = s.nextOutgoing
	f.OutgoingWindow = window
	s.queueLocked(f)
}

// queueLocked queues a frame that is no transfer or disposition, unless s has
// ended.
func (s *session) queueLocked(body wire.Performative) {
	if !s.ending {
		s.conn.queueLocked(s.channel, body)
	}
}
