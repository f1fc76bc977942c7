package engine

import (
	"context"
	"slices"
	"sync"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A Link is one direction between the peer and an address.
type Link struct {
	// What the peer attached. Source and Target are echoed as they are; a
	// handler may change them before that. Neither is nil: one that the peer
	// left out is empty. Their addresses are strings or nil. Filters and the
	// like, properties and capabilities are there for Attach alone.
	Name                string
	Role                wire.Role // the peer's: wire.Sender has an Inlet, wire.Receiver an Outlet
	Source              *wire.Source
	Target              *wire.Target
	Properties          wire.Fields
	DesiredCapabilities []wire.Symbol
	SndSettleMode       *uint8 // as asked, and echoed
	RcvSettleMode       *uint8

	// What the handler decides in Attach.
	Inlet               Inlet
	Outlet              Outlet
	Credit              uint32 // of an Inlet: how many deliveries may be under way, unsettled ones counted. 0 grants none
	MaxMessageSize      uint64 // of an Inlet: larger deliveries are rejected by the engine with amqp:link:message-size-exceeded, announced to the peer; of an Outlet announced only. 0 is no bound
	Slack               uint64 // of an Inlet: how much longer than announced a delivery may be
	OfferedCapabilities []wire.Symbol
	AnswerProperties    wire.Fields // of the answering attach

	session *session
	handle  uint32
	weight  int // bytes of its texts

	calls sync.Mutex // held by who calls the Inlet or Outlet; before Conn.mu
	told  bool       // Detached has been called; guarded by calls

	// Guarded by Conn.mu.
	state     state
	detach    bool        // asked for before attach was answered
	detachErr *wire.Error // with this error
	count     uint32      // deliveries that were begun, as AMQP's delivery-count
	credit    uint32      // how many more may be begun

	assembly  *assembly // of an Inlet: the delivery that is not complete
	unsettled uint32    // of an Inlet: deliveries that wait for Settle; of an Outlet: those whose ref is kept

	pending int           // of an Outlet: what of it waits in the session
	posted  []posted      // of an Outlet: messages that wait for credit
	starved bool          // it waits in a list, since Send was refused
	capped  bool          // Send was refused because too many of its own are unsettled
	wake    chan struct{} // closed when Send may succeed; nil if nobody waits
}

// Conn returns the connection of l.
func (l *Link) Conn() *Conn { return l.session.conn }

// SameSession reports whether both links are of one session.
func (l *Link) SameSession(other *Link) bool { return l.session == other.session }

// attach has the handler decide on a link.
func (s *session) attach(a *wire.Attach) error {
	c := s.conn
	if a.Handle > c.maxHandle() {
		return framingError(errHandle)
	}
	c.mu.Lock()
	if s.ending {
		c.mu.Unlock()
		return nil
	}
	if refusal := s.refusalLocked(a); refusal != nil {
		c.mu.Unlock()
		s.fail(refusal)
		return nil
	}
	l := newLink(s, a)
	name := linkName{l.Name, l.Role}
	stolen := c.names[name]
	if stolen != nil {
		stolen.detachLocked(failure(condStolen, "another link has the name"))
	}
	if s.links == nil {
		s.links = make(map[uint32]*Link)
	}
	if c.names == nil {
		c.names = make(map[linkName]*Link)
	}
	s.links[a.Handle] = l
	s.handles = max(s.handles, a.Handle+1)
	c.links++
	c.weight += l.weight
	c.names[name] = l
	c.mu.Unlock()

	if stolen != nil {
		stolen.tell()
	}
	err := c.handler.Attach(l)
	if err == nil && (l.Role == wire.Sender && l.Inlet == nil || l.Role == wire.Receiver && l.Outlet == nil) {
		panic("a link without an end")
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		l.told = err != nil // who was refused hears nothing
		return nil
	}
	answer := l.answer()
	if err != nil {
		e := errorOf(err)
		if e.Condition != condStolen {
			// Clients take a link whose terminus is there for attached, go-amqp
			// 1.0 if either is; of one that was stolen they want to hear that it
			// was.
			answer.Source, answer.Target = nil, nil
		}
		c.queueLocked(s.channel, answer)
		l.told = true // who was refused hears nothing
		l.detachLocked(e)
		l.strip()
		return nil
	}
	l.state = open
	c.queueLocked(s.channel, answer)
	l.strip()
	if l.detach {
		l.detachLocked(l.detachErr)
		c.startTellingLocked(l)
		return nil
	}
	if l.Role == wire.Sender {
		l.topUpLocked()
	}
	return nil
}

// refusalLocked says why an attach ends the session.
func (s *session) refusalLocked(a *wire.Attach) *wire.Error {
	switch {
	case s.links[a.Handle] != nil:
		return failure(condHandleInUse, "an attach with handle %d", a.Handle)
	case a.Handle > s.maxHandle:
		return failure(condNotAllowed, "an attach with handle %d, and a handle-max of %d", a.Handle, s.maxHandle)
	case s.conn.links >= s.conn.opt.MaxLinks:
		return failure(condLimit, "more than %d links", s.conn.opt.MaxLinks)
	case s.conn.weight > maxWeight:
		return failure(condLimit, "links with more than %d bytes of names and addresses", maxWeight)
	}
	return nil
}

// maxWeight bounds the names and addresses of a connection's links.
const maxWeight = 8 << 20

func newLink(s *session, a *wire.Attach) *Link {
	l := &Link{
		Name:                a.Name,
		Role:                a.Role,
		Source:              a.Source,
		Target:              a.Target,
		Properties:          a.Properties,
		DesiredCapabilities: a.DesiredCapabilities,
		SndSettleMode:       a.SndSettleMode,
		RcvSettleMode:       a.RcvSettleMode,
		session:             s,
		handle:              a.Handle,
	}
	if l.Source == nil {
		l.Source = new(wire.Source)
	}
	if l.Target == nil {
		l.Target = new(wire.Target)
	}
	l.weight = len(l.Name) + textOnly(&l.Source.Address) + textOnly(&l.Target.Address)
	if a.Role == wire.Sender && a.InitialDeliveryCount != nil {
		l.count = *a.InitialDeliveryCount
	}
	return l
}

// textOnly forgets an address that is no text, and returns how long it is.
func textOnly(address *any) int {
	text, ok := (*address).(string)
	if !ok {
		*address = nil
	}
	return len(text)
}

// strip forgets what is of no use behind attach. It can be much of what the peer
// has sent.
func (l *Link) strip() {
	l.Properties, l.DesiredCapabilities = nil, nil
	l.AnswerProperties, l.OfferedCapabilities = nil, nil
	// Addresses are left alone: somebody may be reading them.
	if s := l.Source; s != nil {
		s.DynamicNodeProperties, s.Filter, s.DefaultOutcome, s.Outcomes, s.Capabilities = nil, nil, nil, nil, nil
	}
	if t := l.Target; t != nil {
		t.DynamicNodeProperties, t.Capabilities = nil, nil
	}
}

// answer is the attach that the hub sends.
func (l *Link) answer() *wire.Attach {
	a := &wire.Attach{
		Name:                l.Name,
		Handle:              l.handle,
		Role:                !l.Role,
		SndSettleMode:       l.SndSettleMode,
		RcvSettleMode:       l.RcvSettleMode,
		Source:              l.Source,
		Target:              l.Target,
		OfferedCapabilities: l.OfferedCapabilities,
		Properties:          l.AnswerProperties,
	}
	if l.Role == wire.Receiver {
		a.InitialDeliveryCount = new(uint32)
	}
	if l.MaxMessageSize > 0 {
		a.MaxMessageSize = &l.MaxMessageSize
	}
	return a
}

// Detach ends l: it sends detach, closed and with the error if that is not nil.
// It does not wait. The first call counts.
func (l *Link) Detach(e *wire.Error) {
	c := l.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	l.hubDetachesLocked(e)
	c.writeLocked()
}

func (l *Link) hubDetachesLocked(e *wire.Error) {
	c := l.session.conn
	switch {
	case c.state != open:
	case l.state == starting && !l.detach:
		l.detach, l.detachErr = true, e
	case l.state == open:
		l.detachLocked(e)
		c.startTellingLocked(l)
	}
}

// DetachAll detaches links of one connection, as Detach does. A session of which
// they are all the links is ended instead, with the error: Java's client has a
// session for each device, ends it when the links are detached, begins another
// on the same channel, and then takes the answering end for the end of that one.
func DetachAll(links []*Link, e *wire.Error) {
	if len(links) == 0 {
		return
	}
	c := links[0].session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return
	}
	attached := make(map[*session]int)
	for _, l := range links {
		if l.state == open {
			attached[l.session]++
		}
	}
	for s, n := range attached {
		if n == len(s.links) {
			ended := s.endLocked(e)
			c.running.Go(func() { tellAll(ended) })
		}
	}
	for _, l := range links {
		l.hubDetachesLocked(e)
	}
	c.writeLocked()
}

