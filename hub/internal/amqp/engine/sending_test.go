package engine

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// sender returns a handler that gives away its last link.
func sender(link **Link, o *outlet) *handler {
	return &handler{attach: func(l *Link) error {
		*link = l
		l.Outlet = o
		return nil
	}}
}

// wantTransfer compares the next frame, but for the payload.
func (p *peer) wantTransfer(handle, id uint32, more bool) []byte {
	p.Helper()
	f := p.next()
	want := &wire.Transfer{Handle: handle, DeliveryID: &id, DeliveryTag: []byte{0, 0, 0, byte(id)}, MessageFormat: new(uint32), Settled: new(bool), More: more}
	if diff := cmp.Diff(want, f.Body); diff != "" {
		p.Errorf("transfer (-want +got):\n%s", diff)
	}
	return f.Payload
}

func TestSendNeedsCredit(t *testing.T) {
	var l *Link
	ready := 0
	inBubble(t, sender(&l, &outlet{ready: func() { ready++ }}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 3)
		if l.CanSend() || l.Send([]byte("x"), nil, false, nil) {
			p.Error("sent without credit")
		}
		p.grant(1, 3, 0, 0, 0, 100)
		synctest.Wait()
		if ready != 0 {
			p.Error("ready without credit")
		}
		p.grant(1, 3, 0, 2, 0, 100)
		synctest.Wait()
		if ready != 1 {
			p.Errorf("ready %d times", ready)
		}
		for i := range 3 {
			if can := l.CanSend(); can != (i < 2) {
				p.Errorf("message %d: CanSend is %v", i, can)
			}
			if sent := l.Send([]byte{byte(i)}, nil, false, nil); sent != (i < 2) {
				p.Errorf("message %d: Send is %v", i, sent)
			}
		}
		p.wantTransfer(3, 0, false)
		p.wantTransfer(3, 1, false)
		p.grant(1, 3, 1, 2, 1, 100) // the second is on its way
		synctest.Wait()
		if !l.Send(nil, nil, false, nil) || l.Send(nil, nil, false, nil) {
			p.Error("not one sent")
		}
		p.wantTransfer(3, 2, false)
		p.grant(1, 3, 1, 1, 3, 100) // as if it had not seen two
		p.grant(1, 3, 1, 0, 3, 100)
		synctest.Wait()
		if l.CanSend() {
			p.Error("credit that is used up already")
		}
		p.grant(1, 3, 9, 1, 3, 100) // ahead of the hub, which it cannot be
		synctest.Wait()
		if !l.Send(nil, nil, false, nil) || l.CanSend() {
			p.Error("not one sent")
		}
	})
}

func TestSerialNumbersOverflow(t *testing.T) {
	var l *Link
	inBubble(t, sender(&l, &outlet{}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		synctest.Wait()
		s := l.session
		p.hub.mu.Lock()
		l.count, s.nextDelivery, s.nextOutgoing = 1<<32-2, 1<<32-2, 1<<32-2
		p.hub.mu.Unlock()
		p.grant(1, 0, 1<<32-3, 4, 1<<32-3, 4)
		synctest.Wait()
		n := 0
		for l.Send([]byte("x"), nil, false, n) {
			n++
		}
		if n != 3 || len(s.sent.all) != 3 {
			p.Errorf("sent %d, %d are kept", n, len(s.sent.all))
		}
		for range 3 {
			p.next()
		}
		p.send(1, accepted(wire.Receiver, 1<<32-2, 0))
		synctest.Wait()
		if s.sent.live != 0 || p.hub.unsettled != 0 {
			p.Errorf("%d are kept", s.sent.live)
		}
	})
}

