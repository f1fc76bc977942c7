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

// Health answers whoever reaches Options.Health, over plain HTTP and without
// a credential:
//
//	GET /health     200 as long as the process lives
//	GET /ready      200 if the hub serves, else 503; JSON says what is missing
//	GET /metrics    the metrics of Prometheus; 503 while there are none
//	GET /ca.pem     the CA of the hub's certificate; 503 while there is none
//
// It begins before the store is opened and ends behind everything else. One of a
// process that is several nodes in turn, as a member of a cluster is, answers from
// before the first to behind the last. Nil answers nobody.
type Health struct {
	http    http.Server
	running *serve.Group

	mu       sync.RWMutex // guards what follows; held while the parts of the node are asked, but for cluster
	ca       []byte
	metrics  prometheus.Gatherer // nil: not yet, or no longer
	store    *store.DB           // nil: not yet, or no longer
	cluster  func() string       // how far the node is behind others; nil: there are none, or it is no member
	away     string              // why it is no member yet, or no longer
	serving  bool
	stopping bool
}

// ServeHealth begins to answer on l, which it owns, for the nodes that one process
// is in turn; see Cluster.
func ServeHealth(l net.Listener, log *slog.Logger) *Health {
	h := serveHealth(l, serve.NewGate(), log)
	h.away = "not a member yet"
	return h
}

// serveHealth begins to answer on l, which it owns.
func serveHealth(l net.Listener, gate *serve.Gate, log *slog.Logger) *Health {
	h := &Health{running: serve.NewGroup()}
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
func (h *Health) change(f func()) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// forget ends what h knows of parts that close now.
func (h *Health) forget() {
	h.change(func() { h.stopping, h.metrics, h.store, h.cluster = true, nil, nil, nil })
}

// Between says that there is no node now, and why.
func (h *Health) Between(why string) {
	h.change(func() { h.stopping, h.serving, h.away = false, false, why })
}

// Close ends answering.
func (h *Health) Close() {
	if h == nil {
		return
	}
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

func (h *Health) serveReady(w http.ResponseWriter, _ *http.Request) {
	s := h.state()
	status := http.StatusOK
	if s.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	writeHealth(w, status, s)
}

// state is what the hub is at, and what of it is missing. A hub that cannot
// write takes neither changes nor telemetry, and so it is not ready either.
func (h *Health) state() healthState {
	behind := h.behind()
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
	switch {
	case h.away != "":
		s.Status, s.Checks["cluster"] = "starting", h.away
	case h.cluster != nil:
		s.Checks["cluster"] = "ok"
		if behind != "" && s.Status == "ready" {
			s.Status, s.Checks["cluster"] = "behind", behind
		}
	}
	if !h.serving {
		s.Status, s.Checks["listeners"] = "starting", "not open"
	}
	if h.stopping {
		s.Status, s.Checks["listeners"] = "stopping", "closed"
	}
	return s
}

// behind says how far the node is behind others. That may take a second, in which h may
// change.
func (h *Health) behind() string {
	h.mu.RLock()
	cluster := h.cluster
	h.mu.RUnlock()
	if cluster == nil {
		return ""
	}
	return cluster()
}

func (h *Health) serveCA(w http.ResponseWriter, _ *http.Request) {
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

func (h *Health) serveMetrics(w http.ResponseWriter, r *http.Request) {
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
func (h *Health) gather() ([]*dto.MetricFamily, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.metrics == nil {
		return nil, errNoMetrics
	}
	return h.metrics.Gather()
}
