package engine

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// However a peer gives credit and windows, whoever waits to send is woken, and
// each link's messages come whole and in order.
func TestManySendersWaitTheirTurn(t *testing.T) {
	const links, messages = 6, 200
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var senders sync.WaitGroup
	defer senders.Wait()
	h := &handler{attach: func(l *Link) error {
		l.Outlet = &outlet{}
		senders.Go(func() {
			for i := range messages {
				message := make([]byte, 4+rand.IntN(30_000))
				binary.BigEndian.PutUint32(message, uint32(i))
				for !l.Send(message, nil, i%2 == 0, i) {
					if err := l.Wait(ctx); err != nil {
						t.Errorf("message %d on link %s: %v", i, l.Name, err)
						return
					}
				}
			}
		})
		return nil
	}}
	near, far := tcpPair(t)
	defer near.Close()
	served := make(chan error, 1)
	go func() { served <- serveConn(far, Options{}, h) }()

	write := func(channel int, body wire.Performative) {
		near.Write(wire.AppendFrame(nil, uint16(channel), body, nil))
	}
	io.WriteString(near, wire.HeaderAMQP)
	write(0, &wire.Open{MaxFrameSize: 8192, ChannelMax: 100})
	type link struct {
		count, credit uint32
		next          int
	}
	type session struct {
		seen, window uint32
		links        [links / 2]link
	}
	var sessions [2]session
	flow := func(channel, handle int) {
		s := &sessions[channel]
		s.window = max(s.window, 1+rand.Uint32N(6)) // what was given is not taken back
		l := &s.links[handle]
		l.credit = max(l.credit, rand.Uint32N(4))
		write(channel, &wire.Flow{NextIncomingID: &s.seen, IncomingWindow: s.window, Handle: ptr(uint32(handle)), DeliveryCount: &l.count, LinkCredit: &l.credit})
	}
	for channel := range sessions {
		write(channel, &wire.Begin{IncomingWindow: 0, HandleMax: 10})
		for handle := range links / 2 {
			write(channel, &wire.Attach{Name: fmt.Sprint(channel, handle), Handle: uint32(handle), Role: wire.Receiver})
			flow(channel, handle)
		}
	}
	r := bufio.NewReader(near)
	r.Discard(8)
	left := links * messages
	buffer := make([]byte, 64<<10)
	parts := map[[2]int]int{}
	for left > 0 {
		near.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		if _, err := r.Peek(8); err != nil {
			// The hub has used up what it has. It has to go on by this.
			for channel := range sessions {
				flow(channel, rand.IntN(links/2))
			}
			if ctx.Err() != nil {
				t.Fatalf("%d messages do not come", left)
			}
			continue
		}
		near.SetReadDeadline(time.Time{})
		io.ReadFull(r, buffer[:4])
		frame := buffer[:binary.BigEndian.Uint32(buffer)]
		io.ReadFull(r, frame[4:])
		f, err := wire.DecodeFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		body, ok := f.Body.(*wire.Transfer)
		if !ok {
			continue
		}
		channel, handle := int(f.Channel), int(body.Handle)
		s := &sessions[channel]
		l := &s.links[handle]
		s.seen++
		if s.window--; s.window > 6 {
			t.Fatal("the hub overruns the window")
		}
		key := [2]int{channel, handle}
		if parts[key]++; parts[key] == 1 {
			if diff := cmp.Diff(uint32(l.next), binary.BigEndian.Uint32(f.Payload)); diff != "" {
				t.Fatalf("message of link %v (-want +got):\n%s", key, diff)
			}
		}
		if !body.More {
			parts[key] = 0
			l.next++
			l.count++
			if l.credit--; l.credit > 4 {
				t.Fatal("the hub overruns the credit")
			}
			left--
			if !*body.Settled {
				write(channel, &wire.Disposition{Role: wire.Receiver, First: *body.DeliveryID, Settled: true, State: wire.Accepted{}})
			}
		}
		if s.window == 0 || l.credit == 0 {
			flow(channel, rand.IntN(links/2))
		}
	}
	senders.Wait()
	near.Close()
	<-served
}
