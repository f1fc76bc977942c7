package amqp_test

import (
	"bufio"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// underWay is how many messages the benchmarks of cloud-to-device messages have
// under way: the credit that the door gives a link.
const underWay = 100

// newQueues returns a durable hub with as many devices as take n messages, 50
// each, and a function that says which device the ith one is for: those that are
// under way are all for different devices.
func newQueues(b *testing.B, n int) (h *hubtest.Hub, device func(i int) string) {
	b.Helper()
	h = hubtest.New(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())}))
	devices := max(underWay, (n+39)/40)
	var made sync.WaitGroup
	each := devices/20 + 1
	for start := 0; start < devices; start += each {
		made.Go(func() {
			for i := start; i < min(start+each, devices); i++ {
				if _, err := h.PutIdentity(hub.ID{Device: fmt.Sprint("d", i)}, hub.IdentitySpec{}, hub.Match{}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	made.Wait()
	return h, func(i int) string { return fmt.Sprint("d", i%devices) }
}

// BenchmarkSendToDevice sends cloud-to-device messages of 200 bytes that are
// durable when they are acknowledged: by the rules alone, which is the baseline,
// and over AMQP on one link, with as many under way.
func BenchmarkSendToDevice(b *testing.B) {
	body := string(make([]byte, 200))
	b.Run("rules", func(b *testing.B) {
		h, device := newQueues(b, b.N)
		var next atomic.Int64
		var group sync.WaitGroup
		b.ResetTimer()
		for range underWay {
			group.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= b.N {
						return
					}
					if err := h.SendMessage(device(i), wiretest.Message(body)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("amqp", func(b *testing.B) {
		h, device := newQueues(b, b.N)
		p := newCBSPeer(b, h, "cbs")
		if status := statusOf(b, p.put(putToken("1", serviceToken(b, h, "service")))); status != 200 {
			b.Fatalf("put-token: %d", status)
		}
		p.Send(0, &wire.Attach{Name: "c2d", Handle: 2, Role: wire.Sender, Source: &wire.Source{}, Target: &wire.Target{Address: "/messages/devicebound"}, InitialDeliveryCount: uint32p(0)})
		var frames [][]byte
		for i := range b.N {
			m := wire.AppendMessage(nil, &wire.Message{Properties: &wire.Properties{To: "/devices/" + device(i) + "/messages/devicebound"}, Data: [][]byte{[]byte(body)}})
			frames = append(frames, wire.AppendFrame(nil, 0, &wire.Transfer{Handle: 2, DeliveryID: uint32p(uint32(i + 1)), DeliveryTag: []byte{byte(i), byte(i >> 8)}}, m))
		}
		b.ResetTimer()
		sendAll(b, p.AMQPPeer, frames)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
}

// sendAll sends transfers on handle 2 as credit comes, and returns when all of
// them have been accepted. It costs as little as a client can.
func sendAll(b *testing.B, p *wiretest.AMQPPeer, frames [][]byte) {
	b.Helper()
	in := bufio.NewReaderSize(p.Conn, 64<<10)
	sent, accepted := 0, 0
	for header := make([]byte, wire.FrameHeader); accepted < len(frames); {
		p.SetReadDeadline(time.Now().Add(wiretest.Patience))
		if _, err := io.ReadFull(in, header); err != nil {
			b.Fatal(err)
		}
		frame := append(header[:wire.FrameHeader:wire.FrameHeader], make([]byte, wire.FrameSize(header)-wire.FrameHeader)...)
		if _, err := io.ReadFull(in, frame[wire.FrameHeader:]); err != nil {
			b.Fatal(err)
		}
		f, err := wire.DecodeFrame(frame)
		if err != nil {
			b.Fatal(err)
		}
		switch body := f.Body.(type) {
		case *wire.Disposition:
			last := body.First
			if body.Last != nil {
				last = *body.Last
			}
			if _, ok := body.State.(wire.Accepted); !ok {
				b.Fatalf("%+v", body)
			}
			accepted += int(last - body.First + 1)
		case *wire.Flow:
			if body.Handle == nil || body.LinkCredit == nil || body.DeliveryCount == nil {
				continue
			}
			var out []byte
			for until := min(int(*body.DeliveryCount+*body.LinkCredit), len(frames)); sent < until; sent++ {
				out = append(out, frames[sent]...)
			}
			if len(out) > 0 {
				p.SendBytes(out)
			}
		case *wire.Attach, nil:
		default:
			b.Fatalf("%+v", body)
		}
	}
}
