package amqp_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
)

func BenchmarkLog(b *testing.B) {
	n, err := node.New(node.Options{Storage: node.Folder(b.TempDir())})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	const events = 100_000
	stored := make(chan error, events)
	body := []byte(strings.Repeat("x", 1024))
	for i := range events {
		n.ReceiveTelemetry(hub.Peer{ID: hub.ID{Device: "device-" + strconv.Itoa(i%50)}}, hub.Telemetry{Body: body,
			System: []hub.Property{{Name: "message-id", Value: "6a1"}, {Name: "content-type", Value: "application/json"}}, Properties: []hub.Property{{Name: "level", Value: "normal"}}}, func(err error) { stored <- err })
	}
	for range events {
		if err := <-stored; err != nil {
			b.Fatal(err)
		}
	}
	for _, all := range []bool{true, false} {
		b.Run(strconv.FormatBool(all), func(b *testing.B) {
			b.ReportAllocs()
			q := hub.EventQuery{Sources: []hub.EventSource{hub.SourceTelemetry}, Follow: true}
			if !all {
				q.Partition = new(1)
			}
			i := 0
			for i < b.N {
				q.AtEnd = func() {}
				ctx, cancel := context.WithCancel(b.Context())
				q.AtEnd = cancel
				for _, err := range n.Events(ctx, q) {
					if err != nil {
						break
					}
					if i++; i == b.N {
						break
					}
				}
				cancel()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
