package amqp_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	goamqp "github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
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
		l := dialService(b, h).Sender("/messages/devicebound")
		ctx := b.Context()
		receipts := make(chan goamqp.SendReceipt, underWay)
		done := make(chan error, 1)
		go func() {
			for r := range receipts {
				if _, err := r.Wait(ctx); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		b.ResetTimer()
		for i := range b.N {
			r, err := l.SendWithReceipt(ctx, wiretest.AMQPMessage("/devices/"+device(i)+"/messages/devicebound", body), nil)
			if err != nil {
				b.Fatal(err)
			}
			select {
			case receipts <- r:
			case err := <-done:
				b.Fatal(err)
			}
		}
		close(receipts)
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
}
