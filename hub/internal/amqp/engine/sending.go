package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A pending is a delivery, or the rest of one, that waits for the peer to take
// more transfers in its session; or the answer to a drain, which has to come
// behind the deliveries before it.
type pending struct {
	link    *Link
	message []byte
	tag     []byte
	ref     any
	id      uint32
	begun   bool // with id; a frame of it has been queued
	settled bool

	drained bool
	count   uint32 // with this delivery-count
}

// A posted is a message that waits for credit.
type posted struct {
	message []byte
	settled bool
}

// overhead is what a message that waits costs besides its bytes.
const overhead = 96

func (p *pending) size() int { return overhead + len(p.message) }
func (p *posted) size() int  { return overhead + len(p.message) }

// CanSend reports whether Send would succeed now. If not, Ready is called when
// it may.
func (l *Link) CanSend() bool {
	c := l.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return l.canSendLocked()
}

// canSendLocked reports whether Send would succeed, and sees to it that the
// outlet is told when it may.
func (l *Link) canSendLocked() bool {
	s := l.session
	c := s.conn
	switch {
	case l.state != open || c.state != open:
	case l.credit == 0 || len(l.posted) > 0:
		// Both change by the peer's flow.
	case l.unsettled >= maxLinkUnsettled:
		l.capped = true
	case c.unsettled >= maxConnUnsettled:
		l.starveLocked(&c.capped)
	case len(s.pending) > 0:
		l.starveLocked(&s.starved)
	case c.queued >= softQueued:
		l.starveLocked(&c.starved)
	default:
		return true
	}
	return false
}

// starveLocked puts l into a list of those that wait, if it is in none.
func (l *Link) starveLocked(list *[]*Link) {
	if !l.starved {
		l.starved = true
		*list = append(*list, l)
	}
}

// Send sends an encoded message of at most 1 MiB if the peer has given credit
// for it and not too much waits to be written, and reports whether it did. With
// settled, or a peer that asked for settled deliveries, it is settled at once
// and ref is not used. tag, of at most 32 bytes, may be nil: then the engine
// makes one. A ref that is nil is not kept: what the peer makes of it is
// answered as far as the protocol wants it. Send keeps no slice.
func (l *Link) Send(message, tag []byte, settled bool, ref any) bool {
	c := l.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !l.canSendLocked() {
		return false
	}
	l.sendLocked(message, tag, settled, ref)
	c.writeLocked()
	return true
}

// Post sends an encoded message as Send does, settled or with a nil ref, or
// keeps it until the peer gives credit. Too many that wait end the connection
// with ErrSlowReader. On a link that has ended it does nothing.
func (l *Link) Post(message []byte, settled bool) {
	c := l.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state != open || l.state != open && l.state != starting:
	case l.state == open && l.credit > 0 && len(l.posted) == 0:
		l.sendLocked(message, nil, settled, nil)
		c.writeLocked()
	default:
		m := posted{bytes.Clone(message), settled}
		l.posted = append(l.posted, m)
		c.countLocked(m.size())
	}
}

// sendLocked begins a delivery, for which there is credit.
func (l *Link) sendLocked(message, tag []byte, settled bool, ref any) {
	s := l.session
	l.credit--
	l.count++
	settled = settled || l.SndSettleMode != nil && *l.SndSettleMode == wire.SndSettled
	if settled {
		ref = nil
	}
	if ref != nil {
		l.unsettled++
		s.conn.unsettled++
	}
	p := pending{link: l, message: message, tag: tag, ref: ref, settled: settled}
	if len(s.pending) == 0 && s.emitLocked(&p) {
		return
	}
	p.message, p.tag = bytes.Clone(p.message), bytes.Clone(p.tag)
	s.waitLocked(p)
}

// waitLocked puts p behind what waits.
func (s *session) waitLocked(p pending) {
	s.pending = append(s.pending, p)
	p.link.pending++
	s.conn.countLocked(p.size())
}

