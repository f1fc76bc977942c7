package linked_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/linked"
	"github.com/iotdm/iotdm/sas"
)

// secret is in nothing that anybody is shown.
const secret = sas.Key("c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0ISEhISE=")

func link(t *testing.T, h *hubtest.Hub, policy string) *linked.Hub {
	t.Helper()
	l, err := linked.New(h.Policy(policy))
	if err != nil {
		t.Fatal(err)
	}
	l.Trust(h.RootCAs())
	t.Cleanup(l.Close)
	return l
}

func device(id, tags, desired, reported string) linked.Device {
	d := linked.Device{ID: id, Status: "enabled", Capabilities: json.RawMessage(`{"iotEdge":false}`), Tags: json.RawMessage(tags)}
	d.Authentication = json.RawMessage(fmt.Sprintf(`{"type":"sas","symmetricKey":{"primaryKey":%q,"secondaryKey":%q}}`, string(secret), string(secret)))
	d.Properties.Desired, d.Properties.Reported = json.RawMessage(desired), json.RawMessage(reported)
	return d
}

// twinOf is what the hub itself has, in short.
func twinOf(t *testing.T, h *hubtest.Hub, id string) string {
	t.Helper()
	v, err := h.Twin(hub.ID{Device: id})
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
	text, _ = json.Marshal([]any{twin.Tags, twin.Properties.Desired, twin.Properties.Reported})
	return string(text)
}

func TestADeviceIsPutWithItsWholeTwin(t *testing.T) {
	h := hubtest.New(t)
	l := link(t, h, "iothubowner")
	if err := l.Put(t.Context(), device("d1", `{"site":"berlin","floor":1}`, `{"rate":5}`, `{"firmware":"1.0"}`)); err != nil {
		t.Fatal(err)
	}
	if got, want := twinOf(t, h, "d1"), `[{"floor":1,"site":"berlin"},{"rate":5},{"firmware":"1.0"}]`; got != want {
		t.Errorf("the twin is %s, want %s", got, want)
	}
	i, err := h.Identity(hub.ID{Device: "d1"})
	if err != nil || i.Auth.SymmetricKey.Primary != secret || i.Auth.Type != hub.AuthSAS {
		t.Errorf("the identity has another authentication: %v", err)
	}

	// And once more, over one that is there: nothing of that stays.
	if err := l.Put(t.Context(), device("d1", `{"site":"rome"}`, `{"unit":"C"}`, `{"boot":2}`)); err != nil {
		t.Fatal(err)
	}
	if got, want := twinOf(t, h, "d1"), `[{"site":"rome"},{"unit":"C"},{"boot":2}]`; got != want {
		t.Errorf("the twin that was replaced is %s, want %s", got, want)
	}
	again, err := h.Identity(hub.ID{Device: "d1"})
	if err != nil || again.GenerationID == i.GenerationID {
		t.Errorf("the device is not a new one: %v", err)
	}
}

