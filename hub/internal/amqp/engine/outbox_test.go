package engine

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A peer that does not read gets no more than the bound, and the rest when it
// reads.
func TestSendWaitsForRoom(t *testing.T) {
	var l *Link
	n, ready := 0, 0
	message := make([]byte, 10_000)
	o := &outlet{ready: func() {
		ready++
		for n < 500 && l.Send(message, nil, true, nil) {
			n++
		}
	}}
	inBubble(t, sender(&l, o), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.stall()
		p.grant(1, 0, 0, 1000, 0, 1<<31)
		synctest.Wait()
		if ready != 1 || p.queued < softQueued-bufferSize || p.queued > softQueued+len(message)+100 {
			p.Errorf("%d bytes wait behind %d messages, ready %d times", p.queued, n, ready)
		}
		p.resume()
		synctest.Wait()
		if n != 500 || len(p.frames) != 500 {
			p.Errorf("sent %d, %d came", n, len(p.frames))
		}
		if ready < 3 || ready > 20 {
			p.Errorf("ready %d times", ready)
		}
	})
}

// Of links that wait for room none takes all of it.
func TestRoomIsShared(t *testing.T) {
	counts := map[string]int{}
	links := 0
	message := make([]byte, 100_000)
	h := &handler{attach: func(l *Link) error {
		links++
		l.Outlet = &outlet{ready: func() {
			for counts[l.Name] < 100 && l.Send(message, nil, true, nil) {
				counts[l.Name]++
			}
		}}
		return nil
	}}
	inBubble(t, h, func(p *peer) {
		p.begin(1)
		for handle := range uint32(3) {
			p.attachReceiver(1, handle)
		}
		p.stall()
		for handle := range uint32(3) {
			p.grant(1, handle, 0, 1000, 0, 1<<31)
		}
		synctest.Wait()
		p.resume()
		var order []uint32
		for range 300 {
			var f wire.Frame
			for more := true; more; more = f.Body.(*wire.Transfer).More {
				f = p.next()
			}
			order = append(order, f.Body.(*wire.Transfer).Handle)
		}
		if last := slices.Max([]int{slices.Index(order, 0), slices.Index(order, 1), slices.Index(order, 2)}); last > 40 {
			p.Errorf("a link had to wait for %d messages of others", last)
		}
	})
}

func TestSlowReaderLosesItsConnection(t *testing.T) {
	var l *Link
	o := &outlet{ready: func() {
		for l.Send(make([]byte, 10_000), nil, true, nil) {
		}
	}}
	inBubble(t, sender(&l, o), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.stall()
		start := time.Now()
		p.grant(1, 0, 0, 2, 0, 100)
		err := <-p.served
		p.served <- nil
		if err != ErrSlowReader {
			p.Errorf("Serve returned %v", err)
		}
		if d := time.Since(start); d > writeTimeout+time.Second || d < writeTimeout {
			p.Errorf("it ended after %v", d)
		}
		p.resume()
	})
}

// Answers, too, wait only up to the bound.
func TestPeerThatAsksAndDoesNotRead(t *testing.T) {
	inBubble(t, &handler{}, func(p *peer) {
		p.begin(1)
		p.stall()
		echo := wire.AppendFrame(nil, 1, &wire.Flow{IncomingWindow: 1, Echo: true}, nil)
		p.Conn.SetWriteDeadline(time.Now().Add(time.Hour))
		start := time.Now()
		for range 10 << 20 / len(echo) {
			if _, err := p.Conn.Write(echo); err != nil {
				break
			}
		}
		if err := <-p.served; err != ErrSlowReader {
			p.Errorf("Serve returned %v", err)
		}
		p.served <- nil
		if d := time.Since(start); d > writeTimeout+time.Second {
			p.Errorf("it ended after %v", d)
		}
		p.resume()
	})
}

func TestMethodsOfALinkThatHasEnded(t *testing.T) {
	var l *Link
	inBubble(t, sender(&l, &outlet{}), func(p *peer) {
		p.begin(1)
		p.attachReceiver(1, 0)
		p.grant(1, 0, 0, 1, 0, 100)
		synctest.Wait()
		p.hub.End(ErrLost)
		p.wantServed()
		if l.CanSend() || l.Send([]byte("x"), nil, false, 1) {
			p.Error("sent")
		}
		l.Post([]byte("x"), true)
		l.Unsettle(1)
		l.Detach(nil)
		p.hub.Close(nil)
		p.hub.End(nil)
	})
}