// EndSession ends the session of l, with the error if that is not nil, and so all links in it. It does not wait.
func (l *Link) EndSession(e *wire.Error) {
	s, c := l.session, l.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open || s.ending {
		return
	}
	ended := s.endLocked(e)
	c.running.Go(func() { tellAll(ended) })
	c.writeLocked()
}

// Links returns the links of the connection that are attached.
func (c *Conn) Links() (list []*Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		for _, l := range s.links {
			if l.state == open {
				list = append(list, l)
			}
		}
	}
	return list
}

// startTellingLocked tells l Detached on a goroutine of its own, since the
// caller may hold locks that Detached takes.
func (c *Conn) startTellingLocked(l *Link) {
	if c.state == open {
		c.running.Go(l.tell)
	}
}

// detachLocked sends detach. Who calls it tells the link.
func (l *Link) detachLocked(e *wire.Error) {
	l.endLocked()
	l.state = closing
	l.session.conn.queueLocked(l.session.channel, &wire.Detach{Handle: l.handle, Closed: true, Error: e})
}

// fail is detachLocked for what the peer did.
func (l *Link) fail(e *wire.Error) {
	c := l.session.conn
	c.mu.Lock()
	if l.state == open {
		l.detachLocked(e)
	}
	c.mu.Unlock()
	l.tell()
}