func TestWhatIsReadCanBePut(t *testing.T) {
	from, to := hubtest.New(t), hubtest.New(t, hubtest.WithAddrs("127.0.0.2:0", "127.0.0.2:0"))
	here, there := link(t, from, "iothubowner"), link(t, to, "iothubowner")
	if there.Name() != "127.0.0.2" {
		t.Fatalf("the linked hub is called %q", there.Name())
	}
	const id = "d:1.%x" // which a path has to escape
	want := device(id, `{"site":"berlin","deep":{"a":[1,{"b":false}]}}`, `{"rate":5}`, `{"firmware":"1.0"}`)
	want.Status, want.StatusReason = "disabled", "stolen"
	if err := here.Put(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got, found, err := here.Device(t.Context(), id)
	if err != nil || !found {
		t.Fatalf("found %t, error %v", found, err)
	}
	if err := there.Put(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	copied, found, err := there.Device(t.Context(), id)
	if err != nil || !found {
		t.Fatalf("found %t, error %v", found, err)
	}
	asText := func(d linked.Device) string { text, _ := json.Marshal(d); return string(text) }
	if diff := cmp.Diff(asText(got), asText(copied)); diff != "" {
		t.Errorf("(-read +put and read):\n%s", diff)
	}
	if copied.Status != "disabled" || copied.StatusReason != "stolen" || !strings.Contains(string(copied.Authentication), string(secret)) {
		t.Errorf("lost on the way: %s", asText(copied))
	}
	if twinOf(t, from, id) != twinOf(t, to, id) {
		t.Errorf("twins differ: %s and %s", twinOf(t, from, id), twinOf(t, to, id))
	}

	if err := here.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, found, err := here.Device(t.Context(), id); found || err != nil {
		t.Errorf("after its deletion: found %t, error %v", found, err)
	}
	if err := here.Delete(t.Context(), id); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
}

func TestAnUpdateLeavesTheTwin(t *testing.T) {
	h := hubtest.New(t)
	l := link(t, h, "iothubowner")
	if found, err := l.Update(t.Context(), device("d1", "", "", "")); found || err != nil {
		t.Errorf("a device that is not there: found %t, error %v", found, err)
	}
	if err := l.Put(t.Context(), device("d1", `{"site":"berlin"}`, `{"rate":5}`, `{"firmware":"1.0"}`)); err != nil {
		t.Fatal(err)
	}
	before, generation := twinOf(t, h, "d1"), identity(t, h, "d1").GenerationID
	d := linked.Device{ID: "d1", Authentication: json.RawMessage(`{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"` + strings.Repeat("A", 40) + `"}}`)}
	if found, err := l.Update(t.Context(), d); !found || err != nil {
		t.Fatalf("found %t, error %v", found, err)
	}
	if after := twinOf(t, h, "d1"); after != before {
		t.Errorf("the twin was %s, and is %s", before, after)
	}
	if i := identity(t, h, "d1"); i.Auth.Type != hub.AuthSelfSigned || i.GenerationID != generation {
		t.Errorf("the identity has type %s and generation %s, want selfSigned and %s", i.Auth.Type, i.GenerationID, generation)
	}
}

func identity(t *testing.T, h *hubtest.Hub, id string) hub.Identity {
	t.Helper()
	i, err := h.Identity(hub.ID{Device: id})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// all makes every call once.
func all(t *testing.T, l *linked.Hub) map[string]error {
	_, _, get := l.Device(t.Context(), "d1")
	_, update := l.Update(t.Context(), device("d1", "", "", ""))
	return map[string]error{"Put": l.Put(t.Context(), device("d1", "", "", "")), "Device": get, "Update": update, "Delete": l.Delete(t.Context(), "d1")}
}

func TestErrorsAreOneLineWithoutSecrets(t *testing.T) {
	h := hubtest.New(t)
	wrong := h.Policy("iothubowner")
	wrong.SharedAccessKey = secret
	wrongKey, err := linked.New(wrong)
	if err != nil {
		t.Fatal(err)
	}
	wrongKey.Trust(h.RootCAs())
	untrusted, err := linked.New(h.Policy("iothubowner"))
	if err != nil {
		t.Fatal(err)
	}
	untrusted.Trust(hubtest.New(t).RootCAs())
	refused := h.Policy("iothubowner")
	refused.HostName = closedPort(t)
	down, err := linked.New(refused)
	if err != nil {
		t.Fatal(err)
	}
	down.SetPause(func(context.Context, time.Duration) error { return nil })
	for name, tt := range map[string]struct {
		hub  *linked.Hub
		want string
	}{
		"a policy that may not":  {link(t, h, "device"), `hub "localhost": it does not take the key of policy "device", or the policy may not change devices and twins (401)`},
		"a wrong key":            {wrongKey, `hub "localhost": it does not take the key of policy "iothubowner", or the policy may not change devices and twins (401)`},
		"no trust":               {untrusted, "certificate signed by unknown authority"},
		"nobody there":           {down, "connection refused"},
		"no hub that is a hub":   {answering(t, 200, "", "<html>"), "as documented"},
		"a hub that is too busy": {answering(t, 429, "", ""), `hub "127.0.0.1" answers 429 Too Many Requests`},
		"a hub with its own words": {
			answering(t, 403002, "", "{\"Message\":\"ErrorCode:IotHubQuotaExceeded;Total number of\\r\\ndevices\"}"),
			"devices",
		},
		"a long answer":                {answering(t, 200, "", strings.Repeat(" ", 2<<20)), "larger than"},
		"a redirect":                   {answering(t, 307, "https://elsewhere.example", ""), "307"},
		"a busy hub that names a year": {answering(t, 503, "31536000", ""), "503"},
	} {
		t.Run(name, func(t *testing.T) {
			for call, err := range all(t, tt.hub) {
				if call == "Delete" && tt.want == "as documented" || call == "Delete" && err == nil {
					continue
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) && name != "a hub with its own words" {
					t.Errorf("%s: %v, want %s", call, err, tt.want)
					continue
				}
				if text := err.Error(); strings.ContainsAny(text, "\r\n") || strings.Contains(text, string(secret)) || strings.Contains(text, "SharedAccess") || strings.Contains(text, "https://") {
					t.Errorf("%s says %q", call, text)
				}
			}
		})
	}
	if text := fmt.Sprintf("%v %+v %s", device("d1", "", "", ""), device("d1", "", "", ""), device("d1", "", "", "")); strings.Contains(text, string(secret)) {
		t.Errorf("a device prints as %s", text)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// answering is something that always answers the same: a status of HTTP, or the six
// digits that begin with it. The header is Location or Retry-After.
func answering(t *testing.T, status int, header, body string) *linked.Hub {
	t.Helper()
	return serving(t, func(w http.ResponseWriter, r *http.Request) {
		for status > 999 {
			status /= 1000
		}
		w.Header().Set("Location", header)
		w.Header().Set("Retry-After", header)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
}

func serving(t *testing.T, answer http.HandlerFunc) *linked.Hub {
	t.Helper()
	s := httptest.NewTLSServer(answer)
	t.Cleanup(s.Close)
	l, err := linked.New(sas.ConnectionString{HostName: s.Listener.Addr().String(), SharedAccessKeyName: "iothubowner", SharedAccessKey: secret})
	if err != nil {
		t.Fatal(err)
	}
	l.Trust(s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs)
	l.SetPause(func(ctx context.Context, d time.Duration) error { return context.Cause(ctx) })
	t.Cleanup(l.Close)
	return l
}

func TestWhatMayPassIsAskedAgain(t *testing.T) {
	real := hubtest.New(t)
	for _, trouble := range []int{429, 500, 503, 0} {
		var asked atomic.Int32
		l := serving(t, func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) < 3 {
				if trouble == 0 {
					panic(http.ErrAbortHandler) // the connection is cut
				}
				w.WriteHeader(trouble)
				return
			}
			fmt.Fprint(w, `{"isSuccessful":true,"errors":[]}`)
		})
		if err := l.Put(t.Context(), device("d1", "", "", "")); err != nil || asked.Load() != 3 {
			t.Errorf("%d: asked %d times: %v", trouble, asked.Load(), err)
		}
	}
	// A create whose answer is lost has been done: it is done again.
	var lost atomic.Bool
	answered := link(t, real, "iothubowner")
	l := serving(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && lost.CompareAndSwap(false, true) {
			if err := answered.Put(r.Context(), device("d1", `{"n":1}`, "", "")); err != nil {
				t.Error(err)
			}
			panic(http.ErrAbortHandler)
		}
		proxy(t, real, w, r)
	})
	if err := l.Put(t.Context(), device("d1", `{"n":1}`, `{}`, `{"r":1}`)); err != nil {
		t.Fatal(err)
	}
	if got, want := twinOf(t, real, "d1"), `[{"n":1},{},{"r":1}]`; got != want {
		t.Errorf("the twin is %s, want %s", got, want)
	}
}

// proxy hands a request to the real hub with a key that this takes.
func proxy(t *testing.T, h *hubtest.Hub, w http.ResponseWriter, r *http.Request) {
	c := h.Policy("iothubowner")
	token, err := sas.Sign(c.HostName, c.SharedAccessKeyName, c.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Error(err)
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host, r.RequestURI = "https", c.HostName, "", ""
	r.Header.Set("Authorization", token)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h.ClientTLS(), DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Error(err)
		w.WriteHeader(502)
		return
	}
	defer res.Body.Close()
	w.WriteHeader(res.StatusCode)
	if _, err := io.Copy(w, res.Body); err != nil {
		t.Error(err)
	}
}

func TestASilentHubIsGivenUp(t *testing.T) {
	reason := errors.New("the device has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	l := serving(t, func(w http.ResponseWriter, r *http.Request) {
		cancel(reason)
		<-release
	})
	defer close(release)
	if err := l.Put(ctx, device("d1", "", "", "")); !errors.Is(err, reason) {
		t.Errorf("a caller that has gone: %v", err)
	}
	ctx, stop := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("too slow for the test"))
	defer stop()
	start := time.Now()
	if _, _, err := l.Device(ctx, "d1"); err == nil || !strings.Contains(err.Error(), "too slow") || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestConnectionStringsOfLinkedHubs(t *testing.T) {
	for _, tt := range []struct {
		c    sas.ConnectionString
		name string // "" is refused
	}{
		{sas.ConnectionString{HostName: "My-Hub.azure-devices.net", SharedAccessKeyName: "iothubowner", SharedAccessKey: secret}, "my-hub.azure-devices.net"},
		{sas.ConnectionString{HostName: "hub:8443", SharedAccessKeyName: "p", SharedAccessKey: secret}, "hub"},
		{sas.ConnectionString{HostName: "[::1]:8443", SharedAccessKeyName: "p", SharedAccessKey: secret}, "::1"},
		{sas.ConnectionString{SharedAccessKeyName: "p", SharedAccessKey: secret}, ""},
		{sas.ConnectionString{HostName: "hub", SharedAccessKey: secret}, ""},
		{sas.ConnectionString{HostName: "hub", DeviceID: "d1", SharedAccessKey: secret}, ""},
		{sas.ConnectionString{HostName: "hub", SharedAccessKeyName: "p"}, ""},
		{sas.ConnectionString{HostName: "hub", SharedAccessKeyName: "p", SharedAccessKey: "no key of any kind"}, ""},
	} {
		l, err := linked.New(tt.c)
		switch {
		case tt.name == "" && (err == nil || strings.Contains(err.Error(), "no key of any kind")):
			t.Errorf("%v: %v", tt.c, err)
		case tt.name != "" && (err != nil || l.Name() != tt.name):
			t.Errorf("%v: %v, %v", tt.c, l, err)
		}
	}
}