func TestMessageIsSplit(t *testing.T) {
	var l *Link
	open := goodOpen
	open.MaxFrameSize = 512
	withPeer(t, sender(&l, &outlet{}), Options{}, open, func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.grant(1, 0, 0, 100, 0, 1000)
		synctest.Wait()
		for n := 400; n < 2100; n += 7 {
			message := strings.Repeat(string(rune('a'+n%26)), n)
			p.grant(1, 0, l.count, 1, l.session.nextOutgoing, 1000)
			synctest.Wait()
			if !l.Send([]byte(message), []byte("tag"), true, nil) {
				p.Fatal("not sent")
			}
			var got []byte
			for more := true; more; {
				f := p.next()
				tr := f.Body.(*wire.Transfer)
				more = tr.More
				got = append(got, f.Payload...)
				if size := len(wire.AppendFrame(nil, 1, tr, f.Payload)); size > 512 || more && size < 512 {
					p.Fatalf("a frame of %d bytes", size)
				}
				if !*tr.Settled || string(tr.DeliveryTag) != "tag" || tr.DeliveryID == nil {
					p.Fatalf("a frame of %v", tr)
				}
			}
			if string(got) != message {
				p.Fatalf("%d bytes arrived as %d", n, len(got))
			}
		}
	})
}

func TestTransfersWaitForTheWindow(t *testing.T) {
	var l *Link
	ready := 0
	open := goodOpen
	open.MaxFrameSize = 512
	withPeer(t, sender(&l, &outlet{ready: func() { ready++ }}), Options{}, open, func(p *peer) {
		p.send(1, &wire.Begin{IncomingWindow: 2, HandleMax: 10})
		p.next()
		p.attachReceiver(1, 0)
		p.send(1, &wire.Flow{IncomingWindow: 2, Handle: new(uint32), LinkCredit: ptr(uint32(10))}) // begin not seen
		synctest.Wait()
		tag := []byte("tag")
		message := []byte(strings.Repeat("x", 1300))
		if !l.Send(message, tag, false, "ref") {
			p.Fatal("not sent")
		}
		clear(message) // nothing of it is kept
		clear(tag)
		if l.Send([]byte("y"), nil, false, nil) || l.CanSend() {
			p.Error("sent, though another waits")
		}
		l.Post([]byte("posted"), false)
		var got []byte
		for range 2 {
			got = append(got, p.next().Payload...)
		}
		p.wantQuiet()
		if ready != 1 {
			p.Errorf("ready %d times", ready)
		}
		p.send(1, &wire.Flow{NextIncomingID: ptr(uint32(1)), IncomingWindow: 2}) // one on its way
		f := p.next()
		got = append(got, f.Payload...)
		if string(got) != strings.Repeat("x", 1300) {
			p.Errorf("%d bytes arrived as %d", 1300, len(got))
		}
		if tr := f.Body.(*wire.Transfer); tr.More || string(tr.DeliveryTag) != "tag" {
			p.Errorf("the last frame is %v", tr)
		}
		p.wantQuiet()
		p.send(1, &wire.Flow{NextIncomingID: ptr(uint32(3)), IncomingWindow: 1})
		if got := p.wantTransfer(0, 1, false); string(got) != "posted" {
			p.Errorf("got %q", got)
		}
		synctest.Wait()
		if ready != 2 {
			p.Errorf("ready %d times", ready)
		}
	})
}

func TestDetachForgetsWhatWaits(t *testing.T) {
	var l *Link
	var log []string
	h := logged(&log)
	attach := h.attach
	h.attach = func(x *Link) error { l = x; return attach(x) }
	inBubble(t, h, func(p *peer) {
		p.send(1, &wire.Begin{IncomingWindow: 0, HandleMax: 10})
		p.next()
		p.attachReceiver(1, 0)
		first := l
		p.attachReceiver(1, 1)
		p.grant(1, 0, 0, 10, 0, 0)
		p.grant(1, 1, 0, 10, 0, 0)
		synctest.Wait()
		if !first.Send([]byte("x"), nil, false, "ref") || l.Send([]byte("y"), nil, false, "ref") {
			p.Error("not one sent")
		}
		first.Post([]byte("z"), true)
		log = nil
		p.send(1, &wire.Detach{Handle: 0})
		p.next()
		synctest.Wait()
		if p.queued != 0 || p.hub.unsettled != 0 {
			p.Errorf("%d bytes wait, %d are unsettled", p.queued, p.hub.unsettled)
		}
		p.send(1, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 5})
		p.wantQuiet()
		if !slices.Equal(log, []string{"a detached", "b ready"}) {
			p.Errorf("told: %q", log)
		}
		if !l.Send([]byte("y"), nil, false, "ref") {
			p.Error("not sent")
		}
		p.wantTransfer(1, 0, false)
	})
}

