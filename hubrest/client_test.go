package hubrest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

const (
	hostName = "MyHub.azure-devices.net"
	ownerKey = sas.Key("b3duZXJrZXlvd25lcmtleW93bmVya2V5b3duZXJrZXk=")
)

// options returns the options of a client whose hub is srv.
func options(srv *httptest.Server) hubrest.Options {
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return hubrest.Options{
		ConnectionString: sas.ConnectionString{HostName: hostName, SharedAccessKeyName: "iothubowner", SharedAccessKey: ownerKey},
		Addr:             srv.Listener.Addr().String(),
		TLS:              &tls.Config{RootCAs: roots, ServerName: "example.com"},
	}
}

// newClient starts a server with this handler and returns a client of it that doesn't pause between attempts.
func newClient(t *testing.T, h http.HandlerFunc) *hubrest.Client {
	t.Helper()
	srv := newServer(t, h)
	c, err := hubrest.New(options(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.SetWait(func(ctx context.Context, _ time.Duration) error { return ctx.Err() })
	return c
}

func newServer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// A recorder keeps the requests that a handler saw.
type recorder struct {
	mu   sync.Mutex
	seen []*http.Request
	body []string
}

func (r *recorder) add(req *http.Request) int {
	b, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen, r.body = append(r.seen, req), append(r.body, string(b))
	return len(r.seen)
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

func TestEachRequestCarriesWhatTheServiceAsksFor(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		io.WriteString(w, `{}`)
	})
	for range 2 {
		if _, err := c.Device(t.Context(), "dev1"); err != nil {
			t.Fatal(err)
		}
	}
	req := rec.seen[0]
	token, err := sas.ParseToken(req.Header.Get("Authorization"))
	if err != nil {
		t.Fatal(err)
	}
	if !token.SignedBy(ownerKey) || !token.Covers("myhub.azure-devices.net") || token.Policy != "iothubowner" {
		t.Errorf("Authorization: %v", token)
	}
	if token.Resource != "myhub.azure-devices.net" {
		t.Errorf("signed resource is %q, want it in lower case", token.Resource)
	}
	if got := req.Header.Get("Request-Id"); len(got) != 36 || got == rec.seen[1].Header.Get("Request-Id") {
		t.Errorf("Request-Id %q, then %q", got, rec.seen[1].Header.Get("Request-Id"))
	}
	if got := req.UserAgent(); !strings.HasPrefix(got, "iotdm") {
		t.Errorf("User-Agent %q", got)
	}
	if got := req.Header.Get("Accept"); got != "application/json" {
		t.Errorf("Accept %q", got)
	}
	if want := "myhub.azure-devices.net"; req.Host != want {
		t.Errorf("Host %q, want %q", req.Host, want)
	}
}

func TestTheHostNameMayCarryAPort(t *testing.T) {
	var rec recorder
	srv := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		io.WriteString(w, `{}`)
	})
	o := options(srv)
	o.ConnectionString.HostName, o.Addr = srv.Listener.Addr().String(), ""
	c, err := hubrest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Device(t.Context(), "dev1"); err != nil {
		t.Fatal(err)
	}
	token, err := sas.ParseToken(rec.seen[0].Header.Get("Authorization"))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(srv.Listener.Addr().String(), ":", "%3A", 1); token.Resource != want {
		t.Errorf("signed resource is %q, want %q", token.Resource, want)
	}
}

// wireTest is one call and the request that must come of it.
type wireTest struct {
	name   string
	call   func(ctx context.Context, c *hubrest.Client) error
	answer string
	want   string // method, URI
	match  string // If-Match
	body   string
}

