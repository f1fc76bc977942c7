package natsevents_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/iotdm/iotdm/hub/cluster/natsevents"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/eventlog"
)

// An appender is what both kinds of event logs are.
type appender interface {
	Append(key string, data []byte, called func(error)) error
}

// telemetry returns some events of about 1 KB of JSON, whose numbers and ids are
// random.
func telemetry(n int) (list [][]byte) {
	for range n {
		var b strings.Builder
		for i := range 16 {
			fmt.Fprintf(&b, `,"sensor-%02d":{"temperature":%.3f,"humidity":%.2f}`, i, 20+10*rand.Float64(), 100*rand.Float64())
		}
		list = append(list, fmt.Appendf(nil, `{"id":"%016x","time":%d%s}`, rand.Uint64(), 1_790_000_000_000+rand.IntN(1e9), b.String()))
	}
	return list
}

// BenchmarkAppend measures durable events of 1 KB in the log of one node, and in
// streams on one and three servers. Each sender waits for its event; "pipelined"
// ones have 100 on the way each.
func BenchmarkAppend(b *testing.B) {
	stream := func(servers int) func(b *testing.B) appender {
		return func(b *testing.B) appender {
			c := natstest.Start(b, servers)
			conn := connect(b, c.URL())
			if err := natsevents.Create(b.Context(), conn, natsevents.Settings{Copies: servers}); err != nil {
				b.Fatal(err)
			}
			return open(b, conn)
		}
	}
	for _, kind := range []struct {
		name string
		open func(b *testing.B) appender
	}{
		{"log", func(b *testing.B) appender {
			l, err := eventlog.Open(b.TempDir(), eventlog.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { l.Close() })
			return l
		}},
		{"stream of 1", stream(1)},
		{"stream of 3", stream(3)},
	} {
		b.Run(kind.name, func(b *testing.B) {
			l := kind.open(b)
			data := telemetry(5000)
			for _, s := range []struct{ senders, window int }{{1, 1}, {64, 1}, {256, 1}, {64, 100}} {
				name := fmt.Sprint("senders=", s.senders)
				if s.window > 1 {
					name += ", pipelined"
				}
				b.Run(name, func(b *testing.B) {
					var wg sync.WaitGroup
					for i := range s.senders {
						wg.Go(func() {
							key := fmt.Sprint("device-", i)
							room := make(chan struct{}, s.window)
							called := func(err error) {
								if err != nil {
									b.Error(err)
								}
								<-room
							}
							for n := i; n < b.N; n += s.senders {
								room <- struct{}{}
								if err := l.Append(key, data[n%len(data)], called); err != nil {
									b.Error(err)
								}
							}
							for range s.window {
								room <- struct{}{}
							}
						})
					}
					wg.Wait()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
				})
			}
		})
	}
}

// BenchmarkRead measures reading events of 1 KB, of which many are in a message.
func BenchmarkRead(b *testing.B) {
	const n = 20_000
	c := natstest.Start(b, 3)
	conn := connect(b, c.URL())
	if err := natsevents.Create(b.Context(), conn, natsevents.Settings{Copies: 3}); err != nil {
		b.Fatal(err)
	}
	l := open(b, conn)
	var wg sync.WaitGroup
	wg.Add(n)
	for i, data := range telemetry(n) {
		if err := l.Append(fmt.Sprint("device-", i), data, func(error) { wg.Done() }); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	for b.Loop() {
		got := 0
		if err := l.Read(b.Context(), eventlog.All, eventlog.Position{}, nil, func(eventlog.Record) error { got++; return nil }); err != nil || got != n {
			b.Fatal(got, err)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "events/s")
}
