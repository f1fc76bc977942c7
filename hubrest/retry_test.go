package hubrest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/wait"
)

// misbehave answers the nth request (from 1) with the nth step: a status, "cut" (the request was read, the connection
// ends), "torn" (half an answer) or "ok" with a body; after the last step it goes on with "ok".
func misbehave(rec *recorder, body string, steps ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		n := rec.add(req)
		step := "ok"
		if n <= len(steps) {
			step = steps[n-1]
		}
		switch step {
		case "ok":
			io.WriteString(w, body)
		case "torn":
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, body)
		case "cut":
			panic(http.ErrAbortHandler)
		case "429":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
		default:
			status := map[string]int{"400": 400, "404": 404, "408": 408, "412": 412, "500": 500, "502": 502, "503": 503, "504": 504}[step]
			w.WriteHeader(status)
		}
	}
}

func TestOnlyWhatIsSafeIsRepeated(t *testing.T) {
	dev := hubrest.Target{DeviceID: "dev1"}
	get := func(ctx context.Context, c *hubrest.Client) error { _, err := c.Device(ctx, "dev1"); return err }
	create := func(ctx context.Context, c *hubrest.Client) error {
		_, err := c.CreateDevice(ctx, hubrest.Device{DeviceID: "dev1"})
		return err
	}
	force := func(ctx context.Context, c *hubrest.Client) error {
		_, err := c.UpdateDevice(ctx, hubrest.Device{DeviceID: "dev1"})
		return err
	}
	update := func(ctx context.Context, c *hubrest.Client) error {
		_, err := c.UpdateDevice(ctx, hubrest.Device{DeviceID: "dev1", ETag: "a"})
		return err
	}
	patch := func(ctx context.Context, c *hubrest.Client) error {
		_, err := c.PatchTwin(ctx, dev, hubrest.TwinChange{Tags: map[string]int{}})
		return err
	}
	patchIf := func(ctx context.Context, c *hubrest.Client) error {
		_, err := c.PatchTwin(ctx, dev, hubrest.TwinChange{Tags: map[string]int{}, ETag: "a"})
		return err
	}
	remove := func(ctx context.Context, c *hubrest.Client) error { return c.DeleteDevice(ctx, "dev1", "") }
	invoke := func(ctx context.Context, c *hubrest.Client) error {
		_, err := c.InvokeMethod(ctx, dev, hubrest.Method{Name: "reboot"})
		return err
	}
	for _, tt := range []struct {
		name  string
		call  func(context.Context, *hubrest.Client) error
		steps string
		sent  int
		ok    bool
	}{
		{"a read goes through every trouble", get, "429 408 500 502", 5, true},
		{"a read goes through cut connections", get, "cut torn 503 504", 5, true},
		{"a read gives up at last", get, "500 500 500 500 500", 5, false},
		{"a read is not repeated when the hub knows why not", get, "400", 1, false},
		{"a throttled create is repeated", create, "429 429", 3, true},
		{"a create is not repeated after a cut connection", create, "cut", 1, false},
		{"a create is not repeated after half an answer", create, "torn", 1, false},
		{"a create is not repeated after an error of the hub", create, "500", 1, false},
		{"an unconditional update is repeated", force, "cut 500", 3, true},
		{"a throttled conditional update is repeated", update, "429", 2, true},
		{"a conditional update is not repeated after a cut connection", update, "cut", 1, false},
		{"an unconditional patch is repeated", patch, "cut 503", 3, true},
		{"a conditional patch is not repeated after an error of the hub", patchIf, "503", 1, false},
		{"a delete is repeated", remove, "cut 500", 3, true},
		{"a delete whose first attempt may have worked need find nothing", remove, "cut 404", 2, true},
		{"a delete that was only throttled must find something", remove, "429 404", 2, false},
		{"a delete must find something", remove, "404", 1, false},
		{"a method is sent once to a hub that is throttling", invoke, "429", 1, false},
		{"a method is sent once to a hub that is busy", invoke, "503", 1, false},
		{"a method is sent once on a cut connection", invoke, "cut", 1, false},
		{"a method is sent once when the answer is torn", invoke, "torn", 1, false},
		{"a method is sent once when the device is slow", invoke, "504", 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, reused := range []bool{false, true} {
				var rec recorder
				steps := strings.Fields(tt.steps)
				if reused { // the first request leaves its connection behind
					steps = append([]string{"ok"}, steps...)
				}
				c := newClient(t, misbehave(&rec, `{}`, steps...))
				want := tt.sent
				if reused {
					want++
					if _, err := c.Device(t.Context(), "dev0"); err != nil {
						t.Fatal(err)
					}
				}
				err := tt.call(t.Context(), c)
				if (err == nil) != tt.ok {
					t.Errorf("on a reused connection %t: error %v, want success %t", reused, err, tt.ok)
				}
				// On a reused connection the transport itself may repeat a GET once more.
				if n := rec.count(); n != want && !(reused && tt.steps[0] == 'c' && rec.seen[1].Method == http.MethodGet) {
					t.Errorf("on a reused connection %t: %d requests were sent, want %d", reused, n, want)
				}
			}
		})
	}
}

