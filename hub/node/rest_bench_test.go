package node_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/store"
)

// BenchmarkREST measures operations of the service's API on a hub that stores
// on disk, next to a handler that reads a body and answers JSON and does
// nothing else, over the same client and TLS. The rows "one" are what one caller
// waits, the rows "parallel" what 64 callers get done. Beside changes, which have
// to reach the disk, stands a durable update of a bare store on the same disk.
func BenchmarkREST(b *testing.B) {
	h := wiretest.StartREST(b, node.Options{Storage: node.Folder(b.TempDir()), Clock: clock.New(), Logger: slog.New(slog.DiscardHandler)})
	token := h.Token("iothubowner")
	const devices = 64
	for n := range devices {
		d := wiretest.DialTLS(b, h.Hub)
		d.Connect(h.Device(fmt.Sprintf("dev%d", n)))
		d.Subscribe(0, "$iothub/methods/POST/#")
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

	do := func(method, url, body string) error {
		req, err := http.NewRequestWithContext(context.Background(), method, url+"?api-version=2021-04-12", strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Host = "localhost"
		req.Header.Set("Authorization", token)
		resp, err := h.Client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			text, _ := io.ReadAll(resp.Body)
			return fmt.Errorf("%s %s: %s %s", method, url, resp.Status, text)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	db, err := store.Open(filepath.Join(b.TempDir(), "store"), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	value := make([]byte, 1<<10)
	update := func(int) error {
		return db.Update("device", func(tx *store.Tx) error { tx.Set([]byte("device"), value); return nil })
	}
	const methodBody = `{"methodName":"m","payload":{"delay":5}}`
	doNothing := func(int) error { return do("POST", noop.URL+"/twins/dev1/methods", methodBody) }
	url := "https://" + h.HTTPSAddr
	var created atomic.Int64
	for _, op := range []struct {
		name    string
		changes bool
		do      func(n int) error
	}{
		{"method", false, func(n int) error {
			return do("POST", fmt.Sprintf("%s/twins/dev%d/methods", url, n%devices), methodBody)
		}},
		{"twin get", false, func(n int) error { return do("GET", fmt.Sprintf("%s/twins/dev%d", url, n%devices), "") }},
		{"twin patch", true, func(n int) error {
			return do("PATCH", fmt.Sprintf("%s/twins/dev%d", url, n%devices), fmt.Sprintf(`{"properties":{"desired":{"interval":%d}}}`, n))
		}},
		{"identity create", true, func(int) error { return do("PUT", fmt.Sprintf("%s/devices/new%d", url, created.Add(1)), `{}`) }},
	} {
		b.Run(op.name+"/one", func(b *testing.B) {
			// Turn by turn, so that what else the machine does hits both.
			var took, nothing, updates []time.Duration
			for n := 0; b.Loop(); n++ {
				nothing = append(nothing, timed(b, doNothing, n))
				if op.changes {
					updates = append(updates, timed(b, update, n))
				}
				took = append(took, timed(b, op.do, n))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(p50(took), "p50-us")
			b.ReportMetric(p50(nothing), "no-op-p50-us")
			if op.changes {
				b.ReportMetric(p50(updates), "update-p50-us")
				b.ReportMetric(p50(took)/(p50(nothing)+p50(updates)), "x-no-op-and-update")
			} else {
				b.ReportMetric(p50(took)/p50(nothing), "x-no-op")
			}
		})
		b.Run(op.name+"/parallel", func(b *testing.B) {
			nothing := rate(b, doNothing)
			calls := rate(b, op.do)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(calls, "calls/s")
			b.ReportMetric(nothing, "no-op-calls/s")
			b.ReportMetric(calls/nothing, "x-no-op")
		})
	}
}

func timed(b *testing.B, do func(int) error, n int) time.Duration {
	start := time.Now()
	if err := do(n); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

func p50(took []time.Duration) float64 {
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1000
}

// rate makes b.N calls from 64 callers and returns how many a second it was.
func rate(b *testing.B, do func(int) error) float64 {
	start := time.Now()
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
	return float64(b.N) / time.Since(start).Seconds()
}

// answerMethods answers every direct method until the connection ends.
func answerMethods(d *wiretest.Client) {
	for {
		p, err := packets.ReadPacket(d)
		if err != nil {
			return
		}
		if p, ok := p.(*packets.PublishPacket); ok {
			if wiretest.PublishPacket(0, 0, "$iothub/methods/res/200/?$rid="+wiretest.RequestID(p), `{"ok":true}`).Write(d) != nil {
				return
			}
		}
	}
}
