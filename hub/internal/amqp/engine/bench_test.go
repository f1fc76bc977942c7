package engine

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// over runs a benchmark over plain TCP and over TLS.
func over(b *testing.B, run func(b *testing.B, near, far net.Conn)) {
	b.Run("TCP", func(b *testing.B) {
		near, far := tcpPair(b)
		run(b, near, far)
	})
	b.Run("TLS", func(b *testing.B) {
		s := httptest.NewTLSServer(nil)
		defer s.Close()
		near, far := tcpPair(b)
		run(b, tls.Client(near, &tls.Config{InsecureSkipVerify: true}), tls.Server(far, &tls.Config{Certificates: s.TLS.Certificates}))
	})
}

// start serves far, and returns what the peer reads of it behind the answers to
// its first frames.
func start(b *testing.B, near, far net.Conn, h Handler, frames ...wire.Performative) (*bufio.Reader, chan error) {
	served := make(chan error, 1)
	go func() { served <- serveConn(far, Options{}, h) }()
	all := []byte(wire.HeaderAMQP)
	for _, f := range frames {
		all = wire.AppendFrame(all, 0, f, nil)
	}
	if _, err := near.Write(all); err != nil {
		b.Fatal(err)
	}
	r := bufio.NewReaderSize(near, 64<<10)
	if _, err := r.Discard(8); err != nil {
		b.Fatal(err)
	}
	return r, served
}

// nextFrame returns a frame, which is valid until the next.
func nextFrame(b *testing.B, r *bufio.Reader, buffer []byte) []byte {
	if _, err := io.ReadFull(r, buffer[:4]); err != nil {
		b.Fatal(err)
	}
	frame := buffer[:binary.BigEndian.Uint32(buffer)]
	if _, err := io.ReadFull(r, frame[4:]); err != nil {
		b.Fatal(err)
	}
	return frame
}