func TestPeerThatWantsSettledDeliveries(t *testing.T) {
	var l *Link
	inBubble(t, sender(&l, &outlet{}), func(p *peer) {
		p.begin(1)
		p.send(1, &wire.Attach{Name: "n", Role: wire.Receiver, SndSettleMode: ptr(wire.SndSettled)})
		p.next()
		p.grant(1, 0, 0, 10, 0, 100)
		synctest.Wait()
		l.Send([]byte("x"), nil, false, "ref")
		l.Post([]byte("x"), false)
		for range 2 {
			if tr := p.next().Body.(*wire.Transfer); !*tr.Settled {
				p.Errorf("sent %v", tr)
			}
		}
		if p.hub.unsettled != 0 {
			p.Error("the ref is kept")
		}
	})
}

func TestPostWaitsForCredit(t *testing.T) {
	var l *Link
	inBubble(t, sender(&l, &outlet{}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		for i := range 5 {
			b := []byte{byte('a' + i)}
			l.Post(b, i%2 == 1)
			clear(b)
		}
		p.wantQuiet()
		p.grant(1, 0, 0, 2, 0, 100)
		if got := p.next(); string(got.Payload) != "a" || *got.Body.(*wire.Transfer).Settled {
			p.Errorf("got %v", got)
		}
		if got := p.next(); string(got.Payload) != "b" || !*got.Body.(*wire.Transfer).Settled {
			p.Errorf("got %v", got)
		}
		p.wantQuiet()
		l.Post([]byte("f"), true)
		p.grant(1, 0, 2, 10, 2, 100)
		var rest []byte
		for range 4 {
			rest = append(rest, p.next().Payload...)
		}
		if string(rest) != "cdef" {
			p.Errorf("got %q", rest)
		}
		if !l.CanSend() {
			p.Error("the rest of the credit is gone")
		}
	})
}

// The reply to a request comes behind the settlement of the request.
func TestPostKeepsItsPlace(t *testing.T) {
	var replies *Link
	h := &handler{attach: func(l *Link) error {
		if l.Role == wire.Receiver {
			replies = l
			l.Outlet = &outlet{}
			return nil
		}
		l.Credit = 10
		l.Inlet = &inlet{receive: func(d *Delivery) {
			d.Accept()
			replies.Post([]byte("reply"), true)
		}}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		p.begin(2)
		p.attachReceiver(1, 0)
		p.attachSender(2, 1)
		p.grant(1, 0, 0, 10, 0, 100)
		for id := range uint32(3) {
			p.transfer(2, 1, id, false, "request")
			p.want(2, accepted(wire.Receiver, id, id))
			if id == 1 {
				p.next() // credit
			}
			if f := p.next(); string(f.Payload) != "reply" {
				p.Errorf("the hub sends %v", f)
			}
		}
	})
}

func TestTooMuchIsPosted(t *testing.T) {
	var l *Link
	inBubble(t, sender(&l, &outlet{}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		for range 32 {
			l.Post(make([]byte, 64<<10), true)
		}
		if err := p.wantServed(); err != ErrSlowReader {
			p.Errorf("Serve returned %v", err)
		}
	})
	inBubble(t, sender(&l, &outlet{}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		for range maxQueued/overhead + 1 {
			l.Post(nil, true)
		}
		if err := p.wantServed(); err != ErrSlowReader {
			p.Errorf("Serve returned %v", err)
		}
	})
}

