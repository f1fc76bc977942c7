package amqp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// A service is a peer that has shown that it is one, and what it may do wrong as
// such. Its session is on channel 0.
type service struct {
	*wiretest.AMQPPeer
	h *wiretest.RESTHub
}

func newService(t *testing.T, h *wiretest.RESTHub) *service {
	t.Helper()
	name, _, _ := strings.Cut(h.HostName, ".")
	p, code := sasl(t, h.Hub, "PLAIN", plainOf("iothubowner@sas.root."+name, serviceToken(t, h.Hub, "iothubowner")))
	if code != 0 {
		t.Fatalf("the outcome of SASL is %d", code)
	}
	p.Open(h.HostName)
	return &service{p, h}
}

// raw sends a frame whose body is not checked.
func (s *service) raw(kind byte, channel uint16, body string) {
	s.T.Helper()
	b := append([]byte{0, 0, 0, 0, 2, kind, byte(channel >> 8), byte(channel)}, unhex(s.T, body)...)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	s.SendBytes(b)
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, " ", ""), "%x", &b); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return b
}

func (s *service) attach(handle uint32, name, target string) {
	s.T.Helper()
	s.Send(0, &wire.Attach{
		Name: name, Handle: handle, Role: wire.Sender, Source: &wire.Source{}, Target: &wire.Target{Address: target}, InitialDeliveryCount: new(uint32(0)),
	})
}

// sender attaches a link on which the hub takes messages to devices.
func (s *service) sender(handle uint32) {
	s.T.Helper()
	s.attach(handle, fmt.Sprint("sender ", handle), "/messages/devicebound")
	wiretest.ReceiveAMQP[*wire.Attach](s.AMQPPeer)
	wiretest.ReceiveAMQP[*wire.Flow](s.AMQPPeer)
}

// feedback attaches a link on which the hub sends.
func (s *service) feedback(handle uint32) {
	s.T.Helper()
	s.Send(0, &wire.Attach{
		Name: "feedback", Handle: handle, Role: wire.Receiver, Source: &wire.Source{Address: "/messages/servicebound/feedback"}, Target: &wire.Target{},
	})
	wiretest.ReceiveAMQP[*wire.Attach](s.AMQPPeer)
}

// reply reads until the hub says why: by close, end, detach, or a settlement. What
// ends for the same reason before what is wanted does is passed over.
func (s *service) reply(want string) string {
	s.T.Helper()
	for {
		f, err := s.Frame()
		if err != nil {
			return err.Error()
		}
		switch body := f.Body.(type) {
		case *wire.Close:
			return "close " + conditionIn(body.Error)
		case *wire.End:
			if !strings.HasPrefix(want, "close ") {
				return "end " + conditionIn(body.Error)
			}
		case *wire.Detach:
			return "detach " + conditionIn(body.Error)
		case *wire.Disposition:
			return shapeOf(body.State)
		}
	}
}

func conditionIn(e *wire.Error) string {
	if e == nil {
		return "without an error"
	}
	return string(e.Condition)
}

// works wants the connection to take another session.
func (s *service) works() {
	s.T.Helper()
	s.Send(7000, &wire.Begin{IncomingWindow: 1, OutgoingWindow: 1, HandleMax: 10})
	for {
		f, err := s.Frame()
		if err != nil {
			s.T.Fatalf("the connection is of no use any more: %v", err)
		}
		if b, ok := f.Body.(*wire.Begin); ok && *b.RemoteChannel == 7000 {
			return
		}
		if body, ok := f.Body.(*wire.Close); ok {
			s.T.Fatalf("the connection is closed: %v", body.Error)
		}
	}
}

// message is a transfer that wants to be taken.
func message(handle, id uint32) *wire.Transfer {
	return &wire.Transfer{Handle: handle, DeliveryID: &id, DeliveryTag: binary.BigEndian.AppendUint32(nil, id), MessageFormat: new(uint32(0))}
}

