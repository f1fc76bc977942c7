package node

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// A health answers whoever reaches Options.Health, over plain HTTP and without
// a credential:
//
//	GET /health     200 as long as the process lives
//	GET /ready      200 if the hub serves, else 503; JSON says what is missing
//	GET /metrics    the metrics of Prometheus; 503 while there are none
//	GET /ca.pem     the CA of the hub's certificate; 503 while there is none
//
// It begins before the store is opened and ends behind everything else.
type health struct {
	http    http.Server
	running *serve.Group

	mu       sync.RWMutex // guards what follows; held while the parts of the node are asked
	ca       []byte
	metrics  prometheus.Gatherer // nil: not yet, or no longer
	store    *store.DB           // nil: not yet, or no longer
	serving  bool
	stopping bool
}

// serveHealth begins to answer on l, which it owns.
func serveHealth(l net.Listener, gate *serve.Gate, log *slog.Logger) *health {
	h := &health{running: serve.NewGroup()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, http.StatusOK, healthState{Status: "ok"}) })
	mux.HandleFunc("GET /ready", h.serveReady)
	mux.HandleFunc("GET /ca.pem", h.serveCA)
	mux.HandleFunc("GET /metrics", h.serveMetrics)
	h.http.Handler = mux
	h.http.MaxHeaderBytes = 4 << 10
	h.http.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	// The gate is never told that it knows a peer, so that no connection outlives
	// its bounds.
	h.http.SetKeepAlivesEnabled(false)
	h.running.Go(func() {
		if err := h.http.Serve(gate.Listen(l, "health")); !errors.Is(err, http.ErrServerClosed) {
			log.Error("health checks are no longer answered", words.LogAddr, l.Addr().String(), words.LogReason, err)
		}
	})
	log.Info("listening for health checks", words.LogAddr, l.Addr().String())
	return h
}

// change lets f change what h tells. A hub without health checks has none.
func (h *health) change(f func()) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// forget ends what h knows of parts that close now.
func (h *health) forget() {
	h.change(func() { h.stopping, h.metrics, h.store = true, nil, nil })
}

func (h *health) close() {
	h.running.Close()
	h.http.Close()
	h.running.Wait()
}

// A healthState is the body of an answer.
type healthState struct {
	Status string            `json:"status"`
	Checks map[string]string `json:"checks,omitempty"`
}

func writeHealth(w http.ResponseWriter, status int, s healthState) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(s)
}

func (h *health) serveReady(w http.ResponseWriter, _ *http.Request) {
	s := h.state()
	status := http.StatusOK
	if s.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	writeHealth(w, status, s)
}

// state is what the hub is at, and what of it is missing. A hub that cannot
// write takes neither changes nor telemetry, and so it is not ready either.
func (h *health) state() healthState {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s := healthState{"ready", map[string]string{"store": "ok", "listeners": "ok"}}
	if h.store != nil {
		switch stats := h.store.Stats(); {
		case stats.Broken:
			s.Status, s.Checks["store"] = "failing", "an fsync or write failed; the hub has to be restarted, on a disk that works"
		case stats.Stalled:
			s.Status, s.Checks["store"] = "failing", "cannot write: the disk is full or fails"
		}
	} else {
		s.Status, s.Checks["store"] = "starting", "not open"
	}
	if !h.serving {
		s.Status, s.Checks["listeners"] = "starting", "not open"
	}
	if h.stopping {
		s.Status, s.Checks["listeners"] = "stopping", "closed"
	}
	return s
}

func (h *health) serveCA(w http.ResponseWriter, _ *http.Request) {
	h.mu.RLock()
	ca := h.ca
	h.mu.RUnlock()
	if ca == nil {
		http.Error(w, "the hub has not opened its data folder yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain") // RFC 8555, section 9.1
	_, _ = w.Write(ca)
}

var errNoMetrics = errors.New("the hub has no metrics before its store is open, nor once it closes")

func (h *health) serveMetrics(w http.ResponseWriter, r *http.Request) {
	families, err := h.gather()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	gathered := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
	promhttp.HandlerFor(gathered, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// gather asks the parts for their metrics, which must not close meanwhile. What
// takes its time, the reader of the answer, comes after it.
func (h *health) gather() ([]*dto.MetricFamily, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.metrics == nil {
		return nil, errNoMetrics
	}
	return h.metrics.Gather()
}