func drained(handle, count, nextOutgoing uint32) *wire.Flow {
	return &wire.Flow{
		NextIncomingID: new(uint32), IncomingWindow: 5000, NextOutgoingID: nextOutgoing, OutgoingWindow: 5000,
		Handle: &handle, DeliveryCount: &count, LinkCredit: new(uint32), Available: new(uint32), Drain: true,
	}
}

func TestDrain(t *testing.T) {
	var l *Link
	left := 0
	o := &outlet{ready: func() {
		for ; left > 0 && l.Send([]byte("x"), nil, false, nil); left-- {
		}
	}}
	inBubble(t, sender(&l, o), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		drain := func(count, credit uint32) *wire.Flow {
			return &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 1000, Handle: new(uint32), DeliveryCount: &count, LinkCredit: &credit, Drain: true, Echo: true}
		}
		p.send(1, drain(0, 10))
		p.want(1, drained(0, 10, 0))
		p.wantQuiet()
		left = 2
		p.send(1, drain(10, 5))
		p.wantTransfer(0, 0, false)
		p.wantTransfer(0, 1, false)
		p.want(1, drained(0, 15, 2))
		p.wantQuiet()
		// go-amqp drains so: without credit.
		p.send(1, drain(15, 0))
		p.want(1, drained(0, 15, 2))
		if l.CanSend() {
			p.Error("credit is left")
		}
	})
}

// The answer to a drain comes behind the deliveries that it counts.
func TestDrainWaitsForTheWindow(t *testing.T) {
	var l *Link
	inBubble(t, sender(&l, &outlet{}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.grant(1, 0, 0, 10, 0, 0)
		synctest.Wait()
		l.Send([]byte("x"), nil, false, nil)
		p.send(1, &wire.Flow{NextIncomingID: new(uint32), Handle: new(uint32), DeliveryCount: new(uint32), LinkCredit: ptr(uint32(10)), Drain: true})
		p.wantQuiet()
		p.send(1, &wire.Flow{NextIncomingID: new(uint32), IncomingWindow: 1})
		p.wantTransfer(0, 0, false)
		p.want(1, drained(0, 10, 1))
		if p.hub.queued != 0 {
			p.Errorf("%d bytes wait", p.hub.queued)
		}
	})
}

// settlements returns an outlet that writes down what was settled.
func settlements(log *[]string, answer func(ref any) wire.State) *outlet {
	return &outlet{settled: func(ref any, s wire.State) wire.State {
		*log = append(*log, fmt.Sprintf("%v %T", ref, s))
		if answer == nil {
			return nil
		}
		return answer(ref)
	}}
}

