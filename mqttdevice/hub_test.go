package mqttdevice_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

var transports = []mqttdevice.Transport{mqttdevice.TCP, mqttdevice.WebSocket}

// start returns a client of h, not connected, and its events. It is closed with the test.
func start(t *testing.T, h *hubtest.Hub, conn sas.ConnectionString, opt mqttdevice.Options) (*mqttdevice.Client, chan mqttdevice.State) {
	t.Helper()
	events := make(chan mqttdevice.State, 1024)
	opt.ConnectionString, opt.Addr, opt.TLS = conn, addrOf(h, opt.Transport), h.ClientTLS()
	opt.OnState = func(s mqttdevice.State) { events <- s }
	c, err := mqttdevice.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, events
}

func addrOf(h *hubtest.Hub, transport mqttdevice.Transport) string {
	if transport == mqttdevice.WebSocket {
		return h.HTTPSAddr
	}
	return h.MQTTSAddr
}

func connect(t *testing.T, c *mqttdevice.Client) {
	t.Helper()
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// await returns the next event with the given status.
func await(t *testing.T, events chan mqttdevice.State, want mqttdevice.Status) mqttdevice.State {
	t.Helper()
	var last mqttdevice.State
	for limit := time.After(time.Minute); ; {
		select {
		case last = <-events:
			if last.Status == want {
				return last
			}
		case <-limit:
			t.Fatalf("not %v within a minute; the last event was %+v", want, last)
		}
	}
}

func echo(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
	return mqttdevice.Response{Status: 201, Payload: m.Payload}
}

// invoke calls a direct method and returns the device's status and payload.
func invoke(t *testing.T, h *hubtest.Hub, id hub.ID, name, payload string) (string, error) {
	t.Helper()
	call := hub.MethodCall{Name: name, ResponseTimeout: 30 * time.Second, ConnectTimeout: 30 * time.Second}
	if payload != "" {
		call.Payload = json.RawMessage(payload)
	}
	r, err := h.InvokeMethod(t.Context(), id, call)
	return fmt.Sprint(r.Status, " ", string(r.Payload)), err
}

func TestMethodsFromARealHub(t *testing.T) {
	h := hubtest.New(t)
	device, module := h.Device("dev+1#%$"), h.Module("dev-2", "mod-1")
	for i, conn := range []sas.ConnectionString{device, module, device, module} {
		c, _ := start(t, h, conn, mqttdevice.Options{Transport: transports[i/2]})
		c.HandleMethod("echo", echo)
		c.HandleMethod("comp*echo", echo)
		connect(t, c)
		id := hub.ID{Device: conn.DeviceID, Module: conn.ModuleID}
		for _, tt := range []struct{ method, payload, want string }{
			{"echo", `{"a":[1,"ü"]}`, `201 {"a":[1,"ü"]}`},
			{"comp*echo", `"x"`, `201 "x"`},
			{"echo", "", "201 null"},
			{"unknown", "{}", `501 {"message":"no such method"}`},
		} {
			got, err := invoke(t, h, id, tt.method, tt.payload)
			if err != nil || got != tt.want {
				t.Errorf("%v: %s(%s) is %q, error %v, want %q", id, tt.method, tt.payload, got, err, tt.want)
			}
		}
	}
}

func TestTwinOfARealHub(t *testing.T) {
	h := hubtest.New(t)
	id := hub.ID{Device: "dev-1"}
	c, _ := start(t, h, h.Device("dev-1"), mqttdevice.Options{})
	connect(t, c)
	version, err := c.PatchReported(t.Context(), map[string]any{"level": 55, "gone": true})
	if err != nil || version != 2 {
		t.Errorf("first patch: version %d, error %v, want 2", version, err)
	}
	version, err = c.PatchReported(t.Context(), map[string]any{"gone": nil})
	if err != nil || version != 3 {
		t.Errorf("second patch: version %d, error %v, want 3", version, err)
	}
	if _, err := h.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"every":"5m"}`)}, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Twin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := mqttdevice.Twin{
		Desired: json.RawMessage(`{"every":"5m"}`), DesiredVersion: 2,
		Reported: json.RawMessage(`{"level":55}`), ReportedVersion: 3,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("twin (-want +got):\n%s", diff)
	}

	var refused *mqttdevice.Error
	if _, err := c.PatchReported(t.Context(), map[string]any{"a": []any{nil}}); !errors.As(err, &refused) {
		t.Fatalf("a null in an array: error %v, want an *Error", err)
	}
	if refused.Status != 400 || refused.Code != 400004 || refused.Message == "" || refused.TrackingID == "" {
		t.Errorf("a null in an array: %+v, want 400, 400004 and words", refused)
	}
}

func TestDesiredPropertiesOfARealHub(t *testing.T) {
	h := hubtest.New(t)
	id, conn := hub.ID{Device: "dev-1"}, h.Device("dev-1")
	patch := func(desired string) {
		t.Helper()
		if _, err := h.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(desired)}, hub.Match{Any: true}); err != nil {
			t.Fatal(err)
		}
	}
	c, events := start(t, h, conn, mqttdevice.Options{})
	seen := make(chan string, 100)
	c.HandleDesired(func(_ context.Context, d mqttdevice.Desired) { seen <- fmt.Sprint(d.Version, " ", string(d.Patch)) })
	expect := func(want string) {
		t.Helper()
		if diff := cmp.Diff(want, <-seen); diff != "" {
			t.Errorf("change (-want +got):\n%s", diff)
		}
	}
	patch(`{"a":1,"b":{"c":2}}`)
	connect(t, c)
	expect(`2 {"a":1,"b":{"c":2}}`)
	patch(`{"a":null,"b":{"d":3}}`)
	expect(`3 {"a":null,"b":{"d":3}}`)

	// Another program takes the connection. Until it is gone the device is away.
	other, _ := start(t, h, conn, mqttdevice.Options{})
	connect(t, other)
	patch(`{"b":{"c":null}}`)
	patch(`{"e":4}`)
	if got := await(t, events, mqttdevice.Disconnected); got.Reason == nil || !strings.Contains(got.Reason.Error(), "the hub closed the connection") {
		t.Errorf("event %+v, want one that says who closed the connection", got)
	}
	other.Close()
	expect(`5 {"b":{"c":null},"e":4}`)
	patch(`{"e":5}`)
	expect(`6 {"e":5}`)
}

func TestTelemetryToARealHub(t *testing.T) {
	h := hubtest.New(t)
	for _, conn := range []sas.ConnectionString{h.Device("dev-1"), h.Module("dev-1", "mod-1")} {
		c, _ := start(t, h, conn, mqttdevice.Options{})
		connect(t, c)
		m := mqttdevice.Message{Payload: []byte(`{"t":21.5}`), ID: "m-1", ContentType: "application/json", Properties: map[string]string{"a b": "c/d"}}
		if err := c.Send(t.Context(), m); err != nil {
			t.Errorf("%s: %v", conn.ModuleID, err)
		}
	}
}

func TestMessagesFromARealHub(t *testing.T) {
	const device = "dev+1#%$"
	for _, transport := range transports {
		h := hubtest.New(t)
		c, _ := start(t, h, h.Device(device), mqttdevice.Options{Transport: transport})
		seen, verdict := make(chan mqttdevice.CloudToDeviceMessage), make(chan error)
		c.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
			seen <- m
			return <-verdict
		})
		sent := hub.Message{
			MessageID: "m-1", CorrelationID: "c-1", UserID: "u/1", ContentType: "text/plain", ContentEncoding: "utf-8", Ack: hub.AckFull,
			Properties: []hub.Property{{Name: "a b", Value: "c/d&e=+"}, {Name: "empty"}}, Body: []byte("hello"),
		}
		if err := h.SendMessage(device, sent); err != nil { // it waits for the device
			t.Fatal(err)
		}
		connect(t, c)
		want := mqttdevice.CloudToDeviceMessage{
			Payload: []byte("hello"), ID: "m-1", CorrelationID: "c-1", UserID: "u/1", ContentType: "text/plain", ContentEncoding: "utf-8",
			To: "/devices/" + device + "/messages/deviceBound", Ack: "full",
			Properties: map[string]string{"a b": "c/d&e=+", "empty": ""},
		}
		if diff := cmp.Diff(want, <-seen, cmpopts.IgnoreFields(want, "Expiry")); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}

		// What the device could not deal with comes again upon the next connection.
		verdict <- errors.New("not now")
		c.Close()
		again, _ := start(t, h, h.Device(device), mqttdevice.Options{Transport: transport})
		handled := make(chan string, 10)
		again.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
			handled <- m.ID
			return nil
		})
		connect(t, again)
		if got := <-handled; got != "m-1" {
			t.Errorf("message %q, want m-1 again", got)
		}
		again.Close()
		// The acknowledgement went out before DISCONNECT, so the hub gets to know.
		for {
			batch, ok, err := h.ReceiveFeedback()
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				if got := batch.Records[0]; got.OriginalMessageID != "m-1" || got.StatusCode != "Success" {
					t.Errorf("feedback %+v, want success for m-1", got)
				}
				break
			}
			runtime.Gosched()
		}
	}
}

func TestModelOfARealHub(t *testing.T) {
	h := hubtest.New(t)
	const model = "dtmi:com:example:Thermostat;1"
	c, _ := start(t, h, h.Device("dev-1"), mqttdevice.Options{ModelID: model})
	connect(t, c)
	view, err := h.Twin(hub.ID{Device: "dev-1"})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(view)
	if err != nil || !strings.Contains(string(doc), `"modelId":"`+model+`"`) {
		t.Errorf("twin %s, %v, want the model", doc, err)
	}
}

func TestCredentialsRefusedByARealHub(t *testing.T) {
	h := hubtest.New(t)
	good := h.Device("dev-1")
	wrong, unknown, disabled := good, good, h.Device("disabled")
	wrong.SharedAccessKey = sas.NewKey()
	unknown.DeviceID = "unknown"
	if _, err := h.PutIdentity(hub.ID{Device: "disabled"}, hub.IdentitySpec{Status: hub.StatusDisabled}, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	late := mqttdevice.Options{Now: func() time.Time { return time.Now().Add(-2 * time.Hour) }}
	tests := []struct {
		name string
		conn sas.ConnectionString
		opt  mqttdevice.Options
	}{
		{"a wrong key", wrong, mqttdevice.Options{}},
		{"an unknown device", unknown, mqttdevice.Options{}},
		{"a disabled device", disabled, mqttdevice.Options{}},
		{"a clock that is late", good, late},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := start(t, h, tt.conn, tt.opt)
			if err := c.Connect(t.Context()); !errors.Is(err, mqttdevice.ErrUnauthorized) {
				t.Errorf("Connect returned %v, want %v", err, mqttdevice.ErrUnauthorized)
			}
		})
	}
}

func TestLargestPayloadsOfARealHub(t *testing.T) {
	h := hubtest.New(t)
	id := hub.ID{Device: "dev-1"}
	c, events := start(t, h, h.Device("dev-1"), mqttdevice.Options{})
	c.HandleMethod("echo", echo)
	c.HandleMethod("more", func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Payload: string(m.Payload)} // two quotes and more
	})
	connect(t, c)
	await(t, events, mqttdevice.Connected)

	const message, method = 256 << 10, 128 << 10
	if err := c.Send(t.Context(), mqttdevice.Message{Payload: make([]byte, message)}); err != nil {
		t.Errorf("the largest message: %v", err)
	}
	if err := c.Send(t.Context(), mqttdevice.Message{Payload: make([]byte, message+1)}); !errors.Is(err, mqttdevice.ErrTooLarge) {
		t.Errorf("a byte more: %v, want %v", err, mqttdevice.ErrTooLarge)
	}
	largest := `"` + strings.Repeat("x", method-2) + `"`
	if got, err := invoke(t, h, id, "echo", largest); err != nil || got != "201 "+largest {
		t.Errorf("the largest answer of a method: %.80q, error %v", got, err)
	}
	if got, err := invoke(t, h, id, "more", largest); err != nil || !strings.HasPrefix(got, "500 ") || !strings.Contains(got, "128 KiB") {
		t.Errorf("an answer that is larger: %.80q, error %v, want 500", got, err)
	}
	patch := func(size int) error { // of JSON text
		_, err := c.PatchReported(t.Context(), json.RawMessage(`{"a":"`+strings.Repeat("x", size-8)+`"}`))
		return err
	}
	var refused *mqttdevice.Error
	if err := patch(message); !errors.As(err, &refused) {
		t.Errorf("a patch that is too large for the twin: %v, want an *Error", err)
	}
	if err := patch(message + 1); !errors.Is(err, mqttdevice.ErrTooLarge) {
		t.Errorf("a patch that is too large to be sent: %v, want %v", err, mqttdevice.ErrTooLarge)
	}
	select {
	case got := <-events:
		t.Errorf("event %+v, want the connection to last", got)
	default:
	}
}

func TestKeyChangedOnARealHub(t *testing.T) {
	h := hubtest.New(t)
	c, events := start(t, h, h.Device("dev-1"), mqttdevice.Options{})
	connect(t, c)
	keys := hub.SymmetricKey{Primary: sas.NewKey(), Secondary: sas.NewKey()}
	spec := hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthSAS, SymmetricKey: keys}}
	if _, err := h.PutIdentity(hub.ID{Device: "dev-1"}, spec, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	await(t, events, mqttdevice.Disconnected) // dropped
	if got := await(t, events, mqttdevice.Disconnected); !errors.Is(got.Reason, mqttdevice.ErrUnauthorized) || got.Retry == 0 {
		t.Errorf("event %+v, want %v and a retry", got, mqttdevice.ErrUnauthorized)
	}
}

// A service that lets its calls wait for the device notices nothing of renewals. One that does not is
// told at once that the device is away, for as long as a renewal takes.
func TestTokensAreRenewedUnderLoad(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.String(), func(t *testing.T) {
			h := hubtest.New(t)
			id := hub.ID{Device: "dev-1"}
			c, events := start(t, h, h.Device("dev-1"), mqttdevice.Options{TokenLife: time.Second, Transport: transport})
			c.HandleMethod("echo", echo)
			connect(t, c)
			await(t, events, mqttdevice.Connected)

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var wg sync.WaitGroup
			var patient, away atomic.Int64
			var gap atomic.Int64 // the longest, in nanoseconds
			for range 2 {
				wg.Go(func() {
					for ctx.Err() == nil {
						got, err := invoke(t, h, id, "echo", "1")
						if err != nil || got != "201 1" {
							t.Errorf("method with a connect timeout: %q, error %v", got, err)
						}
						patient.Add(1)
					}
				})
				wg.Go(func() {
					last := time.Now()
					for ctx.Err() == nil {
						call := hub.MethodCall{Name: "echo", ResponseTimeout: 30 * time.Second, Payload: json.RawMessage("2")}
						r, err := h.InvokeMethod(t.Context(), id, call)
						if err == nil && string(r.Payload) != "2" || err != nil && !errors.Is(err, hub.ErrDeviceNotOnline) {
							t.Errorf("method without a connect timeout: %q, error %v", r.Payload, err)
						}
						if err != nil {
							away.Add(1)
							gap.Store(max(gap.Load(), int64(time.Since(last))))
						} else {
							last = time.Now()
						}
					}
				})
				wg.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if _, err := c.PatchReported(ctx, map[string]int{"n": i}); err != nil && ctx.Err() == nil {
							t.Errorf("reported: %v", err)
						}
					}
				})
			}
			for range 3 {
				if got := <-events; got.Status != mqttdevice.Connecting {
					t.Errorf("event %+v, want no loss of the connection", got)
				}
				await(t, events, mqttdevice.Connected)
			}
			cancel()
			wg.Wait()
			t.Logf("over three renewals: %d calls with a connect timeout answered; %d without refused, for %v at most",
				patient.Load(), away.Load(), time.Duration(gap.Load()))
		})
	}
}

func TestRealHubRestarts(t *testing.T) {
	opt := hubtest.WithOptions(node.Options{Storage: node.Folder(t.TempDir())})
	h := hubtest.New(t, opt)
	c, events := start(t, h, h.Device("dev-1"), mqttdevice.Options{})
	c.HandleMethod("echo", echo)
	connect(t, c)
	await(t, events, mqttdevice.Connected)
	h.Close()
	await(t, events, mqttdevice.Disconnected)
	h = hubtest.New(t, opt, hubtest.WithAddrs(h.MQTTSAddr, h.HTTPSAddr))
	await(t, events, mqttdevice.Connected)
	if got, err := invoke(t, h, hub.ID{Device: "dev-1"}, "echo", "1"); err != nil || got != "201 1" {
		t.Errorf("method after the restart: %q, error %v, want 201 1", got, err)
	}
}

// certified registers dev-1 with a self-signed certificate that ends then, and returns what to connect
// with.
func certified(t *testing.T, h *hubtest.Hub, end time.Time) (sas.ConnectionString, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "dev-1"},
		NotBefore:    end.Add(-2 * time.Hour),
		NotAfter:     end,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := fmt.Sprintf("%x", sha256.Sum256(der))
	auth := hub.Authentication{Type: hub.AuthSelfSigned, X509: hub.X509Thumbprint{Primary: &thumbprint}}
	if _, err := h.PutIdentity(hub.ID{Device: "dev-1"}, hub.IdentitySpec{Auth: auth}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	config := h.ClientTLS()
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return sas.ConnectionString{HostName: h.HostName, DeviceID: "dev-1", X509: true}, config
}

func TestCertificateInsteadOfAKey(t *testing.T) {
	h := hubtest.New(t)
	conn, config := certified(t, h, time.Now().Add(time.Hour))
	for _, tls12 := range []bool{false, true} {
		if tls12 {
			config.MaxVersion = tls.VersionTLS12
		}
		for _, transport := range transports {
			c, err := mqttdevice.New(mqttdevice.Options{
				ConnectionString: conn,
				Transport:        transport,
				Addr:             addrOf(h, transport),
				TLS:              config,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			connect(t, c)
			if _, err := c.Twin(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestHostNameWithPort(t *testing.T) {
	h := hubtest.New(t)
	_, port, err := net.SplitHostPort(h.MQTTSAddr)
	if err != nil {
		t.Fatal(err)
	}
	conn := h.Device("dev-1")
	conn.HostName = net.JoinHostPort("127.0.0.1", port)
	c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: conn, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	connect(t, c)
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	h := hubtest.New(t)
	conn := h.Device("dev-1")
	before := runtime.NumGoroutine()
	for i := range 6 {
		c, _ := start(t, h, conn, mqttdevice.Options{Transport: transports[i%2]})
		c.HandleDesired(func(context.Context, mqttdevice.Desired) {})
		c.HandleMessage(func(context.Context, mqttdevice.CloudToDeviceMessage) error { return nil })
		connect(t, c)
		if _, err := c.Twin(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	// The runtime takes a moment to clear away what has ended, as does the hub.
	for began := time.Now(); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Since(began) > 10*time.Second {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