func TestAMethodThatCouldNotBeSentIsTriedAgain(t *testing.T) {
	var rec recorder
	srv := newServer(t, misbehave(&rec, `{"status":200,"payload":1}`))
	// Nobody listens on the address the client begins with.
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	o := options(srv)
	real := o.Addr
	o.Addr = closed.Addr().String()
	c, err := hubrest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pauses := 0
	c.SetWait(func(context.Context, time.Duration) error {
		if pauses++; pauses == 2 {
			c.SetAddr(real)
		}
		return nil
	})
	a, err := c.InvokeMethod(t.Context(), hubrest.Target{DeviceID: "dev1"}, hubrest.Method{Name: "reboot"})
	if err != nil || a.Status != 200 {
		t.Errorf("InvokeMethod: %v, %v", a, err)
	}
	if n := rec.count(); n != 1 || pauses != 2 {
		t.Errorf("%d requests after %d pauses, want 1 after 2", n, pauses)
	}
}

func TestPausesGrowAndHonourRetryAfter(t *testing.T) {
	var rec recorder
	c := newClient(t, misbehave(&rec, `{}`, "500", "500", "429", "500"))
	var got []time.Duration
	c.SetWait(func(_ context.Context, d time.Duration) error { got = append(got, d); return nil })
	if _, err := c.Device(t.Context(), "dev1"); err != nil {
		t.Fatal(err)
	}
	ms := time.Millisecond
	want := [][2]time.Duration{{125 * ms, 375 * ms}, {250 * ms, 750 * ms}, {7500 * ms, 8500 * ms}, {1000 * ms, 3000 * ms}}
	for i, w := range want {
		if len(got) != len(want) || got[i] < w[0] || got[i] > w[1] {
			t.Fatalf("pauses %v, want %v", got, want)
		}
	}
}

func TestNobodyWaitsLongerThanMakesSense(t *testing.T) {
	for _, tt := range []struct {
		name       string
		retryAfter string
		deadline   time.Duration
	}{
		{"when the hub asks for an hour", "3600", time.Hour},
		{"when the hub asks for an hour, as a date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 2 * time.Hour},
		{"when the caller's time ends before", "60", 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("Retry-After", tt.retryAfter)
				w.WriteHeader(429)
			})
			c.SetWait(func(_ context.Context, d time.Duration) error { t.Errorf("pause of %v", d); return nil })
			ctx, cancel := context.WithTimeout(t.Context(), tt.deadline)
			defer cancel()
			_, err := c.Device(ctx, "dev1")
			var refusal *hubrest.Error
			if !errors.As(err, &refusal) || refusal.Status != 429 {
				t.Errorf("Device: %v, want the refusal", err)
			}
		})
	}
}