// emitLocked queues frames of p as far as the peer takes them, and reports
// whether all of it is queued.
func (s *session) emitLocked(p *pending) bool {
	if p.drained {
		f := wire.Flow{Handle: &p.link.handle, DeliveryCount: &p.count, LinkCredit: new(uint32), Available: new(uint32), Drain: true}
		s.queueWindowLocked(&f)
		return true
	}
	c := s.conn
	for s.outgoing > 0 {
		if !p.begun {
			p.begun = true
			p.id = s.nextDelivery
			s.nextDelivery++
			if p.ref != nil {
				s.sent.add(sent{p.id, p.link, p.ref})
			}
			if p.tag == nil {
				p.tag = binary.BigEndian.AppendUint32(c.tag[:0], p.id)
			}
		}
		// All fields are in every frame: there are clients that look into the
		// last one of a delivery for what the first one said.
		c.id, c.settled = p.id, p.settled
		c.transfer = wire.Transfer{Handle: p.link.handle, DeliveryID: &c.id, DeliveryTag: p.tag, MessageFormat: &c.format, Settled: &c.settled}
		p.message = c.queueTransferLocked(s.channel, &c.transfer, p.message)
		s.outgoing--
		s.nextOutgoing++
		if !c.transfer.More {
			return true
		}
	}
	return false
}

// sendPendingLocked queues what waits for the peer's window.
func (s *session) sendPendingLocked() {
	if len(s.pending) == 0 {
		return
	}
	for len(s.pending) > 0 {
		p := &s.pending[0]
		s.conn.countLocked(-p.size()) // it is counted as what it becomes
		if !s.emitLocked(p) {
			s.conn.countLocked(p.size())
			return
		}
		if s.conn.state == ended {
			return // and has forgotten what waits
		}
		p.link.pending--
		*p = pending{}
		s.pending = s.pending[1:]
	}
	s.pending = nil
	s.feedLocked()
}

// feedLocked has those told that waited for the window.
func (s *session) feedLocked() {
	s.conn.starved = append(s.conn.starved, s.starved...)
	s.starved = nil
}

// sendPostedLocked sends what waits for credit.
func (l *Link) sendPostedLocked() {
	for len(l.posted) > 0 && l.credit > 0 {
		m := l.posted[0]
		l.posted[0] = posted{}
		if l.posted = l.posted[1:]; len(l.posted) == 0 {
			l.posted = nil
		}
		l.session.conn.countLocked(-m.size())
		l.sendLocked(m.message, nil, m.settled, nil)
	}
}

// flowLocked takes a flow for l, and reports whether its outlet may send.
func (l *Link) flowLocked(f *wire.Flow) (ready bool) {
	var count uint32 // 0 until the peer has seen attach
	if f.DeliveryCount != nil {
		count = *f.DeliveryCount
	}
	if l.Role == wire.Sender {
		// A peer that has less to send than it may can pass over the rest.
		if passed := count - l.count; f.DeliveryCount != nil && passed <= l.credit {
			l.count += passed
			l.credit -= passed
			l.topUpLocked()
		}
		return false
	}
	if f.LinkCredit != nil {
		l.credit = minus(*f.LinkCredit, l.count-count)
	}
	l.sendPostedLocked()
	if l.credit == 0 {
		return false
	}
	l.wakeLocked()
	return true
}

// drainLocked uses up the credit, since the peer does not want to wait for more.
func (l *Link) drainLocked() {
	l.count += l.credit
	l.credit = 0
	p := pending{link: l, drained: true, count: l.count}
	if len(l.session.pending) > 0 {
		l.session.waitLocked(p)
	} else {
		l.session.emitLocked(&p)
	}
}

// Unsettle forgets the ref of a delivery that was sent; Settled is not called
// for it any more. The ref has to be comparable.
func (l *Link) Unsettle(ref any) {
	s := l.session
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if l.unsettled == 0 || l.Role != wire.Receiver {
		return
	}
	n := s.sent.remove(func(d sent) bool { return d.link == l && d.ref == ref })
	for i := range s.pending {
		if p := &s.pending[i]; p.link == l && !p.begun && p.ref == ref {
			p.ref = nil
			n++
		}
	}
	l.unsettled -= uint32(n)
	s.conn.unsettled -= n
}

