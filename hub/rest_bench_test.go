package hub_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
)

// BenchmarkREST measures operations of the service's API on a hub that stores
// on disk, next to a handler that reads a body and answers JSON and does
// nothing else, over the same client and TLS. "p50-us" is what one caller
// waits; the parallel rows are 64 callers.
func BenchmarkREST(b *testing.B) {
	h := startREST(b, hub.Options{Data: b.TempDir(), Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	token := h.token("iothubowner")
	const devices = 64
	for n := range devices {
		d := dialTLS(b, h.Hub)
		d.connect(h.Device(fmt.Sprintf("dev%d", n)))
		d.subscribe(0, "$iothub/methods/POST/#")
		go answerMethods(d)
	}
	noop := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		io.WriteString(w, `{"status":200,"payload":{"ok":true}}`)
	}))
	noop.TLS = h.TLSConfig()
	noop.StartTLS()
	b.Cleanup(noop.Close)

	var created atomic.Int64
	body := func(text string) func(int) string { return func(int) string { return text } }
	device := func(format string) func(int) string {
		return func(n int) string { return fmt.Sprintf(format, n%devices) }
	}
	for _, op := range []struct {
		name, method string
		base         string
		path, body   func(n int) string
	}{
		{"no-op", "POST", noop.URL, device("/twins/dev%d/methods"), body(`{"methodName":"m","payload":{"delay":5}}`)},
		{"method", "POST", "", device("/twins/dev%d/methods"), body(`{"methodName":"m","payload":{"delay":5}}`)},
		{"twin get", "GET", "", device("/twins/dev%d"), body("")},
		{"twin patch", "PATCH", "", device("/twins/dev%d"), func(n int) string { return fmt.Sprintf(`{"properties":{"desired":{"interval":%d}}}`, n) }},
		{"identity create", "PUT", "", func(int) string { return fmt.Sprintf("/devices/new%d", created.Add(1)) }, body(`{}`)},
	} {
		base := op.base
		if base == "" {
			base = "https://" + h.HTTPSAddr
		}
		do := func(n int) error {
			req, err := http.NewRequestWithContext(context.Background(), op.method, base+op.path(n)+"?api-version=2021-04-12", strings.NewReader(op.body(n)))
			if err != nil {
				return err
			}
			req.Host = "localhost"
			req.Header.Set("Authorization", token)
			resp, err := h.client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != 200 {
				text, _ := io.ReadAll(resp.Body)
				return fmt.Errorf("%s: %s %s", op.name, resp.Status, text)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		}
		b.Run(op.name+"/one", func(b *testing.B) {
			b.ReportAllocs()
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if err := do(len(took)); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
		})
		b.Run(op.name+"/parallel", func(b *testing.B) {
			var next atomic.Int64
			var callers sync.WaitGroup
			for range 64 {
				callers.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if err := do(int(n)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

// answerMethods answers every direct method until the connection ends.
func answerMethods(d *client) {
	for {
		p, err := packets.ReadPacket(d)
		if err != nil {
			return
		}
		if p, ok := p.(*packets.PublishPacket); ok {
			if publishPacket(0, 0, "$iothub/methods/res/200/?$rid="+ridOf(p), `{"ok":true}`).Write(d) != nil {
				return
			}
		}
	}
}