func TestDispositions(t *testing.T) {
	lost := &wire.Rejected{Error: &wire.Error{Condition: "com.microsoft:message-lock-lost"}}
	answer := func(ref any) wire.State {
		if ref == 2 || ref == 4 {
			return lost
		}
		return nil
	}
	d := func(first, last uint32, settled bool, state wire.State) *wire.Disposition {
		return &wire.Disposition{Role: wire.Receiver, First: first, Last: &last, Settled: settled, State: state}
	}
	own := func(first, last uint32, state wire.State) *wire.Disposition {
		x := &wire.Disposition{Role: wire.Sender, First: first, Settled: true, State: state}
		if first != last {
			x.Last = &last
		}
		return x
	}
	tests := []struct {
		name   string
		send   []*wire.Disposition
		told   []string
		answer []*wire.Disposition
	}{
		{"one", []*wire.Disposition{{Role: wire.Receiver, First: 3, Settled: true, State: wire.Accepted{}}}, []string{"3 wire.Accepted"}, nil},
		{"a range", []*wire.Disposition{d(1, 3, true, wire.Released{})}, []string{"1 wire.Released", "2 wire.Released", "3 wire.Released"}, nil},
		{"twice", []*wire.Disposition{d(1, 1, true, wire.Accepted{}), d(0, 2, true, wire.Accepted{})}, []string{"1 wire.Accepted", "0 wire.Accepted", "2 wire.Accepted"}, nil},
		{"without a word", []*wire.Disposition{d(0, 0, true, nil)}, []string{"0 <nil>"}, nil},
		{"in two steps", []*wire.Disposition{d(0, 0, false, wire.Accepted{}), d(0, 0, true, wire.Accepted{})}, []string{"0 wire.Accepted"}, []*wire.Disposition{own(0, 0, wire.Accepted{})}},
		{"to be answered", []*wire.Disposition{d(0, 1, false, wire.Accepted{})}, []string{"0 wire.Accepted", "1 wire.Accepted"}, []*wire.Disposition{own(0, 1, wire.Accepted{})}},
		{"to be answered in different ways", []*wire.Disposition{d(0, 5, false, wire.Accepted{})},
			[]string{"0 wire.Accepted", "1 wire.Accepted", "2 wire.Accepted", "3 wire.Accepted", "4 wire.Accepted"},
			[]*wire.Disposition{own(0, 1, wire.Accepted{}), own(2, 2, lost), own(3, 3, wire.Accepted{}), own(4, 4, lost), own(5, 5, wire.Accepted{})}},
		{"of what has no ref", []*wire.Disposition{d(5, 5, false, &wire.Modified{DeliveryFailed: true})}, nil, []*wire.Disposition{own(5, 5, &wire.Modified{DeliveryFailed: true})}},
		{"of everything", []*wire.Disposition{d(0, 1<<31-1, true, wire.Accepted{})},
			[]string{"0 wire.Accepted", "1 wire.Accepted", "2 wire.Accepted", "3 wire.Accepted", "4 wire.Accepted"}, nil},
		{"of nothing", []*wire.Disposition{d(3, 1, false, wire.Accepted{})}, nil, nil},
		{"that something came", []*wire.Disposition{d(0, 3, false, &wire.Received{}), d(0, 3, false, nil)}, nil, nil},
		{"as a sender", []*wire.Disposition{{Role: wire.Sender, First: 0, Last: ptr(uint32(5)), Settled: true}}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l *Link
			var log []string
			inBubble(t, sender(&l, settlements(&log, answer)), func(p *peer) {
				p.begin(1)
				p.attachReceiver(1, 0)
				p.grant(1, 0, 0, 10, 0, 100)
				synctest.Wait()
				for i := range 5 {
					l.Send([]byte("x"), nil, false, i)
				}
				l.Send([]byte("x"), nil, false, nil)
				for range 6 {
					p.next()
				}
				for _, d := range tt.send {
					p.send(1, d)
				}
				// Answers to one read may be joined, and are not here.
				for _, d := range tt.answer {
					p.want(1, d)
				}
				p.wantQuiet()
				if diff := cmp.Diff(tt.told, log); diff != "" {
					p.Errorf("told (-want +got):\n%s", diff)
				}
				if int(l.unsettled) != 5-len(log) || p.hub.unsettled != 5-len(log) || l.session.sent.live != 5-len(log) {
					p.Errorf("%d of 5 settled, and kept: %d", len(log), l.unsettled)
				}
			})
		})
	}
}

func TestUnsettle(t *testing.T) {
	var l *Link
	var log []string
	inBubble(t, sender(&l, settlements(&log, nil)), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.grant(1, 0, 0, 10, 0, 2)
		synctest.Wait()
		for i := range 3 {
			l.Send([]byte("x"), nil, false, i)
		}
		l.Unsettle(1)
		l.Unsettle(2) // which waits for the window
		l.Unsettle(7)
		p.grant(1, 0, 0, 10, 0, 10)
		p.next()
		p.next()
		p.wantTransfer(0, 2, false)
		p.send(1, accepted(wire.Receiver, 0, 2))
		p.wantQuiet()
		if diff := cmp.Diff([]string{"0 wire.Accepted"}, log); diff != "" {
			p.Errorf("told (-want +got):\n%s", diff)
		}
		if l.unsettled != 0 || p.hub.unsettled != 0 {
			p.Errorf("%d are kept", l.unsettled)
		}
	})
}

