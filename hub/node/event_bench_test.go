package node_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// BenchmarkTelemetry measures durable messages of 1 KB at QoS 1 over TLS, next
// to a bare append and fsync of the same bytes. A device has window messages
// unacknowledged at most.
func BenchmarkTelemetry(b *testing.B) {
	payload := strings.Repeat("x", 1024)
	b.Run("fsync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			if _, err := f.WriteString(payload); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	for _, bb := range []struct{ devices, window int }{{1, 1}, {1, 100}, {64, 1}, {64, 20}, {256, 1}} {
		b.Run(fmt.Sprintf("devices=%d/window=%d", bb.devices, bb.window), func(b *testing.B) {
			b.ReportAllocs()
			h := hubtest.New(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())}))
			var senders []func(n int) error
			for i := range bb.devices {
				name := fmt.Sprint("device-", i)
				d := wiretest.DialTLS(b, h)
				d.Connect(h.Device(name))
				var packet bytes.Buffer
				if err := wiretest.PublishPacket(1, 1, "devices/"+name+"/messages/events/", payload).Write(&packet); err != nil {
					b.Fatal(err)
				}
				senders = append(senders, telemetrySender(d, packet.Bytes(), bb.window))
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

// telemetrySender returns what sends a packet n times and returns when all are
// acknowledged. The packet identifier is always the same, which the hub does
// not mind.
func telemetrySender(d *wiretest.Client, packet []byte, window int) func(n int) error {
	in := bufio.NewReader(d)
	return func(n int) error {
		turns := make(chan struct{}, window)
		failed := make(chan error, 1)
		go func() {
			for range n {
				turns <- struct{}{}
				if _, err := d.Write(packet); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
		var ack [4]byte
		for range n {
			if _, err := io.ReadFull(in, ack[:]); err != nil {
				return err
			}
			<-turns
		}
		return <-failed
	}
}

// BenchmarkTwinEvents measures durable patches of reported properties by 256
// writers, with and without the events that tell of them.
func BenchmarkTwinEvents(b *testing.B) {
	for name, sources := range map[string][]hub.EventSource{"events": nil, "none": {}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			s, err := node.New(node.Options{Storage: node.Folder(b.TempDir()), EventSources: sources})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			const writers = 256
			for i := range writers {
				wiretest.Create(b, s, hub.ID{Device: fmt.Sprint("device-", i)}, hub.IdentitySpec{})
			}
			patch := []byte(`{"temperature":21.5,"state":{"door":"open","count":17},"text":"` + strings.Repeat("x", 900) + `"}`)
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range writers {
				id := hub.ID{Device: fmt.Sprint("device-", i)}
				wg.Go(func() {
					for range b.N / writers {
						if _, err := s.PatchReported(id, patch, hub.AnyVersion); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N/writers*writers)/b.Elapsed().Seconds(), "patches/s")
		})
	}
}