// nested is an open whose properties are lists in one another.
func nested(depth int) string {
	var inner []byte = []byte{0x40}
	for range depth {
		size := binary.BigEndian.AppendUint32([]byte{0xd0}, uint32(len(inner)+4))
		inner = append(binary.BigEndian.AppendUint32(size, 1), inner...)
	}
	fields := append([]byte{0x43, 0x41}, inner...)
	list := binary.BigEndian.AppendUint32([]byte{0x00, 0x53, 0x16, 0xd0}, uint32(len(fields)+4))
	list = binary.BigEndian.AppendUint32(list, 3)
	return fmt.Sprintf("%x", append(list, fields...))
}

// TestHostileServices has a peer that the hub knows do what no client does. It is
// told what was wrong, at once, in the frame that ends the smallest thing that is
// of no use any more; the log has one line where that is the connection; and
// others are served meanwhile.
func TestHostileServices(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	bystander := newService(t, h)
	begin := &wire.Begin{IncomingWindow: 10, OutgoingWindow: 10, HandleMax: 65535}
	for _, tt := range []struct {
		name string
		send func(*service)
		want string
	}{
		{"a second open", func(s *service) { s.Send(0, &wire.Open{MaxFrameSize: 512}) }, "close amqp:illegal-state"},
		{"a frame of no bytes", func(s *service) { s.SendBytes(make([]byte, 8)) }, "close amqp:connection:framing-error"},
		{"a frame that is shorter than its header", func(s *service) { s.SendBytes([]byte{0, 0, 0, 7, 2, 0, 0, 0}) }, "close amqp:connection:framing-error"},
		{"a frame of 4 GiB", func(s *service) { s.SendBytes([]byte{0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0}) }, "close amqp:connection:framing-error"},
		{"a frame larger than announced", func(s *service) { s.SendBytes([]byte{0, 1, 0, 1, 2, 0, 0, 0}) }, "close amqp:connection:framing-error"},
		{"a frame of another type", func(s *service) { s.raw(2, 0, "005313c00100") }, "close amqp:decode-error"},
		{"a SASL frame", func(s *service) { s.Send(0, &wire.SASLInit{Mechanism: "PLAIN"}) }, "close amqp:connection:framing-error"},
		{"no performative", func(s *service) { s.raw(0, 0, "a10161") }, "close amqp:decode-error"},
		{"a performative of no kind", func(s *service) { s.raw(0, 0, "00531945") }, "close amqp:decode-error"},
		{"an attach without a name", func(s *service) { s.raw(0, 0, "005312c00403404341") }, "close amqp:decode-error"},
		{"types in one another, too deep", func(s *service) { s.raw(0, 0, nested(5000)) }, "close amqp:decode-error"},
		{"descriptors in one another", func(s *service) { s.raw(0, 0, "005316 d000007533 00000003 4341"+strings.Repeat("005310", 9999)+"40") }, "close amqp:decode-error"},
		{"an array of 2 billion nulls", func(s *service) { s.raw(0, 0, "005310 d0000000 14 0000000a 40404040 40f0 00000005 7fffffff 40 4040") }, "close amqp:decode-error"},
		{"a list of 4 billion elements", func(s *service) { s.raw(0, 0, "005310 d000000005 ffffffff 40") }, "close amqp:decode-error"},
		{"a begin on a channel in use", func(s *service) { s.Send(0, begin) }, "close amqp:illegal-state"},
		{"a begin on a channel that is too large", func(s *service) { s.Send(8192, begin) }, "close amqp:connection:framing-error"},
		{"a begin that answers none", func(s *service) { s.Send(1, &wire.Begin{RemoteChannel: new(uint16(0))}) }, "close amqp:invalid-field"},
		{"an attach on a channel without a session", func(s *service) { s.Send(9, &wire.Attach{Name: "a"}) }, "close amqp:illegal-state"},
		{"sessions by the thousand", func(s *service) {
			for channel := range uint16(2000) {
				s.Write(wire.AppendFrame(nil, 1+channel, begin, nil)) // the hub may have gone
			}
		}, "close amqp:resource-limit-exceeded"},
		{"links by the thousand", func(s *service) {
			for handle := range uint32(8500) {
				a := &wire.Attach{Name: fmt.Sprint(handle), Handle: handle, Source: &wire.Source{}, Target: &wire.Target{Address: "$cbs"}, InitialDeliveryCount: new(uint32(0))}
				s.Write(wire.AppendFrame(nil, 0, a, nil))
			}
		}, "close amqp:connection:framing-error"}, // beyond the largest handle
		{"a handle that is too large", func(s *service) { s.attach(1<<31, "a", "$cbs") }, "close amqp:connection:framing-error"},
		{"a handle in use", func(s *service) { s.attach(0, "a", "$cbs"); s.attach(0, "b", "$cbs") }, "end amqp:session:handle-in-use"},
		{"a flow for a handle that is free", func(s *service) { s.Send(0, &wire.Flow{Handle: new(uint32(5)), LinkCredit: new(uint32(1))}) }, "end amqp:session:unattached-handle"},
		{"a transfer for a handle that is free", func(s *service) { s.Send(0, message(5, 0)) }, "end amqp:session:unattached-handle"},
		{"a transfer on a link on which the hub sends", func(s *service) { s.feedback(1); s.Send(0, message(1, 0)) }, "detach amqp:not-allowed"},
		{"a transfer without a delivery-id", func(s *service) { s.sender(1); s.Send(0, &wire.Transfer{Handle: 1}) }, "detach amqp:invalid-field"},
		{"a delivery tag of 33 bytes", func(s *service) {
			s.sender(1)
			s.Send(0, &wire.Transfer{Handle: 1, DeliveryID: new(uint32(0)), DeliveryTag: make([]byte, 33)})
		}, "detach amqp:invalid-field"},
		{"transfers without credit", func(s *service) {
			s.sender(1)
			for id := range uint32(101) { // the first hundred are begun, and wait for their end
				transfer := message(1, id)
				transfer.Aborted = true
				s.Send(0, transfer)
				if id == 50 {
					s.Send(0, &wire.Transfer{Handle: 1, DeliveryID: new(id), More: true})
					s.Send(0, &wire.Transfer{Handle: 1, DeliveryID: new(id + 1000)})
				}
			}
		}, "detach amqp:invalid-field"},
		{"a message that is none", func(s *service) {
			s.sender(1)
			s.SendBytes(wire.AppendFrame(nil, 0, message(1, 0), []byte("no message")))
		}, "rejected with "},
		{"a message that is too large", func(s *service) {
			s.sender(1)
			for i := range 10 {
				transfer := message(1, 0)
				transfer.More = i < 9
				s.SendBytes(wire.AppendFrame(nil, 0, transfer, make([]byte, 32<<10)))
			}
		}, "rejected with amqp:link:message-size-exceeded"},
		{"an address that is nowhere", func(s *service) { s.attach(1, "a", "/"+strings.Repeat("x", 60000)) }, "detach amqp:not-found"},
		{"an address that is none", func(s *service) { s.attach(1, "a", "\x00\n\r%zz") }, "detach amqp:not-found"},
		{"transactions", func(s *service) {
			coordinator := wire.Described{Descriptor: uint64(0x30), Value: wire.List(nil)}
			s.Send(0, &wire.Attach{Name: "a", Target: &wire.Target{Address: coordinator}})
		}, "detach amqp:not-found"},
		{"a selector in which lists are nested", func(s *service) {
			filter := wire.Map{{Key: wire.Symbol("apache.org:selector-filter:string"), Value: wire.List{wire.List{wire.List{nil}}}}}
			s.Send(0, &wire.Attach{Name: "a", Role: wire.Receiver, Source: &wire.Source{Address: node.EventHubName + "/ConsumerGroups/$Default/Partitions/0", Filter: filter}})
		}, "detach com.microsoft:argument-error"},
		{"a partition that is none", func(s *service) {
			s.Send(0, &wire.Attach{Name: "a", Role: wire.Receiver, Source: &wire.Source{Address: node.EventHubName + "/ConsumerGroups/$Default/Partitions/" + strings.Repeat("9", 1000)}})
		}, "detach com.microsoft:argument-out-of-range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, h)
			logged := h.Log.Expect("msg=disconnected remote=" + s.LocalAddr().String())
			tt.send(s)
			got := s.reply(tt.want)
			if !strings.HasPrefix(got, tt.want) {
				t.Fatalf("the answer is %q, want %q", got, tt.want)
			}
			if condition, ok := strings.CutPrefix(tt.want, "close "); ok {
				s.Close()
				<-logged
				wantOneLine(t, h.Log.String(), s.LocalAddr().String(), condition)
			} else {
				s.works()
			}
			bystander.T = t
			bystander.attach(0, "bystander", "/messages/devicebound")
			wiretest.ReceiveAMQP[*wire.Attach](bystander.AMQPPeer)
			bystander.Send(0, &wire.Detach{Handle: 0, Closed: true})
			wiretest.ReceiveAMQP[*wire.Detach](bystander.AMQPPeer)
		})
	}
}