func TestPeerThatSettlesNothing(t *testing.T) {
	var l *Link
	ready := 0
	inBubble(t, sender(&l, &outlet{ready: func() { ready++ }}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.grant(1, 0, 0, 1<<32-1, 0, 1<<32-1)
		synctest.Wait()
		n := 0
		for l.Send([]byte("x"), nil, false, n) {
			n++
			synctest.Wait()
		}
		if n != maxLinkUnsettled || ready != 1 {
			p.Errorf("sent %d, ready %d times", n, ready)
		}
		p.send(1, accepted(wire.Receiver, 5, 5))
		synctest.Wait()
		if ready != 2 || !l.CanSend() {
			p.Errorf("ready %d times", ready)
		}
	})
}

// Links that have to wait because of others are told when these have ended.
func TestManyLinksThatSettleNothing(t *testing.T) {
	var links []*Link
	var mu sync.Mutex
	ready := map[*Link]int{}
	h := &handler{attach: func(l *Link) error {
		links = append(links, l)
		l.Outlet = &outlet{ready: func() {
			mu.Lock()
			defer mu.Unlock()
			ready[l]++
		}}
		return nil
	}}
	const n = maxConnUnsettled / maxLinkUnsettled
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		for i := range uint32(n + 2) {
			p.attachReceiver(1, i)
			p.grant(1, i, 0, 1<<32-1, 0, 1<<31)
		}
		synctest.Wait()
		for _, l := range links[:n] {
			for l.unsettled < maxLinkUnsettled {
				if !l.Send(nil, nil, false, 1) {
					synctest.Wait()
				}
			}
			l.CanSend()
		}
		synctest.Wait()
		clear(ready)
		for _, l := range links[n:] {
			if l.CanSend() {
				p.Error("more than are allowed")
			}
		}
		p.send(1, accepted(wire.Receiver, 7, 7))
		synctest.Wait()
		if ready[links[0]] != 1 || ready[links[n]] != 1 || ready[links[n+1]] != 1 || len(ready) != 3 {
			p.Errorf("%d links are ready", len(ready))
		}
		if !links[n].Send(nil, nil, false, 1) || links[n+1].CanSend() {
			p.Error("not one sent")
		}
		p.send(1, &wire.Detach{Handle: 3})
		synctest.Wait()
		if ready[links[n+1]] != 2 || p.hub.unsettled != maxConnUnsettled-maxLinkUnsettled {
			p.Errorf("%d are unsettled, ready %d times", p.hub.unsettled, ready[links[n+1]])
		}
	})
}

func TestSentListFindsWhatASliceWould(t *testing.T) {
	var l sentList
	link := new(Link)
	want := map[uint32]bool{}
	id := uint32(1<<32 - 500)
	random := uint32(1)
	next := func(n uint32) uint32 {
		random = random*1664525 + 1013904223
		return random >> 8 % n
	}
	for range 5000 {
		for range next(4) {
			id += 1 + next(3)
			l.add(sent{id, link, id})
			want[id] = true
		}
		first := id - next(200)
		last := first + next(20)
		var found []uint32
		for x := first; x-first <= last-first; x++ {
			if want[x] {
				found = append(found, x)
				delete(want, x)
			}
		}
		var got []uint32
		for _, d := range l.take(nil, first, last) {
			got = append(got, d.id)
		}
		if diff := cmp.Diff(found, got); diff != "" {
			t.Fatalf("%d to %d (-want +got):\n%s", first, last, diff)
		}
		if l.live != len(want) || len(l.all) > 2*l.live+16 {
			t.Fatalf("%d are kept in %d places, want %d", l.live, len(l.all), len(want))
		}
		if next(100) == 0 {
			n := l.remove(func(d sent) bool { return d.id%2 == 0 })
			for x := range want {
				if x%2 == 0 {
					delete(want, x)
					n--
				}
			}
			if n != 0 {
				t.Fatalf("removed %d more than there are", n)
			}
		}
	}
}
