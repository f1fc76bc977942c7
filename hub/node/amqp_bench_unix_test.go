//go:build unix

package node_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// BenchmarkTelemetryOverAMQP measures durable messages of 1 KB over TLS as
// BenchmarkTelemetry does, by MQTT and by AMQP.
func BenchmarkTelemetryOverAMQP(b *testing.B) {
	payload := strings.Repeat("x", 1024)
	for _, bb := range []struct{ devices, window int }{{1, 1}, {1, 100}, {64, 20}} {
		for _, door := range []string{"MQTT", "AMQP"} {
			b.Run(fmt.Sprintf("devices=%d/window=%d/%s", bb.devices, bb.window, door), func(b *testing.B) {
				b.ReportAllocs()
				h := hubtest.New(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())}))
				var senders []func(n int) error
				for i := range bb.devices {
					name := fmt.Sprint("device-", i)
					if door == "AMQP" {
						senders = append(senders, telemetrySenderOverAMQP(b, h, name, payload, bb.window))
						continue
					}
					d := wiretest.DialTLS(b, h)
					d.Connect(h.Device(name))
					var packet strings.Builder
					if err := wiretest.PublishPacket(1, 1, "devices/"+name+"/messages/events/", payload).Write(&packet); err != nil {
						b.Fatal(err)
					}
					senders = append(senders, telemetrySender(d, []byte(packet.String()), bb.window))
				}
				b.ResetTimer()
				var wg sync.WaitGroup
				for i, send := range senders {
					n := b.N / len(senders)
					if i < b.N%len(senders) {
						n++
					}
					wg.Go(func() {
						if err := send(n); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// openAMQP opens a connection of a device, with a session on channel 0.
func openAMQP(b *testing.B, h *hubtest.Hub, name string) *wiretest.AMQPPeer {
	p := wiretest.NewAMQPPeer(b, wiretest.DialAMQPTCP(b, h))
	cs := h.Device(name)
	cs.HostName = h.HostName
	hub, _, _ := strings.Cut(h.HostName, ".")
	token := wiretest.Sign(b, cs.Audience(), "", cs.SharedAccessKey, h.Now().Add(time.Hour))
	p.Header(wire.HeaderSASL)
	p.Send(0, &wire.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00" + name + "@sas." + hub + "\x00" + token)})
	wiretest.ReceiveAMQP[*wire.SASLMechanisms](p)
	if outcome, _ := wiretest.ReceiveAMQP[*wire.SASLOutcome](p); outcome.Code != 0 {
		b.Fatalf("SASL ends with %d", outcome.Code)
	}
	p.Open(h.HostName)
	return p
}

// attachAMQP attaches a link to a device's address.
func attachAMQP(p *wiretest.AMQPPeer, name string, handle uint32, role wire.Role, address string, properties ...wire.Entry) {
	a := &wire.Attach{Name: fmt.Sprint(name, "-", handle), Handle: handle, Role: role, InitialDeliveryCount: new(uint32), Properties: properties}
	address = "/devices/" + name + address
	a.Source, a.Target = &wire.Source{Address: address}, &wire.Target{Address: address}
	p.Send(0, a)
	if a, _ := wiretest.ReceiveAMQP[*wire.Attach](p); a.Source == nil || a.Target == nil {
		p.T.Fatalf("a link to %s is refused", address)
	}
}

// BenchmarkIdleDevicesOverAMQP reports what an idle device over TLS, with all the
// links it may have, costs the hub.
func BenchmarkIdleDevicesOverAMQP(b *testing.B) {
	const devices = 500
	for b.Loop() {
		h := hubtest.New(b)
		var peers []*wiretest.AMQPPeer
		for i := range devices {
			name := fmt.Sprint("device-", i)
			p := openAMQP(b, h, name)
			peers = append(peers, p)
			attachAMQP(p, name, 0, wire.Sender, "/messages/events")
			attachAMQP(p, name, 1, wire.Receiver, "/messages/devicebound")
			for j, address := range []string{"/methods/devicebound", "/twin"} {
				pair := wire.Entry{Key: wire.Symbol("com.microsoft:channel-correlation-id"), Value: "pair:5a0c2e3c-0000-4000-8000-000000000000"}
				attachAMQP(p, name, uint32(2+2*j), wire.Sender, address, pair)
				attachAMQP(p, name, uint32(3+2*j), wire.Receiver, address, pair)
			}
		}
		with := memoryInUse()
		// The hub's side ends, and the peers' is still held.
		for i, p := range peers {
			p.Conn.(*tls.Conn).NetConn().Close()
			for h.Link(hub.ID{Device: fmt.Sprint("device-", i)}) != nil {
				runtime.Gosched()
			}
		}
		b.ReportMetric(float64(with-memoryInUse())/devices/1024, "KiB/device")
		runtime.KeepAlive(peers)
	}
	b.ReportMetric(0, "ns/op")
}

// telemetrySenderOverAMQP is telemetrySender for a device that attaches its link.
func telemetrySenderOverAMQP(b *testing.B, h *hubtest.Hub, name, payload string, window int) func(n int) error {
	p := openAMQP(b, h, name)
	attachAMQP(p, name, 0, wire.Sender, "/messages/events")
	message := wire.AppendMessage(nil, &wire.Message{Data: [][]byte{[]byte(payload)}})
	p.SetDeadline(time.Time{})

	in := bufio.NewReader(p)
	var id, limit uint32 // of deliveries that were sent, and may be
	return func(n int) error {
		turns := make(chan struct{}, window)
		failed := make(chan error, 1)
		credit := make(chan uint32, 1000)
		go func() {
			var frame []byte
			for range n {
				turns <- struct{}{}
				for id == limit {
					limit = <-credit
				}
				frame = wire.AppendFrame(frame[:0], 0, &wire.Transfer{DeliveryID: &id, DeliveryTag: []byte("x")}, message)
				if _, err := p.Write(frame); err != nil {
					failed <- err
					return
				}
				id++
			}
			failed <- nil
		}()
		buffer := make([]byte, 64<<10)
		for left := n; left > 0; {
			if _, err := io.ReadFull(in, buffer[:4]); err != nil {
				return err
			}
			frame := buffer[:binary.BigEndian.Uint32(buffer)]
			if _, err := io.ReadFull(in, frame[4:]); err != nil {
				return err
			}
			f, err := wire.DecodeFrame(frame)
			if err != nil {
				return err
			}
			switch body := f.Body.(type) {
			case *wire.Flow:
				if body.LinkCredit != nil {
					credit <- *body.DeliveryCount + *body.LinkCredit
				}
			case *wire.Disposition:
				if _, ok := body.State.(wire.Accepted); !ok {
					return fmt.Errorf("a message is answered with %v", body.State)
				}
				last := body.First
				if body.Last != nil {
					last = *body.Last
				}
				for range last - body.First + 1 {
					<-turns
					left--
				}
			}
		}
		return <-failed
	}
}