func TestCallsBecomeTheseRequests(t *testing.T) {
	for _, tt := range []wireTest{
		{
			name: "get a device whose id has every special character",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.Device(ctx, "a-:.+%_#*?!(),=@;$'Z")
				return err
			},
			want: "GET /devices/a-%3A.%2B%25_%23%2A%3F%21%28%29%2C%3D%40%3B%24%27Z?api-version=2021-04-12",
		},
		{
			name: "a slash in an id stays in its segment",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.Twin(ctx, hubrest.Target{DeviceID: "a/b", ModuleID: "é"})
				return err
			},
			want: "GET /twins/a%2Fb/modules/%C3%A9?api-version=2021-04-12",
		},
		{
			name: "create a device",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.CreateDevice(ctx, hubrest.Device{DeviceID: "dev1"})
				return err
			},
			want: "PUT /devices/dev1?api-version=2021-04-12",
			body: `{"deviceId":"dev1","cloudToDeviceMessageCount":0,"capabilities":{"iotEdge":false}}`,
		},
		{
			name: "update a device if its etag is this",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.UpdateDevice(ctx, hubrest.Device{DeviceID: "dev1", ETag: "MjQx", Status: hubrest.Disabled, StatusReason: "<why> & how",
					Authentication: hubrest.Authentication{Type: hubrest.AuthSAS, SymmetricKey: hubrest.SymmetricKey{PrimaryKey: "AAAA", SecondaryKey: "BBBB"}}})
				return err
			},
			want:  "PUT /devices/dev1?api-version=2021-04-12",
			match: `"MjQx"`,
			body: `{"deviceId":"dev1","etag":"MjQx","status":"disabled","statusReason":"<why> & how","cloudToDeviceMessageCount":0,` +
				`"authentication":{"symmetricKey":{"primaryKey":"AAAA","secondaryKey":"BBBB"},"type":"sas"},"capabilities":{"iotEdge":false}}`,
		},
		{
			name: "update a device in any case",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.UpdateDevice(ctx, hubrest.Device{DeviceID: "dev1"})
				return err
			},
			want:  "PUT /devices/dev1?api-version=2021-04-12",
			match: `*`,
			body:  `{"deviceId":"dev1","cloudToDeviceMessageCount":0,"capabilities":{"iotEdge":false}}`,
		},
		{
			name:  "delete a device if its etag is this, quoted already",
			call:  func(ctx context.Context, c *hubrest.Client) error { return c.DeleteDevice(ctx, "dev1", `"MjQx"`) },
			want:  "DELETE /devices/dev1?api-version=2021-04-12",
			match: `"MjQx"`,
		},
		{
			name:  "delete a device in any case",
			call:  func(ctx context.Context, c *hubrest.Client) error { return c.DeleteDevice(ctx, "dev1", "") },
			want:  "DELETE /devices/dev1?api-version=2021-04-12",
			match: `*`,
		},
		{
			name:   "list devices",
			call:   func(ctx context.Context, c *hubrest.Client) error { _, err := c.Devices(ctx, 0); return err },
			answer: `[]`,
			want:   "GET /devices?api-version=2021-04-12",
		},
		{
			name:   "list some devices",
			call:   func(ctx context.Context, c *hubrest.Client) error { _, err := c.Devices(ctx, 7); return err },
			answer: `[]`,
			want:   "GET /devices?api-version=2021-04-12&top=7",
		},
		{
			name: "patch tags only",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.PatchTwin(ctx, hubrest.Target{DeviceID: "dev1"}, hubrest.TwinChange{Tags: map[string]any{"floor": nil}})
				return err
			},
			want:  "PATCH /twins/dev1?api-version=2021-04-12",
			match: `*`,
			body:  `{"tags":{"floor":null}}`,
		},
		{
			name: "patch desired properties of a module, numbers as they are written",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.PatchTwin(ctx, hubrest.Target{DeviceID: "dev1", ModuleID: "m1"},
					hubrest.TwinChange{Desired: json.RawMessage(`{"z":4503599627370495,"a":1.10,"b":"<&>"}`), ETag: "AAAAAAAAAAI="})
				return err
			},
			want:  "PATCH /twins/dev1/modules/m1?api-version=2021-04-12",
			match: `"AAAAAAAAAAI="`,
			body:  `{"properties":{"desired":{"z":4503599627370495,"a":1.10,"b":"<&>"}}}`,
		},
		{
			name: "replace a twin",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.ReplaceTwin(ctx, hubrest.Target{DeviceID: "dev1"}, hubrest.TwinChange{Tags: json.RawMessage(`{}`), Desired: json.RawMessage(`{"a":1}`)})
				return err
			},
			want:  "PUT /twins/dev1?api-version=2021-04-12",
			match: `*`,
			body:  `{"tags":{},"properties":{"desired":{"a":1}}}`,
		},
		{
			name: "call a method with all defaults",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.InvokeMethod(ctx, hubrest.Target{DeviceID: "dev1"}, hubrest.Method{Name: "reboot"})
				return err
			},
			want: "POST /twins/dev1/methods?api-version=2021-04-12",
			body: `{"methodName":"reboot","payload":null,"responseTimeoutInSeconds":30,"connectTimeoutInSeconds":0}`,
		},
		{
			name: "call a method of a module",
			call: func(ctx context.Context, c *hubrest.Client) error {
				_, err := c.InvokeMethod(ctx, hubrest.Target{DeviceID: "dev1", ModuleID: "m1"}, hubrest.Method{
					Name: "reboot", Payload: json.RawMessage(`{"delay":5.0}`), ResponseTimeout: 5*time.Second + 1, ConnectTimeout: time.Second})
				return err
			},
			want: "POST /twins/dev1/modules/m1/methods?api-version=2021-04-12",
			body: `{"methodName":"reboot","payload":{"delay":5.0},"responseTimeoutInSeconds":6,"connectTimeoutInSeconds":1}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t) })
	}
}

func (tt wireTest) run(t *testing.T) {
	var rec recorder
	if tt.answer == "" {
		tt.answer = `{}`
	}
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		io.WriteString(w, tt.answer)
	})
	if err := tt.call(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	req := rec.seen[0]
	if diff := cmp.Diff(tt.want, req.Method+" "+req.RequestURI); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if got := req.Header.Get("If-Match"); got != tt.match {
		t.Errorf("If-Match %s, want %s", got, tt.match)
	}
	if diff := cmp.Diff(tt.body, rec.body[0]); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	contentType := ""
	if tt.body != "" {
		contentType = "application/json; charset=utf-8"
	}
	if got := req.Header.Get("Content-Type"); got != contentType {
		t.Errorf("Content-Type %q, want %q", got, contentType)
	}
}

func TestIDsThatAreNoPathSegmentsNeverLeave(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) { rec.add(req) })
	for _, id := range []string{"", ".", ".."} {
		if err := c.DeleteDevice(t.Context(), id, ""); err == nil {
			t.Errorf("DeleteDevice(%q) went through", id)
		}
	}
	if n := rec.count(); n != 0 {
		t.Errorf("%d requests were sent, want none", n)
	}
}

func TestNewRefusesWhatIsNoServiceConnectionString(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		cs         sas.ConnectionString
	}{
		{"without a host", "connection string: HostName is missing", sas.ConnectionString{}},
		{"of a device", `connection string: it is that of device "dev1"; a service needs one with SharedAccessKeyName`,
			sas.ConnectionString{HostName: "h", DeviceID: "dev1", SharedAccessKey: ownerKey}},
		{"without a policy", "connection string: SharedAccessKeyName is missing", sas.ConnectionString{HostName: "h", SharedAccessKey: ownerKey}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := hubrest.New(hubrest.Options{ConnectionString: tt.cs})
			if err == nil || err.Error() != tt.want {
				t.Errorf("New: %v, want %s", err, tt.want)
			}
		})
	}
}

func TestAnUntrustedCertificateIsRefusedAtOnce(t *testing.T) {
	srv := newServer(t, func(w http.ResponseWriter, req *http.Request) { t.Error("the request was sent") })
	o := options(srv)
	o.TLS = nil
	c, err := hubrest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.SetWait(func(context.Context, time.Duration) error { t.Error("the request was repeated"); return nil })
	_, err = c.Device(t.Context(), "dev1")
	var cert *tls.CertificateVerificationError
	if !errors.As(err, &cert) {
		t.Errorf("Device: %v, want a certificate error", err)
	}
}
