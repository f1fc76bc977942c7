package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// A machine is a computer on which an agent can be started again and again.
type machine struct {
	t   *testing.T
	hub *hubtest.Hub
	opt Options

	mu    sync.Mutex // guards what follows
	boot  Boot
	lines []string // what the agent has told and logged
}

func newMachine(t *testing.T, h *hubtest.Hub) *machine {
	m := &machine{t: t, hub: h, boot: Boot{"boot-1", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}}
	m.opt = Options{
		Device: mqttdevice.Options{ConnectionString: h.Device("d1"), Addr: h.MQTTSAddr, TLS: h.ClientTLS()},
		Folder: filepath.Join(t.TempDir(), "d1"),
		Boot: func() (Boot, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.boot == (Boot{}) {
				return Boot{}, errors.New("no boot clock")
			}
			return m.boot, nil
		},
		OnEvent: func(e Event) { m.line(string(e)) },
		Logger:  slog.New(slog.NewTextHandler(m, nil)),
	}
	return m
}

func (m *machine) line(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, text)
}

// Write takes a line of the log.
func (m *machine) Write(p []byte) (int, error) {
	m.line(string(p))
	return len(p), nil
}

func (m *machine) reboot(id string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boot = Boot{id, at}
}

// start starts the agent and waits until it is connected. It is closed with the test at the latest.
func (m *machine) start() *Agent {
	m.t.Helper()
	a, err := New(m.opt)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { a.Close() })
	if err := a.Connect(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	return a
}

func (m *machine) call(method string) hub.MethodResult {
	m.t.Helper()
	r, err := m.hub.InvokeMethod(m.t.Context(), hub.ID{Device: "d1"}, hub.MethodCall{Name: method, ResponseTimeout: 30 * time.Second})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// shown is what the tests look at.
type shown struct {
	RebootTime string
	Boot       struct {
		ID      string
		Unasked bool
	}
	Reboot RebootRequest
}

func (m *machine) reported() (r shown) {
	m.t.Helper()
	doc, err := m.hub.DeviceTwin(hub.ID{Device: "d1"})
	twin := struct{ Reported *shown }{&r}
	if err == nil {
		err = json.Unmarshal(doc, &twin)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// await waits until the reported properties are as ok wants them.
func (m *machine) await(what string, ok func(shown) bool) shown {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	var r shown
	for _, err := range m.hub.Events(ctx, hub.EventQuery{Sources: []hub.EventSource{hub.SourceTwinChange}, Follow: true}) {
		if err != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.t.Fatalf("the twin does not show %s: %+v (%v); the agent printed %q", what, r, err, m.lines)
		}
		if r = m.reported(); ok(r) {
			break
		}
	}
	return r
}

func (m *machine) awaitOutcome(o Outcome) shown {
	m.t.Helper()
	return m.await(string(o), func(r shown) bool { return r.Reboot.Outcome == o })
}