// detachedByPeer answers the peer's detach, or takes it as the answer. There is
// nothing to do for a handle that is free.
func (s *session) detachedByPeer(d *wire.Detach) error {
	c := s.conn
	c.mu.Lock()
	l := s.links[d.Handle]
	if l == nil {
		c.mu.Unlock()
		return nil
	}
	delete(s.links, d.Handle)
	c.links--
	c.weight -= l.weight
	mine := l.state == open
	if mine {
		l.endLocked()
		c.queueLocked(s.channel, &wire.Detach{Handle: d.Handle, Closed: d.Closed})
	}
	l.state = ended
	c.mu.Unlock()
	if mine {
		l.tell()
	}
	return nil
}

// endLocked forgets all that l holds. Nothing is sent on it any more.
func (l *Link) endLocked() {
	s := l.session
	c := s.conn
	l.state = ended
	if name := (linkName{l.Name, l.Role}); c.names[name] == l {
		delete(c.names, name)
	}
	n := 0
	for _, m := range l.posted {
		n += m.size()
	}
	l.posted = nil
	if l.pending > 0 {
		s.pending = slices.DeleteFunc(s.pending, func(p pending) bool {
			if p.link != l {
				return false
			}
			n += p.size()
			return true
		})
		l.pending = 0
		if len(s.pending) == 0 {
			s.feedLocked()
		}
	}
	c.countLocked(-n)
	if l.Role == wire.Receiver && l.unsettled > 0 {
		c.unsettled -= int(l.unsettled)
		s.sent.remove(func(d sent) bool { return d.link == l })
	}
	l.unsettled = 0
	l.dropAssemblyLocked()
	l.wakeLocked()
}

// ready tells the outlet.
func (l *Link) ready() {
	l.calls.Lock()
	defer l.calls.Unlock()
	if !l.told {
		l.Outlet.Ready()
	}
}

// tell says once that l has ended.
func (l *Link) tell() {
	l.calls.Lock()
	defer l.calls.Unlock()
	if l.told {
		return
	}
	l.told = true
	if l.Role == wire.Sender {
		l.Inlet.Detached()
	} else {
		l.Outlet.Detached()
	}
}

func tellAll(links []*Link) {
	for _, l := range links {
		l.tell()
	}
}

// Wait waits until Send may succeed. The error is that of ctx, or ErrDetached.
// An Inlet or Outlet must not call it inside a call of its own.
func (l *Link) Wait(ctx context.Context) error {
	for {
		wake, err := l.waiting()
		if wake == nil {
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waiting returns what is closed when it is worth asking again, or nil if Send
// may succeed or will never do so again.
func (l *Link) waiting() (<-chan struct{}, error) {
	c := l.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open || l.state != open && l.state != starting {
		return nil, ErrDetached
	}
	if l.canSendLocked() {
		return nil, nil
	}
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return l.wake, nil
}

// wakeLocked wakes who waits.
func (l *Link) wakeLocked() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}