func TestCallersMayCancel(t *testing.T) {
	reason := errors.New("changed my mind")
	t.Run("while the hub is thinking", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
			cancel(reason)
			<-req.Context().Done()
			panic(http.ErrAbortHandler) // an empty answer might still reach who has gone
		})
		if _, err := c.Device(ctx, "dev1"); !errors.Is(err, reason) {
			t.Errorf("Device: %v, want %v", err, reason)
		}
	})
	t.Run("between attempts", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		c := newClient(t, func(w http.ResponseWriter, req *http.Request) { w.WriteHeader(503) })
		c.SetWait(func(ctx context.Context, d time.Duration) error { cancel(reason); return wait.For(ctx, time.Hour) })
		if _, err := c.Device(ctx, "dev1"); !errors.Is(err, reason) {
			t.Errorf("Device: %v, want %v", err, reason)
		}
	})
}

func TestASilentHubTimesOut(t *testing.T) {
	var calls atomic.Int32
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		calls.Add(1)
		<-req.Context().Done()
		panic(http.ErrAbortHandler)
	})
	err := c.Do(t.Context(), http.MethodGet, time.Millisecond)
	if !errors.Is(err, hubrest.ErrTimedOut) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrTimedOut", err)
	}
	if n := calls.Load(); n > 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestAHugeAnswerIsRefused(t *testing.T) {
	var rec recorder
	c := newClient(t, misbehave(&rec, `{"deviceId":"`+strings.Repeat("x", 1000)+`"}`))
	c.SetMaxBody(1000)
	_, err := c.Device(t.Context(), "dev1")
	if err == nil || err.Error() != `get device "dev1": the hub's answer is larger than 1000 bytes` {
		t.Errorf("Device: %v", err)
	}
	if rec.count() != 1 {
		t.Errorf("%d requests, want 1", rec.count())
	}
}

func TestAnAnswerThatIsNoJSONIsAnError(t *testing.T) {
	var rec recorder
	c := newClient(t, misbehave(&rec, `<html>`))
	_, err := c.Device(t.Context(), "dev1")
	want := `get device "dev1": the hub's answer (200) is not as documented: invalid character '<' looking for beginning of value`
	if err == nil || err.Error() != want {
		t.Errorf("Device: %v, want %s", err, want)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	other := newServer(t, func(w http.ResponseWriter, req *http.Request) { t.Errorf("got %v", req.Header) })
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		http.Redirect(w, req, other.URL, http.StatusTemporaryRedirect)
	})
	_, err := c.Device(t.Context(), "dev1")
	var refusal *hubrest.Error
	if !errors.As(err, &refusal) || refusal.Status != 307 {
		t.Errorf("Device: %v, want a 307", err)
	}
}

func TestLogsHoldNoSecrets(t *testing.T) {
	var rec recorder
	srv := newServer(t, misbehave(&rec, `{"authentication":{"symmetricKey":{"primaryKey":"`+string(ownerKey)+`"}}}`, "500"))
	var log bytes.Buffer
	o := options(srv)
	o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, err := hubrest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetWait(func(context.Context, time.Duration) error { return nil })
	device := hubrest.Device{DeviceID: "dev1"}
	device.Authentication.SymmetricKey.PrimaryKey = ownerKey
	if _, err := c.UpdateDevice(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	s := log.String()
	if strings.Contains(s, string(ownerKey)) || strings.Contains(s, "sig=") {
		t.Errorf("secrets in the log:\n%s", s)
	}
	if n := strings.Count(s, `\"primaryKey\":\"***\"`); n != 3 {
		t.Errorf("%d keys are shown as ***, want those of two requests and an answer; log:\n%s", n, s)
	}
}

func TestRetryAfterIsReadInBothSpellings(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"", 0, false}, {"0", 0, true}, {"12", 12 * time.Second, true}, {"-1", 0, false}, {"soon", 0, false},
		{"99999999999999999999", 0, false},
		{"Fri, 02 Jan 2026 03:05:05 GMT", time.Minute, true}, {"Fri, 02 Jan 2026 03:00:00 GMT", 0, true},
	} {
		d, ok := hubrest.RetryAfter(http.Header{"Retry-After": {tt.in}}, now)
		if diff := cmp.Diff([]any{tt.want, tt.ok}, []any{d, ok}); diff != "" {
			t.Errorf("Retry-After: %q (-want +got):\n%s", tt.in, diff)
		}
	}
}
