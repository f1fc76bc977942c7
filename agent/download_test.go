package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// content is what the servers of these tests have.
var content = bytes.Repeat([]byte("0123456789abcdef"), 20_000)

func newDownload(t *testing.T, url string) *download {
	t.Helper()
	return &download{
		client: downloadClient(http.DefaultTransport.(*http.Transport).Clone()), url: url, file: filepath.Join(t.TempDir(), "part"),
		size: int64(len(content)), limit: 1 << 20, store: func(string) error { return nil }, progress: func(done, total int64) {},
		patience: time.Minute, pause: time.Millisecond, stall: time.Minute,
	}
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/package.bin?sig=secret"
}

func wantContent(t *testing.T, d *download) {
	t.Helper()
	sum, err := fileSHA256(t.Context(), d.file)
	want := sha256.Sum256(content)
	if err != nil || sum != hex.EncodeToString(want[:]) {
		t.Errorf("SHA-256 %s, error %v, want %x", sum, err, want)
	}
}

func TestDownloadGoesOn(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header http.Header // of the server
		// ranges are the Range headers that the server gets when it breaks off twice after 100,000 bytes.
		ranges string
	}{
		{"by an ETag", http.Header{"Etag": {`"v1"`}}, ", bytes=100000- if \"v1\", bytes=200000- if \"v1\""},
		{"by a time", http.Header{"Last-Modified": {"Tue, 24 Nov 2026 00:00:00 GMT"}},
			", bytes=100000- if Tue, 24 Nov 2026 00:00:00 GMT, bytes=200000- if Tue, 24 Nov 2026 00:00:00 GMT"},
		{"not by a weak ETag", http.Header{"Etag": {`W/"v1"`}}, ", , "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ranges []string
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				wanted := r.Header.Get("Range")
				if wanted != "" {
					wanted += " if " + r.Header.Get("If-Range")
				}
				ranges = append(ranges, wanted)
				for name, values := range tt.header {
					w.Header()[name] = values
				}
				var from int
				fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
				rest := content[from:]
				w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
				if from > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
					w.WriteHeader(http.StatusPartialContent)
				}
				if len(ranges) < 3 {
					rest = rest[:100_000] // and the connection breaks
				}
				w.Write(rest)
			})
			d := newDownload(t, url)
			if err := d.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantContent(t, d)
			if got := strings.Join(ranges, ", "); got != tt.ranges {
				t.Errorf("ranges %q, want %q", got, tt.ranges)
			}
		})
	}
}

func TestDownloadGoesOnAfterARestart(t *testing.T) {
	var requests atomic.Int32
	etag := `"v1"`
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if requests.Add(1) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:100_000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	d := newDownload(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	d.progress = func(done, _ int64) {
		if done == 100_000 {
			cancel()
		}
	}
	if err := d.run(ctx); err == nil {
		t.Fatal("a download that was stopped has no error")
	}
	first := int64(-1)
	d.progress = func(done, _ int64) {
		if first < 0 {
			first = done
		}
	}
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first <= 100_000 {
		t.Errorf("it began again: the first %d bytes", first)
	}
	wantContent(t, d)
	if err := d.run(t.Context()); err != nil || requests.Load() != 2 { // it is all there
		t.Errorf("error %v, %d requests", err, requests.Load())
	}

	// A file that has changed on the server meanwhile begins again.
	if err := os.WriteFile(d.file, []byte("old beginning"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.validator, etag = `"v0"`, `"v2"`
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantContent(t, d)
}

func TestDownloadKeepsItsURLFromOtherServers(t *testing.T) {
	var referer string
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		referer = r.Header.Get("Referer")
		w.Write(content)
	})
	d := newDownload(t, serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) }))
	if err := d.run(t.Context()); err != nil || referer != "" {
		t.Errorf("error %v, Referer %q", err, referer)
	}
	wantContent(t, d)
}

func TestDownloadsThatFail(t *testing.T) {
	size := fmt.Sprint(len(content))
	body := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			w.Write(b)
		}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(content); err != nil {
				return
			}
		}
	}
	insecure := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/p?sig=secret", http.StatusFound)
	}
	for _, tt := range []struct {
		name   string
		server http.HandlerFunc
		change func(*download)
		want   string
	}{
		{"absent", http.NotFound, nil, "the server answered 404 Not Found"},
		{"shorter than said", body(content[1:]), nil, "the package has 319999 bytes, not the " + size + " it is said to have"},
		{"longer than said", body(append([]byte("x"), content...)), nil, "the package has 320001 bytes, not the " + size + " it is said to have"},
		{"without end", endless, nil, "the package is longer than the 312.5 KiB it may have"},
		{"without end or size", endless, func(d *download) { d.size = 0 }, "the package is longer than the 1 MiB it may have"},
		{"too large", body(content), func(d *download) { d.size, d.limit = 0, 1000 }, "the package has 312.5 KiB; at most 1000 bytes are allowed"},
		{"redirected to http", insecure, nil, "the server redirects to http://192.0.2.1/p, which is http; packages come over https only"},
		{"redirected for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, nil,
			"the server redirects more than 10 times"},
		{"never ready", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
			func(d *download) { d.patience = 0 }, "no progress for 0s: the server answered 503 Service Unavailable"},
		{"stalled", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			func(d *download) { d.patience, d.stall = 0, time.Millisecond }, "no progress for 0s: the server sent nothing for 1ms"},
		{"broken off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", size)
			w.Write(content[:10])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, func(d *download) { d.patience = 0 }, "no progress for 0s: unexpected EOF"},
		{"of an answer that lies about its end", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush() // no length
			w.Write(content[:10])
		}, nil, "the package has 10 bytes, not the " + size + " it is said to have"},
		{"of an answer without an end", func(w http.ResponseWriter, r *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n0123456789")
			c.Close()
		}, func(d *download) { d.patience = 0 }, "no progress for 0s: the package ended after 10 of " + size + " bytes"},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(c, "hello\r\n\r\n")
			c.Close()
		}, nil, `net/http: HTTP/1.x transport connection broken: malformed HTTP response "hello"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDownload(t, serve(t, tt.server))
			if tt.change != nil {
				tt.change(d)
			}
			err := d.run(t.Context())
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if info, err := os.Stat(d.file); err == nil && info.Size() > d.most() {
				t.Errorf("%d bytes are on the disk", info.Size())
			}
		})
	}
}

func TestDownloadDoesNotTrustEverybody(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	s.Config.ErrorLog = nil
	err := newDownload(t, s.URL+"/p?sig=secret").run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	d := newDownload(t, s.URL)
	d.client = s.Client()
	d.client.CheckRedirect = nil
	if err := d.run(t.Context()); err == nil || err.Error() != "the server answered 404 Not Found" {
		t.Errorf("error %v", err)
	}
}