// wantOneLine wants one line in a log that names the peer, and has the word.
func wantOneLine(t testing.TB, log, peer, word string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, peer) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], word) || len(lines[0]) > 1000 {
		t.Errorf("the log has of %s, instead of one line with %q:\n%s", peer, word, strings.Join(lines, ""))
	}
}

// What a peer says is in the log, but not all of it.
func TestTheLogClipsWhatPeersSay(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	s := newService(t, h)
	logged := h.Log.Expect("msg=disconnected remote=" + s.LocalAddr().String())
	s.Send(0, &wire.Close{Error: &wire.Error{Condition: wire.Symbol(strings.Repeat("c", 1000)), Description: "why\n" + strings.Repeat("d", 60000)}})
	<-logged
	wantOneLine(t, h.Log.String(), s.LocalAddr().String(), "ccc")
}

// heap is how much memory is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A delivery that never ends is not kept when it is too large.
func TestNeverEndingDelivery(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	s := newService(t, h)
	s.sender(1)
	before := heap()
	transfer := message(1, 0)
	transfer.More = true
	frame := wire.AppendFrame(nil, 0, transfer, make([]byte, 32<<10))
	for range 2000 {
		s.SendBytes(frame)
	}
	s.works()
	if used := int64(heap() - before); used > 4<<20 {
		t.Errorf("64 MiB of a delivery take %d bytes", used)
	}
	transfer.More = false
	s.SendBytes(wire.AppendFrame(nil, 0, transfer, nil))
	if got := s.reply("rejected"); got != "rejected with amqp:link:message-size-exceeded" {
		t.Errorf("the answer is %q", got)
	}
}

