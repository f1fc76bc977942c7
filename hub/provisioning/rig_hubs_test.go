package provisioning_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/linked"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// here is the name of the hub whose provisioning service is tested, and there that
// of the one it is linked with.
const (
	here  = "here.example"
	there = "127.0.0.1"
)

const scopeOfHubs = "0ne00ABCDEF"

// Two hubs: the rules of one, with a provisioning service, and another, a real one
// that is asked over HTTPS, by way of a front that a test can have fail.
type twoHubs struct {
	*provisioning.Service
	t     *testing.T
	here  *hub.Server
	there *hubtest.Hub
	log   *safeBuffer

	mu    sync.Mutex
	fail  func(http.ResponseWriter, *http.Request) bool // whether it has dealt with a request
	asked []string                                      // of the other hub, as method and path
}

type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newTwoHubs(t *testing.T) *twoHubs {
	t.Helper()
	h := &twoHubs{t: t, there: hubtest.New(t), log: new(safeBuffer)}
	policy := h.there.Policy("iothubowner")
	target := &url.URL{Scheme: "https", Host: policy.HostName}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = target.Host },
		Transport: &http.Transport{TLSClientConfig: h.there.ClientTLS()},
	}
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked = append(h.asked, r.Method+" "+r.URL.Path)
		fail := h.fail
		h.mu.Unlock()
		if fail == nil || !fail(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(func() {
		front.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	policy.HostName = front.Listener.Addr().String()
	link, err := linked.New(policy)
	if err != nil {
		t.Fatal(err)
	}
	link.Trust(front.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs)
	t.Cleanup(link.Close)

	db, err := store.OpenMemory(nil)
	events, eventErr := eventlog.OpenMemory(eventlog.Options{})
	if err := errors.Join(err, eventErr); err != nil {
		t.Fatal(err)
	}
	c := clock.Stopped(time.Now())
	if h.here, err = hub.New(hub.Options{Store: db, Events: events, Clock: c, HostNames: []string{here, "alias.example"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.here.Close()
		if err := errors.Join(events.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	h.Service, err = provisioning.New(h.here, db, provisioning.Options{
		IDScope: scopeOfHubs, HostName: func() string { return here }, Linked: []*linked.Hub{link},
		Logger: slog.New(slog.NewTextHandler(h.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// failing has the other hub answer a request whose method and path begin so with a
// status; 0 cuts the connection. It returns when f does.
func (h *twoHubs) failing(begin string, status int, f func()) {
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case !strings.HasPrefix(r.Method+" "+r.URL.Path, begin):
			return false
		case status == 0:
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		return true
	})
	defer h.set(nil)
	f()
}

func (h *twoHubs) set(fail func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = fail
}

// group makes an enrollment group with keys, or replaces it, and returns it with them.
func (h *twoHubs) group(id string, change func(*provisioning.Enrollment)) provisioning.Enrollment {
	h.t.Helper()
	e := provisioning.Enrollment{GroupID: id, Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}}
	m := hub.Match{}
	if _, err := h.Enrollment(provisioning.Group, id); err == nil {
		m.Any = true
	}
	change(&e)
	e, err := h.PutEnrollment(e, m)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// peer is a device of a group.
func (h *twoHubs) peer(e provisioning.Enrollment, id string) provisioning.Peer {
	h.t.Helper()
	key, err := sas.DeriveKey(e.Attestation.SymmetricKey.Primary, id)
	if err != nil {
		h.t.Fatal(err)
	}
	token, err := sas.Sign(scopeOfHubs+"/registrations/"+id, "registration", key, h.here.Now().Add(time.Hour))
	if err != nil {
		h.t.Fatal(err)
	}
	return provisioning.Peer{Scope: scopeOfHubs, ID: id, Password: token, Door: "MQTT", Remote: "192.0.2.1:1"}
}

// register returns the registration of a device of a group.
func (h *twoHubs) register(e provisioning.Enrollment, id string) provisioning.Registration {
	h.t.Helper()
	return h.registerWith(e, id, "")
}

func (h *twoHubs) registerWith(e provisioning.Enrollment, id, payload string) provisioning.Registration {
	h.t.Helper()
	op, err := h.Register(h.t.Context(), h.peer(e, id), provisioning.Request{Payload: json.RawMessage(payload)})
	if err != nil {
		h.t.Fatalf("register %s: %v", id, err)
	}
	if op.Registration == nil || op.RetryAfter != 0 {
		h.t.Fatalf("%s is answered %+v", id, op)
	}
	return *op.Registration
}

// assigned registers a device that must be assigned to a hub.
func (h *twoHubs) assigned(e provisioning.Enrollment, id, to, substatus string) provisioning.Registration {
	h.t.Helper()
	r := h.register(e, id)
	if r.Status != provisioning.Assigned || r.Hub != to || r.DeviceID != id || r.Substatus != substatus {
		h.t.Errorf("%s is %s to %q as %q, %s; error %d %s; want assigned to %s, %s\n%s", id, r.Status, r.Hub, r.DeviceID, r.Substatus, r.ErrorCode, r.ErrorMessage, to, substatus, h.log)
	}
	return r
}

// failed registers a device whose registration must fail, and be told with a word.
func (h *twoHubs) failed(e provisioning.Enrollment, id, logged string) {
	h.t.Helper()
	r := h.register(e, id)
	if r.Status != provisioning.Failed || r.ErrorCode != 400207 || r.ErrorMessage == "" || r.Hub != "" {
		h.t.Errorf("%s: %+v, want failed with 400207", id, r)
	}
	if strings.Contains(r.ErrorMessage, "\n") || strings.Contains(r.ErrorMessage, "SharedAccess") {
		h.t.Errorf("%s is told %q", id, r.ErrorMessage)
	}
	if !strings.Contains(h.log.String(), logged) {
		h.t.Errorf("%s: nothing of %q in the log:\n%s", id, logged, h.log)
	}
	stored, err := h.Registration(id)
	if err != nil || stored.Status != provisioning.Failed {
		h.t.Errorf("%s is stored as %+v, %v", id, stored, err)
	}
}

// a hub that has devices.
type devices interface {
	Identity(hub.ID) (hub.Identity, error)
	Twin(hub.ID) (hub.TwinView, error)
}

// only checks that a device is in one hub alone, with the credential of its group
// and this twin: tags, desired and reported properties.
func (h *twoHubs) only(in devices, e provisioning.Enrollment, id, twin string) {
	h.t.Helper()
	for _, one := range []devices{h.here, h.there} {
		i, err := one.Identity(hub.ID{Device: id})
		if one != in {
			if !errors.Is(err, hub.ErrDeviceNotFound) {
				h.t.Errorf("%s is in the other hub, too: %v", id, err)
			}
			continue
		}
		if err != nil {
			h.t.Errorf("%s: %v", id, err)
			continue
		}
		key, err := sas.DeriveKey(e.Attestation.SymmetricKey.Primary, id)
		if err != nil || i.Auth.Type != hub.AuthSAS || i.Auth.SymmetricKey.Primary != key {
			h.t.Errorf("%s has another credential, of type %s", id, i.Auth.Type)
		}
		if got := twinText(h.t, one, id); got != twin {
			h.t.Errorf("the twin of %s is %s, want %s", id, got, twin)
		}
	}
}

func twinText(t *testing.T, in devices, id string) string {
	t.Helper()
	v, err := in.Twin(hub.ID{Device: id})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var twin struct {
		Tags       map[string]any
		Properties struct{ Desired, Reported map[string]any }
	}
	if err := json.Unmarshal(text, &twin); err != nil {
		t.Fatal(err)
	}
	for _, s := range []map[string]any{twin.Properties.Desired, twin.Properties.Reported} {
		delete(s, "$metadata")
		delete(s, "$version")
	}
	if twin.Tags == nil {
		twin.Tags = map[string]any{} // a twin without tags is shown so
	}
	text, err = json.Marshal([]any{twin.Tags, twin.Properties.Desired, twin.Properties.Reported})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// write changes a twin as its operator and its device do.
func (h *twoHubs) write(in devices, id, tags, desired, reported string) {
	h.t.Helper()
	s, ok := in.(*hub.Server)
	if !ok {
		s = h.there.Server
	}
	if _, err := s.PatchTwin(hub.ID{Device: id}, hub.TwinChange{Tags: json.RawMessage(tags), Desired: json.RawMessage(desired)}, hub.Match{}); err != nil {
		h.t.Fatal(err)
	}
	if !ok {
		d := wiretest.DialTLS(h.t, h.there)
		d.Connect(h.there.Device(id))
		d.Publish("$iothub/twin/PATCH/properties/reported/?", reported)
		d.Disconnect()
		wiretest.WantDisconnected(h.t, h.there.Node, hub.ID{Device: id})
		return
	}
	if _, err := s.PatchReported(hub.ID{Device: id}, []byte(reported), hub.AnyVersion); err != nil {
		h.t.Fatal(err)
	}
}

func initialTwin(tags, desired string) *provisioning.Twin {
	t := &provisioning.Twin{Tags: json.RawMessage(tags)}
	t.Properties.Desired = json.RawMessage(desired)
	return t
}
