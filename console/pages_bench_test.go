package console_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
)

// BenchmarkPages opens pages of a hub with a million devices.
func BenchmarkPages(b *testing.B) {
	const devices, writers = 1_000_000, 8
	h := hubtest.New(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())}))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for first := w * hub.MaxBulk; first < devices; first += writers * hub.MaxBulk {
				var batch []hub.BulkEntry
				for i := range hub.MaxBulk {
					batch = append(batch, hub.BulkEntry{ID: hub.ID{Device: fmt.Sprintf("m-%07d", first+i)}, Mode: hub.ImportCreate})
				}
				if _, err := h.Bulk(batch); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	client, err := hubrest.New(hubrest.Options{ConnectionString: h.Policy("iothubowner"), TLS: h.ClientTLS()})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	c, err := console.New(console.Options{Client: client, HubName: "hub"})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	get := func(path string, cookie *http.Cookie) *http.Response {
		r := httptest.NewRequest("GET", "http://localhost"+path, nil)
		if cookie != nil {
			r.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w.Result()
	}
	cookie := get("/?t="+c.NewToken(), nil).Cookies()[0]
	for _, path := range []string{"/", "/devices", "/devices?prefix=m-09999", "/device/m-0500000", "/device/m-0500000/twin", "/queries?query=SELECT+*+FROM+devices"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				answer := get(path, cookie)
				if body, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
					b.Fatalf("status %d: %s", answer.StatusCode, body)
				}
			}
		})
	}
}