// Deliveries that are begun on a thousand links and never end are bounded together.
func TestManyUnfinishedDeliveries(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	s := newService(t, h)
	before := heap()
	for handle := range uint32(200) {
		s.attach(handle, fmt.Sprint(handle), "/messages/devicebound")
		transfer := message(handle, handle)
		transfer.More = true
		s.SendBytes(wire.AppendFrame(nil, 0, transfer, make([]byte, 60<<10)))
	}
	if got := s.reply("detach"); got != "detach amqp:resource-limit-exceeded" {
		t.Errorf("the answer is %q", got)
	}
	s.works()
	if used := int64(heap() - before); used > 24<<20 {
		t.Errorf("they take %d bytes", used)
	}
}

// Dispositions over everything cost as much as what there is to settle.
func TestDispositionsOfEverything(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	s := newService(t, h)
	s.feedback(1)
	began := time.Now()
	for _, d := range []wire.Disposition{
		{First: 0, Last: new(uint32(1<<32 - 1))}, {First: 1 << 31, Last: new(uint32(1<<31 - 1))}, {First: 5, Last: new(uint32(4))},
		{First: 0, Last: new(uint32(1<<31 - 1))}, {First: 1<<32 - 1},
	} {
		for _, state := range []wire.State{nil, wire.Accepted{}, &wire.Received{}, &wire.OtherState{Described: wire.Described{Descriptor: uint64(0x34)}}} {
			for _, role := range []wire.Role{wire.Sender, wire.Receiver} {
				for _, settled := range []bool{false, true} {
					d.Role, d.State, d.Settled = role, state, settled
					s.Send(0, &d)
				}
			}
		}
	}
	s.works()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("they take %v", took)
	}
}

