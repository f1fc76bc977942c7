package rest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/rest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// A bareHub is a hub that is asked without a network: what parses requests, the
// rules, and what prints, at a thousand requests a second and more.
type bareHub struct {
	*node.Node
	door http.Handler
}

// startBare starts a hub whose time stands still.
func startBare(t testing.TB, opt node.Options) *bareHub {
	t.Helper()
	opt.Clock = clock.Stopped(wiretest.Now)
	n := wiretest.NewNode(t, opt)
	door := rest.New(n.Server, n.Jobs, n.Configurations, rest.Options{})
	t.Cleanup(door.Close)
	return &bareHub{n, door.Unguarded()}
}

// do makes a request. The header is names and values in turn.
func (h *bareHub) do(method, path, body string, header ...string) wiretest.Answer {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	r.RequestURI = path
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return h.serve(r)
}

func (h *bareHub) serve(r *http.Request) wiretest.Answer {
	w := httptest.NewRecorder()
	h.door.ServeHTTP(w, r)
	return wiretest.Answer{Status: w.Code, Header: w.Header(), Body: w.Body.String()}
}

// get returns a document that is there.
func (h *bareHub) get(t testing.TB, path string) string {
	t.Helper()
	return h.do("GET", path, "").Want(t, 200, "").Body
}

// refused reports whether an answer is a refusal, which must be one of the hub's
// own table and say why.
func refused(t testing.TB, a wiretest.Answer) bool {
	t.Helper()
	if a.Status < 300 {
		return false
	}
	if !slices.Contains([]int{400, 401, 403, 404, 405, 409, 412, 413, 429, 501}, a.Status) {
		t.Fatalf("answer is %d %s", a.Status, a.Body)
	}
	code := a.Header.Get("iothub-errorcode")
	if text := a.Text(t, "Message"); code == "" || !strings.HasPrefix(text, "ErrorCode:"+code+";") && !strings.HasPrefix(text, `{"errorCode":`) {
		t.Errorf("the refusal %d has the code %q and says %s", a.Status, code, a.Body)
	}
	return true
}

// everything is what a caller can read of the hub.
func (h *bareHub) everything(t testing.TB) string {
	t.Helper()
	devices := h.get(t, "/devices")
	all := []string{devices, h.get(t, "/configurations"), h.get(t, "/iotdm/certificates")}
	var list []struct{ DeviceID string }
	if err := json.Unmarshal([]byte(devices), &list); err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		modules, err := h.Modules(d.DeviceID)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h.twin(t, hub.ID{Device: d.DeviceID}))
		for _, m := range modules {
			all = append(all, h.twin(t, m.ID))
		}
	}
	return strings.Join(all, "\n")
}

func (h *bareHub) twin(t testing.TB, id hub.ID) string {
	t.Helper()
	v, err := h.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// clear deletes all devices.
func (h *bareHub) clear(t testing.TB) {
	t.Helper()
	for i, err := range h.Devices() {
		if err == nil {
			err = h.DeleteIdentity(i.ID, hub.Match{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// capturedRequests are those of the official SDKs.
func capturedRequests(t testing.TB) (list []string) {
	for _, c := range readRESTCaptures(t).Calls {
		list = append(list, c.Request)
	}
	return list
}

// capturedBodies are the bodies of captured requests that begin so.
func capturedBodies(t testing.TB, begin ...string) (list []string) {
	t.Helper()
	for _, text := range capturedRequests(t) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(begin, func(prefix string) bool { return strings.HasPrefix(text, prefix) }) {
			continue
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(body); text != "" && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	if len(list) == 0 {
		t.Fatalf("no request of %q was captured", begin)
	}
	return list
}

// An echo is a connected device that answers every method with its payload.
type echo struct {
	hub.Link // nothing else is asked of it
	peer     hub.Peer
	calls    []echoed
}

type echoed struct{ name, payload string }

// connectEcho connects the device of an identity.
func connectEcho(t testing.TB, h *bareHub, id hub.ID) *echo {
	t.Helper()
	i, err := h.Identity(id)
	if err != nil {
		t.Fatal(err)
	}
	token := wiretest.Sign(t, "localhost/devices/"+id.Device, "", i.Auth.SymmetricKey.Primary, h.Now().Add(time.Hour))
	grant, err := h.Authenticate("localhost", id, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{peer: hub.Peer{ID: id, Host: "localhost", Grant: grant, Since: h.Now()}}
	if err := h.Attach(e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *echo) Peer() hub.Peer                     { return e.peer }
func (e *echo) LastActivity() time.Time            { return e.peer.Since }
func (e *echo) TakesMethod(string) bool            { return true }
func (e *echo) TakesMessages() bool                { return false }
func (e *echo) SendDesired(int64, json.RawMessage) {}
func (e *echo) End(error)                          {}
func (e *echo) EndIdle(error) bool                 { return true }

func (e *echo) Call(_ context.Context, name string, payload json.RawMessage) (hub.MethodAnswer, bool, error) {
	e.calls = append(e.calls, echoed{name, string(payload)})
	return hub.MethodAnswer{Status: 200, Payload: payload}, true, nil
}