// Messages of 1 KB, accepted one by one.
func BenchmarkReceive(b *testing.B) {
	over(b, func(b *testing.B, near, far net.Conn) {
		h := &handler{attach: func(l *Link) error {
			l.Credit = 1000
			l.Inlet = &inlet{receive: func(d *Delivery) { d.Accept() }}
			return nil
		}}
		r, served := start(b, near, far, h, &goodOpen, &wire.Begin{IncomingWindow: 5000, HandleMax: 10}, &wire.Attach{Role: wire.Sender})
		credit := make(chan uint32, 100)
		done := make(chan bool)
		go func() {
			defer close(done)
			buffer := make([]byte, 64<<10)
			for {
				f, err := wire.DecodeFrame(nextFrame(b, r, buffer))
				if err != nil {
					b.Error(err)
				}
				switch body := f.Body.(type) {
				case *wire.Flow:
					if body.Handle != nil {
						credit <- *body.DeliveryCount + *body.LinkCredit
					}
				case *wire.Close:
					return
				}
			}
		}()
		payload := make([]byte, 1024)
		b.SetBytes(1024)
		b.ReportAllocs()
		w := bufio.NewWriterSize(near, 16<<10)
		var id, limit uint32
		var frame []byte
		tag := make([]byte, 4)
		for b.Loop() {
			for id == limit {
				w.Flush()
				limit = <-credit
			}
			binary.BigEndian.PutUint32(tag, id)
			frame = wire.AppendFrame(frame[:0], 0, &wire.Transfer{DeliveryID: &id, DeliveryTag: tag}, payload)
			w.Write(frame)
			id++
		}
		w.Write(wire.AppendFrame(nil, 0, &wire.Close{}, nil))
		w.Flush()
		<-done
		<-served
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}

// Messages of 1 KB on one link, sent as fast as the peer reads them.
func BenchmarkSend(b *testing.B) {
	over(b, func(b *testing.B, near, far net.Conn) {
		message := dataMessage(string(make([]byte, 1024)))
		h := &handler{attach: func(l *Link) error {
			l.Outlet = &outlet{ready: func() {
				for l.Send(message, nil, false, nil) {
				}
			}}
			return nil
		}}
		const window = 5000
		r, served := start(b, near, far, h, &goodOpen, &wire.Begin{IncomingWindow: 2 * window, HandleMax: 10}, &wire.Attach{Role: wire.Receiver})
		b.SetBytes(1024)
		b.ReportAllocs()
		buffer := make([]byte, 64<<10)
		for range 3 {
			nextFrame(b, r, buffer)
		}
		grant := func(n uint32) {
			near.Write(wire.AppendFrame(nil, 0, &wire.Flow{NextIncomingID: &n, IncomingWindow: 2 * window, Handle: new(uint32), DeliveryCount: &n, LinkCredit: ptr(uint32(2 * window))}, nil))
		}
		grant(0)
		var n uint32
		for b.Loop() {
			nextFrame(b, r, buffer)
			if n++; n%window == 0 {
				grant(n)
				near.Write(wire.AppendFrame(nil, 0, &wire.Disposition{Role: wire.Receiver, First: n - window, Last: ptr(n - 1), Settled: true, State: wire.Accepted{}}, nil))
			}
		}
		near.Close()
		<-served
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}

// What the hub holds for a device that does nothing: its links, and the two on
// which it makes its claims.
func BenchmarkIdle(b *testing.B) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	for name, overTLS := range map[string]bool{"TCP": false, "TLS": true} {
		b.Run(name, func(b *testing.B) {
			const n = 500
			var ends []func()
			for range n {
				near, far := tcpPair(b)
				if overTLS {
					near = tls.Client(near, &tls.Config{InsecureSkipVerify: true})
					far = tls.Server(far, &tls.Config{Certificates: s.TLS.Certificates})
				}
				ends = append(ends, idle(b, near, far))
			}
			with := inUse()
			for _, end := range ends {
				end()
			}
			without := inUse()
			for b.Loop() {
			}
			b.ReportMetric(float64(int64(with)-int64(without))/n, "B/conn")
			runtime.KeepAlive(ends)
		})
	}
}

// idle serves far until the function it returns is called, which keeps near.
func idle(b *testing.B, near, far net.Conn) (end func()) {
	h := &handler{attach: func(l *Link) error {
		l.Credit = 100
		l.MaxMessageSize = 256 << 10
		l.Inlet, l.Outlet = &inlet{}, &outlet{}
		return nil
	}}
	const links = 8
	all := []byte(wire.HeaderAMQP)
	add := func(f wire.Performative) { all = wire.AppendFrame(all, 0, f, nil) }
	add(&wire.Open{ContainerID: "device", MaxFrameSize: 65536, ChannelMax: 10, IdleTimeout: 4 * time.Minute})
	add(&wire.Begin{IncomingWindow: 5000, HandleMax: 100})
	for i := range uint32(links) {
		add(&wire.Attach{
			Name: "a name that is rather long, as links have " + name(i), Handle: i, Role: wire.Role(i%2 == 0),
			Source: &wire.Source{Address: "/devices/a-device/messages/devicebound"},
			Target: &wire.Target{Address: "/devices/a-device/messages/events"},
			Properties: wire.Fields{
				{Key: wire.Symbol("com.microsoft:client-version"), Value: "azure-iot-device/1.18.3"},
				{Key: wire.Symbol("com.microsoft:api-version"), Value: "2021-04-12"},
			},
		})
	}
	served := make(chan error, 1)
	conns := make(chan *Conn, 1)
	go func() { // as a door: the handshake needs a large stack, and what follows none
		c := New(far, Options{})
		if _, err := c.Header(); err != nil {
			b.Error(err)
		}
		if err := c.Write([]byte(wire.HeaderAMQP)); err != nil {
			b.Error(err)
		}
		conns <- c
		go func() { served <- c.Serve(h) }()
	}()
	if _, err := near.Write(all); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(near, make([]byte, 8)); err != nil {
		b.Fatal(err)
	}
	r := bufio.NewReader(near)
	buffer := make([]byte, 64<<10)
	for range 2 + links + links/2 {
		nextFrame(b, r, buffer)
	}
	c := <-conns
	return func() {
		if c == nil {
			runtime.KeepAlive(near)
			return
		}
		c.End(ErrLost)
		<-served
		c = nil
	}
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