// A device that is sent a message settles all that there could ever be.
func TestDispositionOfEverythingSettlesWhatThereIs(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Device("d1")
	s := newService(t, h)
	s.Send(0, &wire.Attach{Name: "c2d", Handle: 1, Role: wire.Receiver, Source: &wire.Source{Address: "/devices/d1/messages/devicebound"}, Target: &wire.Target{}})
	wiretest.ReceiveAMQP[*wire.Attach](s.AMQPPeer)
	s.Send(0, &wire.Flow{NextIncomingID: new(uint32(0)), IncomingWindow: 100, Handle: new(uint32(1)), DeliveryCount: new(uint32(0)), LinkCredit: new(uint32(10))})
	for i := range 3 {
		wiretest.SendMessage(t, h.Node, "d1", wiretest.Message(fmt.Sprint(i)))
		wiretest.ReceiveAMQP[*wire.Transfer](s.AMQPPeer)
	}
	s.Send(0, &wire.Disposition{Role: wire.Receiver, First: 0, Last: new(uint32(1<<31 - 1)), Settled: true, State: wire.Accepted{}})
	s.works()
	for late := time.Now().Add(wiretest.Patience); ; runtime.Gosched() {
		if h.ConnectionState(hub.ID{Device: "d1"}).PendingMessages == 0 {
			break
		}
		if time.Now().After(late) {
			t.Fatal("messages are left")
		}
	}
}

// A flood of links that are refused, and of such that take each other's name, is
// served, and the log is not flooded.
func TestFloodOfAttaches(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	const n = 5000
	h.Log.Expect("never")
	for _, attach := range []struct{ name, target, want string }{
		{"", "/nowhere", "amqp:not-found"},
		{"one name", "/messages/devicebound", "amqp:link:stolen"},
	} {
		s := newService(t, h)
		go func() {
			var b []byte
			for handle := range uint32(n) {
				name := attach.name
				if name == "" {
					name = fmt.Sprint(handle)
				}
				b = wire.AppendFrame(b[:0], 0, &wire.Attach{
					Name: name, Handle: handle, Source: &wire.Source{}, Target: &wire.Target{Address: attach.target}, InitialDeliveryCount: new(uint32(0)),
				}, nil)
				if attach.name == "" {
					b = wire.AppendFrame(b, 0, &wire.Detach{Handle: handle, Closed: true}, nil)
				}
				s.Write(b)
			}
		}()
		for detached := 0; detached < n-1; {
			f, err := s.Frame()
			if err != nil {
				t.Fatal(err)
			}
			switch body := f.Body.(type) {
			case *wire.Detach:
				detached++
				if body.Error != nil && string(body.Error.Condition) != attach.want {
					t.Errorf("a link is refused with %v", body.Error)
				}
			case *wire.Close, *wire.End:
				t.Fatalf("it is ended: %+v", body)
			}
		}
		s.works()
	}
	if lines := strings.Count(h.Log.String(), "\n"); lines > 500 {
		t.Errorf("the log has %d lines of it", lines)
	}
}

