package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
)

func connect(t testing.TB, h *hubtest.Hub) *mqttdevice.Client {
	t.Helper()
	c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: h.Device("d1"), Addr: h.MQTTSAddr, TLS: h.ClientTLS()})
	if err == nil {
		err = c.Connect(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func openBox(t testing.TB) *outbox.Box {
	t.Helper()
	b, err := outbox.Open(filepath.Join(t.TempDir(), "outbox"), outbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestSendEndsWithItsContext(t *testing.T) {
	h := hubtest.New(t)
	b, c := openBox(t), connect(t, h)
	for round := range 2 { // Send can be called again
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan error)
		go func() { sent <- b.Send(ctx, c) }()
		for i := range 100 {
			if err := b.Add(mqttdevice.Message{Payload: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		b.AwaitSent(uint64(100 * (round + 1)))
		cancel()
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Errorf("Send returned %v", err)
		}
	}
	if s := b.Stats(); s.Sent != 200 {
		t.Errorf("%+v, want 200 sent", s)
	}
	c.Close()
	if err := b.Send(t.Context(), c); !errors.Is(err, mqttdevice.ErrClosed) {
		t.Errorf("Send over a closed client returned %v", err)
	}
}

// The message waits for a connection that never comes.
func TestCloseEndsSend(t *testing.T) {
	conn := hubtest.New(t).Device("d1")
	synctest.Test(t, func(t *testing.T) {
		c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: conn, Addr: "127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go c.Connect(t.Context())
		b := openBox(t)
		if err := b.Add(mqttdevice.Message{}); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() { sent <- b.Send(t.Context(), c) }()
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-sent; !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("Send returned %v", err)
		}
		if err := b.Send(t.Context(), c); err != outbox.ErrClosed {
			t.Errorf("Send from a closed outbox returned %v", err)
		}
	})
}

// BenchmarkAdd measures durable messages of 200 bytes next to a bare append and
// fsync.
func BenchmarkAdd(b *testing.B) {
	payload := make([]byte, 200)
	b.Run("fsync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			if _, err := f.Write(payload); err != nil {
				b.Fatal(err)
			}
			if err := outbox.SyncData(f); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b)
	})
	for _, adders := range []int{1, 64} {
		b.Run(fmt.Sprintf("adders=%d", adders), func(b *testing.B) {
			b.ReportAllocs()
			box := openBox(b)
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range adders {
				wg.Go(func() {
					for n := i; n < b.N; n += adders {
						if err := box.Add(mqttdevice.Message{Payload: payload}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			perSecond(b)
		})
	}
}

// BenchmarkSend measures how fast an outbox is drained into a hub in this
// process, whose log is in memory, next to calls of Client.Send, as many at a
// time as Box.Send has messages on their way.
func BenchmarkSend(b *testing.B) {
	payload := make([]byte, 200)
	b.Run("client", func(b *testing.B) {
		c := connect(b, hubtest.New(b))
		b.ResetTimer()
		var wg sync.WaitGroup
		for i := range outbox.Window {
			wg.Go(func() {
				for n := i; n < b.N; n += outbox.Window {
					if err := c.Send(b.Context(), mqttdevice.Message{Payload: payload}); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		perSecond(b)
	})
	b.Run("outbox", func(b *testing.B) {
		b.ReportAllocs()
		box, c := openBox(b), connect(b, hubtest.New(b))
		for n := 0; n < b.N; {
			batch := make([]mqttdevice.Message, min(b.N-n, 500))
			for i := range batch {
				batch[i].Payload = payload
			}
			if err := box.Add(batch...); err != nil {
				b.Fatal(err)
			}
			n += len(batch)
		}
		ctx, cancel := context.WithCancel(b.Context())
		sent := make(chan error)
		b.ResetTimer()
		go func() { sent <- box.Send(ctx, c) }()
		box.AwaitSent(uint64(b.N))
		cancel()
		<-sent
		perSecond(b)
	})
}

func perSecond(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