// disposed takes the peer's disposition. What it says as a sender changes
// nothing: the hub settles what it is sent.
func (s *session) disposed(d *wire.Disposition) error {
	if d.Role != wire.Receiver || !d.Settled && d.State == nil {
		return nil
	}
	if _, ok := d.State.(*wire.Received); ok && !d.Settled {
		return nil
	}
	last := d.First
	if d.Last != nil {
		last = *d.Last
	}
	if int32(last-d.First) < 0 {
		return nil
	}
	c := s.conn
	c.mu.Lock()
	c.hits = s.sent.take(c.hits[:0], d.First, last)
	for _, hit := range c.hits {
		hit.link.unsettled--
		c.unsettled--
	}
	c.mu.Unlock()

	next := d.First // the first that is not answered
	for _, hit := range c.hits {
		answer := hit.link.settled(hit.ref, d.State)
		if answer == nil || d.Settled {
			continue
		}
		c.mu.Lock()
		if hit.id != next {
			c.queueDispositionLocked(s, wire.Sender, next, hit.id-1, d.State)
		}
		c.queueDispositionLocked(s, wire.Sender, hit.id, hit.id, answer)
		c.mu.Unlock()
		next = hit.id + 1
	}
	if !d.Settled && int32(last-next) >= 0 {
		c.mu.Lock()
		c.queueDispositionLocked(s, wire.Sender, next, last, d.State)
		c.mu.Unlock()
	}
	for _, hit := range c.hits {
		if hit.link.uncapped() {
			hit.link.ready()
		}
	}
	c.wakeStarved()
	clear(c.hits)
	if cap(c.hits) > 64 {
		c.hits = nil
	}
	return nil
}

// settled tells the outlet, and returns what it answers.
func (l *Link) settled(ref any, state wire.State) wire.State {
	l.calls.Lock()
	defer l.calls.Unlock()
	if l.told {
		return nil
	}
	return l.Outlet.Settled(ref, state)
}

// uncapped reports whether Send was refused because too many deliveries were
// unsettled, which are fewer now.
func (l *Link) uncapped() bool {
	c := l.session.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !l.capped || l.state != open {
		return false
	}
	l.capped = false
	l.wakeLocked()
	return true
}

// A sent is a delivery whose ref is kept until the peer settles it.
type sent struct {
	id   uint32
	link *Link // nil once that is done
	ref  any
}

// A sentList are those of a session, in the order of their ids, which need not
// be consecutive. Removing costs as much as finding: the places of what is gone
// are closed up when they are the most.
type sentList struct {
	all  []sent
	live int
}

func (l *sentList) add(d sent) {
	l.all = append(l.all, d)
	l.live++
}

// take removes those with ids from first to last, and appends them to found.
func (l *sentList) take(found []sent, first, last uint32) []sent {
	if len(l.all) == 0 {
		return found
	}
	base := l.all[0].id
	if int32(first-base) < 0 {
		if int32(last-base) < 0 {
			return found
		}
		first = base
	}
	i := sort.Search(len(l.all), func(i int) bool { return l.all[i].id-base >= first-base })
	for ; i < len(l.all) && l.all[i].id-first <= last-first; i++ {
		if l.all[i].link != nil {
			found = append(found, l.all[i])
			l.all[i] = sent{id: l.all[i].id}
			l.live--
		}
	}
	l.shrink()
	return found
}

// remove removes those that match, and returns how many they were.
func (l *sentList) remove(match func(sent) bool) (n int) {
	for i := range l.all {
		if d := &l.all[i]; d.link != nil && match(*d) {
			*d = sent{id: d.id}
			n++
		}
	}
	l.live -= n
	l.shrink()
	return n
}

func (l *sentList) shrink() {
	switch {
	case l.live == 0:
		l.all = nil
	case len(l.all) > 2*l.live+16:
		l.all = slices.DeleteFunc(l.all, func(d sent) bool { return d.link == nil })
	}
}