// Empty frames, and frames that say nothing, go on for as long as the peer likes.
func TestEndlessFrames(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	s := newService(t, h)
	before := heap()
	empty := bytes.Repeat(wire.AppendFrame(nil, 0, nil, nil), 1000)
	flow := bytes.Repeat(wire.AppendFrame(nil, 0, &wire.Flow{NextIncomingID: new(uint32(0)), IncomingWindow: 1 << 31}, nil), 1000)
	for range 100 {
		s.SendBytes(empty)
		s.SendBytes(flow)
	}
	s.works()
	if used := int64(heap() - before); used > 4<<20 {
		t.Errorf("they take %d bytes", used)
	}
}

// Before anybody knows who a peer is, it may do less.
func TestHostileStrangers(t *testing.T) {
	huge := wire.AppendSASL(nil, &wire.SASLInit{Mechanism: "PLAIN", InitialResponse: make([]byte, 9000)})
	open := wire.AppendFrame(nil, 0, &wire.Open{ContainerID: "c", MaxFrameSize: 65536}, nil)
	for _, tt := range []struct {
		name, header string
		sent         []byte
		reason       string
	}{
		{"half a header", "", []byte("AMQP"), ""},
		{"a SASL frame that is too large", wire.HeaderSASL, huge, "framing-error"},
		{"a SASL frame of 4 GiB", wire.HeaderSASL, unhex(t, "ffffffff02010000"), "framing-error"},
		{"an open where SASL is due", wire.HeaderSASL, open, "framing-error"},
		{"a SASL frame that does not decode", wire.HeaderSASL, unhex(t, "0000000c 02010000 00534145"), "decode-error"},
		{"an outcome from the client", wire.HeaderSASL, wire.AppendSASL(nil, &wire.SASLOutcome{}), "not an init"},
		{"HTTP behind the header", wire.HeaderAMQP, []byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), "framing-error"},
		{"a begin before open", wire.HeaderAMQP, wire.AppendFrame(nil, 0, &wire.Begin{}, nil), "illegal-state"},
		{"a frame of 4 GiB", wire.HeaderAMQP, unhex(t, "ffffffff02000000"), "framing-error"},
		{"frames that are too small", wire.HeaderAMQP, wire.AppendFrame(nil, 0, &wire.Open{MaxFrameSize: 100}, nil), "invalid-field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := wiretest.StartREST(t, node.Options{})
			p := wiretest.NewAMQPPeer(t, wiretest.DialAMQPTCP(t, h.Hub))
			logged := h.Log.Expect("msg=\"connection refused\" remote=" + p.LocalAddr().String())
			if tt.header != "" {
				p.Header(tt.header)
			}
			p.Write(tt.sent) // the hub may not wait for all of it
			if tt.reason != "" {
				for closed := false; !closed; {
					f, err := p.Frame()
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatal("the connection is still open")
					}
					_, told := f.Body.(*wire.Close)
					closed = err != nil || told
				}
			}
			p.Close()
			<-logged
			wantOneLine(t, h.Log.String(), p.LocalAddr().String(), tt.reason)
		})
	}
}

// A stranger's links don't add up to anything: it has to say who it is first.
func TestStrangerThatAttachesEverything(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	p := wiretest.NewAMQPPeer(t, wiretest.DialAMQPTCP(t, h.Hub))
	p.Open(h.HostName)
	before := heap()
	p.SetWriteDeadline(time.Now().Add(wiretest.Patience))
	var err error
	for handle := uint32(0); err == nil && handle < 1_000_000; handle++ {
		_, err = p.Write(wire.AppendFrame(nil, 0, &wire.Attach{
			Name: fmt.Sprint(handle, strings.Repeat("x", 200)), Handle: handle, Source: &wire.Source{}, Target: &wire.Target{Address: "$cbs"}, InitialDeliveryCount: new(uint32(0)),
		}, nil))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a million links: %v", err)
	}
	if used := int64(heap() - before); used > 32<<20 {
		t.Errorf("they take %d bytes", used)
	}
	var opErr *net.OpError
	if err != nil && !errors.As(err, &opErr) {
		t.Errorf("writing ends with %v", err)
	}
}
