package hubamqp_test

import (
	"sync"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubamqp"
)

// BenchmarkEvents reads stored events of 1 KB, from the hub and back, on one machine.
func BenchmarkEvents(b *testing.B) {
	const stored = 20_000
	h := hubtest.New(b, hubtest.WithOptions(node.Options{EventPartitions: 4, EventBytes: 1 << 30}))
	var wg sync.WaitGroup
	for i := range stored {
		wg.Add(1)
		from := hub.Peer{ID: hub.ID{Device: []string{"a", "b", "c", "d", "e", "f", "g", "h"}[i%8]}}
		if err := h.ReceiveTelemetry(from, hub.Telemetry{Body: make([]byte, 1024)}, func(error) { wg.Done() }); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	c := start(b, options(h, "service"))
	b.ReportAllocs()
	read := 0
	for b.Loop() {
		if err := c.Events(b.Context(), hubamqp.EventQuery{}, func(hubamqp.Event) error { read++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	if read != b.N*stored {
		b.Fatalf("%d events were read in %d rounds, want %d each", read, b.N, stored)
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
}
