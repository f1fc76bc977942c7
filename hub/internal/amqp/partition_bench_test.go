package amqp_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
)

// BenchmarkReadEvents measures how fast one consumer of azeventhubs, in this
// process, reads stored events of 1 KB from all partitions, over plain TCP and
// over TLS, next to reading the log directly.
func BenchmarkReadEvents(b *testing.B) {
	const stored = 200_000
	back := newBackEnd(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())}))
	message := hub.Telemetry{
		Body:       []byte(strings.Repeat("x", 1024)),
		System:     []hub.Property{{Name: "message-id", Value: "6a1"}, {Name: "content-type", Value: "application/json"}},
		Properties: []hub.Property{{Name: "level", Value: "normal"}},
	}
	batch := slices.Repeat([]hub.Telemetry{message}, 1000)
	for i := range stored / len(batch) {
		back.send(fmt.Sprint("device-", i), batch...)
	}
	rate := func(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s") }

	b.Run("log", func(b *testing.B) {
		b.ReportAllocs()
		for n := b.N; n > 0; {
			for _, err := range back.Events(b.Context(), hub.EventQuery{Sources: []hub.EventSource{hub.SourceTelemetry}}) {
				if err != nil {
					b.Fatal(err)
				}
				if n--; n == 0 {
					break
				}
			}
		}
		rate(b)
	})
	for _, plain := range []bool{true, false} {
		back.plain = plain
		b.Run(map[bool]string{true: "azeventhubs/TCP", false: "azeventhubs/TLS"}[plain], func(b *testing.B) {
			b.ReportAllocs()
			for n := b.N; n > 0; n -= stored {
				readAll(b, back, min(n, stored))
			}
			rate(b)
		})
	}
}

// readAll reads the first n events that readers of all partitions get.
func readAll(b *testing.B, back *backEnd, n int) {
	b.Helper()
	c := back.consumer()
	defer c.Close(context.Background())
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	got := make(chan int)
	var wg sync.WaitGroup
	for partition := range back.EventPartitions() {
		p := back.reader(c, partition, azeventhubs.PartitionClientOptions{StartPosition: earliest, Prefetch: 5000})
		wg.Go(func() {
			for {
				// It waits for as many as it is asked for, unless ctx ends.
				events, err := p.ReceiveEvents(ctx, 100, nil)
				if err != nil && ctx.Err() == nil {
					b.Errorf("partition %d: %v", partition, err)
					return
				}
				select {
				case got <- len(events):
				case <-ctx.Done():
					return
				}
			}
		})
	}
	for n > 0 {
		n -= <-got
		if n <= 400 { // the last of a partition may be fewer than it waits for
			break
		}
	}
	cancel()
	wg.Wait()
}
