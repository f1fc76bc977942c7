package amqp_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A tape is a connection on which a peer has said all it has to say, and reads
// everything.
type tape struct {
	net.Conn // nil: what it doesn't have is not used
	in       io.Reader
	once     sync.Once
	closed   chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func newTape(in []byte) *tape { return &tape{in: bytes.NewReader(in), closed: make(chan struct{})} }

func (t *tape) Read(b []byte) (int, error) { return t.in.Read(b) }

func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.Write(b)
}

func (t *tape) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

func (*tape) SetDeadline(time.Time) error      { return nil }
func (*tape) SetReadDeadline(time.Time) error  { return nil }
func (*tape) SetWriteDeadline(time.Time) error { return nil }
func (*tape) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }
func (*tape) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 5671} }

// opened returns how many connections of a door were ever let in.
func opened(t testing.TB, d *amqp.Door) (n float64) {
	t.Helper()
	r := prometheus.NewRegistry()
	for _, c := range d.Metrics() {
		r.MustRegister(c)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "iotdm_hub_connections_closed_total" {
			continue
		}
		for _, m := range f.Metric {
			n += m.GetCounter().GetValue()
		}
	}
	return n
}

// Whatever a peer says at once that has no credential, it is nobody, is answered
// in frames that can be read, and its connection ends when it has no more to say.
func FuzzHandshake(f *testing.F) {
	h := hubtest.New(f)
	door := amqp.New(h.Server, amqp.Options{Provisioning: h.Provisioning})
	f.Cleanup(door.Close)
	sasl := func(mechanism wire.Symbol, response string) string {
		return wire.HeaderSASL + string(wire.AppendSASL(nil, &wire.SASLInit{Mechanism: mechanism, InitialResponse: []byte(response)})) + wire.HeaderAMQP
	}
	frame := func(channel uint16, body wire.Performative, m *wire.Message) string {
		var payload []byte
		if m != nil {
			payload = wire.AppendMessage(nil, m)
		}
		return string(wire.AppendFrame(nil, channel, body, payload))
	}
	open := frame(0, &wire.Open{ContainerID: "c", Hostname: h.HostName, MaxFrameSize: 65536, ChannelMax: 10}, nil) +
		frame(0, &wire.Begin{IncomingWindow: 100, OutgoingWindow: 100, HandleMax: 100}, nil)
	attach := func(handle uint32, role wire.Role, address string) string {
		a := &wire.Attach{Name: address, Handle: handle, Role: role, Source: &wire.Source{Address: address}, Target: &wire.Target{Address: address}, InitialDeliveryCount: uint32p(0)}
		return frame(0, a, nil)
	}
	cbs := attach(0, wire.Receiver, "$cbs") + frame(0, &wire.Flow{Handle: uint32p(0), LinkCredit: uint32p(10), IncomingWindow: 100}, nil) + attach(1, wire.Sender, "$cbs")
	for _, said := range []string{
		"GET / HTTP/1.1\r\n\r\n", "AMQP\x00\x00\x09\x01", wire.HeaderTLS, wire.HeaderAMQP, sasl("ANONYMOUS", ""), sasl("PLAIN", "\x00iothubowner\x00AAAA"),
		sasl("PLAIN", "\x00d@sas.localhost\x00SharedAccessSignature sr=localhost&sig=x&se=1"), sasl("EXTERNAL", ""),
		sasl("MSSBCBS", "") + open + cbs + frame(0, &wire.Transfer{Handle: 1, DeliveryID: uint32p(0), DeliveryTag: []byte("t")}, putToken(uint64(1), "SharedAccessSignature sr=localhost&sig=x&se=1")),
		wire.HeaderAMQP + open + attach(0, wire.Sender, "/messages/devicebound") + attach(1, wire.Receiver, "/devices/d/twin"),
		sasl("PLAIN", "\x000ne0001/registrations/r1\x00SharedAccessSignature sr=0ne0001/registrations/r1&sig=x&se=1") + open +
			attach(0, wire.Receiver, "0ne0001/registrations/r1") + attach(1, wire.Sender, "0ne0001/registrations/r1") +
			frame(0, &wire.Flow{Handle: uint32p(0), LinkCredit: uint32p(10), IncomingWindow: 100}, nil) +
			frame(0, &wire.Transfer{Handle: 1, DeliveryID: uint32p(0), DeliveryTag: []byte("t")}, &wire.Message{
				ApplicationProperties: wire.Map{{Key: "iotdps-operation-type", Value: "iotdps-register"}}, Data: [][]byte{[]byte("{}")},
			}),
		wire.HeaderAMQP + open + frame(0, &wire.End{}, nil) + frame(0, &wire.Close{}, nil),
	} {
		f.Add([]byte(said))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		nc := newTape(said)
		door.ServeConn(nc, "", nil)
		select {
		case <-nc.closed:
		case <-time.After(30 * time.Second):
			t.Fatalf("after %q the connection is still open", said)
		}
		if n := opened(t, door); n > 0 {
			t.Fatalf("%q lets a peer in that has no credential", said)
		}
		nc.mu.Lock()
		defer nc.mu.Unlock()
		answer := nc.out.Bytes()
		for len(answer) > 0 {
			if rest, ok := bytes.CutPrefix(answer, []byte(wire.HeaderAMQP)); ok {
				answer = rest
				continue
			}
			if rest, ok := bytes.CutPrefix(answer, []byte(wire.HeaderSASL)); ok {
				answer = rest
				continue
			}
			size := uint32(0)
			if len(answer) >= wire.FrameHeader {
				size = wire.FrameSize(answer)
			}
			if size < wire.FrameHeader || int(size) > len(answer) {
				t.Fatalf("%q is answered with %q, which ends amid a frame", said, nc.out.String())
			}
			if _, err := wire.DecodeFrame(answer[:size]); err != nil {
				t.Fatalf("%q is answered with a frame that does not decode: %v", said, err)
			}
			answer = answer[size:]
		}
		if strings.Contains(nc.out.String(), "SharedAccessSignature sr") {
			t.Errorf("the answer to %q shows a token", said)
		}
	})
}
