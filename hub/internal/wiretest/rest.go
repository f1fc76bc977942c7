package wiretest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// Now is the time of every hub of StartREST that has no clock of its own, so that
// answers can be compared whole.
var Now = time.Date(2026, 3, 14, 9, 26, 53, 589_793_200, time.UTC)

// A RESTHub is a hub, and a client of its REST door. Its methods end the test
// when something goes wrong.
type RESTHub struct {
	*hubtest.Hub
	t      testing.TB
	Client *http.Client
	Log    *LogBuffer // of the hub, unless it was given another
}

// StartREST starts a hub.
func StartREST(t testing.TB, opt node.Options) *RESTHub {
	t.Helper()
	h := &RESTHub{t: t, Log: new(LogBuffer)}
	if opt.Clock == nil {
		opt.Clock = clock.Stopped(Now)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.NewTextHandler(h.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	h.Hub = hubtest.New(t, hubtest.WithOptions(opt))
	transport := &http.Transport{TLSClientConfig: h.ClientTLS(), MaxIdleConnsPerHost: 64}
	transport.TLSClientConfig.ServerName = h.HostName
	transport.TLSClientConfig.Time = h.Now
	h.Client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(transport.CloseIdleConnections)
	return h
}

// Token returns a shared access signature of a policy for the hub "localhost".
func (h *RESTHub) Token(policy string) string {
	h.t.Helper()
	for _, p := range h.Policies() {
		if p.Name == policy {
			return Sign(h.t, "localhost", p.Name, p.PrimaryKey, h.Now().Add(time.Hour))
		}
	}
	h.t.Fatalf("there is no policy %s", policy)
	return ""
}

// Sign returns a shared access signature, of an identity if policy is empty.
func Sign(t testing.TB, audience, policy string, key sas.Key, expiry time.Time) string {
	t.Helper()
	token, err := sas.Sign(audience, policy, key, expiry)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A Call is a request. The path may have a query, and is sent as it is.
type Call struct {
	Method, Path, Body string
	Header             map[string]string
	Token              string // "" is the owner's, "-" none
}

// An Answer is the answer to a Call.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do makes a call, with an api-version if the path has none.
func (h *RESTHub) Do(c Call) Answer {
	h.t.Helper()
	if !strings.Contains(c.Path, "api-version=") {
		c.Path += "?api-version=2021-04-12"
	}
	return h.DoRaw(c)
}

// DoRaw is Do without an api-version that the test did not write.
func (h *RESTHub) DoRaw(c Call) Answer {
	h.t.Helper()
	a, err := h.Try(context.Background(), c)
	if err != nil {
		h.t.Fatalf("%s %s: %v", c.Method, c.Path, err)
	}
	return a
}

// Begin makes a call in the background. Its channel is closed without an
// answer when there is none.
func (h *RESTHub) Begin(ctx context.Context, c Call) <-chan Answer {
	done := make(chan Answer, 1)
	c.Path += "?api-version=2021-04-12"
	go func() {
		defer close(done)
		if a, err := h.Try(ctx, c); err == nil {
			done <- a
		}
	}()
	return done
}

// Try is DoRaw for a call that may have no answer.
func (h *RESTHub) Try(ctx context.Context, c Call) (Answer, error) {
	var body io.Reader
	if c.Body != "" {
		body = strings.NewReader(c.Body)
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, "https://"+h.HTTPSAddr, body)
	if err != nil {
		return Answer{}, err
	}
	path, query, _ := strings.Cut(c.Path, "?")
	req.URL.Opaque = path // as it is, without Go's idea of encoding
	req.URL.RawQuery = query
	req.Host = "localhost"
	switch c.Token {
	case "":
		req.Header.Set("Authorization", h.Token("iothubowner"))
	case "-":
	default:
		req.Header.Set("Authorization", c.Token)
	}
	for name, value := range c.Header {
		req.Header.Set(name, value)
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(text)}, err
}

// Want checks the status and the body of an answer. In the wanted body "*"
// stands for any text without a quotation mark; an empty one is not checked.
func (a Answer) Want(t testing.TB, status int, body string) Answer {
	t.Helper()
	pattern := strings.ReplaceAll(regexp.QuoteMeta(body), `\*`, `[^"]*`)
	if a.Status != status || body != "" && !regexp.MustCompile("^"+pattern+"$").MatchString(a.Body) {
		t.Fatalf("answer is %d %s\nwant      %d %s", a.Status, a.Body, status, body)
	}
	return a
}

// WantError checks a refusal in the classic envelope.
func (a Answer) WantError(t testing.TB, status int, name, text string) {
	t.Helper()
	a.Want(t, status, `{"Message":"ErrorCode:`+name+`;`+text+`","ExceptionMessage":"Tracking ID:*"}`)
	if got := a.Header.Get("iothub-errorcode"); got != name {
		t.Errorf("iothub-errorcode is %q, want %q", got, name)
	}
}

// Field returns a member of a JSON body, such as "authentication.type".
func (a Answer) Field(t testing.TB, path string) any {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(a.Body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("body %s: %v", a.Body, err)
	}
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// Text is Field of a string.
func (a Answer) Text(t testing.TB, path string) string {
	t.Helper()
	s, ok := a.Field(t, path).(string)
	if !ok {
		t.Fatalf("%s is not a string in %s", path, a.Body)
	}
	return s
}

// A LogBuffer is a log that tests read, and wait for, while the hub writes it.
type LogBuffer struct {
	mu    sync.Mutex // guards what follows
	text  bytes.Buffer
	waits map[string]chan struct{} // closed when the log has the text
}

// Write implements io.Writer.
func (l *LogBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.text.Write(p)
	for text, written := range l.waits {
		if strings.Contains(l.text.String(), text) {
			close(written)
			delete(l.waits, text)
		}
	}
	return n, err
}

// String returns the log since the last Expect.
func (l *LogBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Expect returns a channel that is closed when text is logged from now on. What
// was logged before is forgotten.
func (l *LogBuffer) Expect(text string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits == nil {
		l.waits = make(map[string]chan struct{})
	}
	l.text.Reset()
	l.waits[text] = make(chan struct{})
	return l.waits[text]
}

// DeviceToken returns a device's or module's own token.
func (h *RESTHub) DeviceToken(id hub.ID) string {
	h.t.Helper()
	cs := h.Device(id.Device)
	if id.Module != "" {
		cs = h.Module(id.Device, id.Module)
	}
	return Sign(h.t, cs.Audience(), "", cs.SharedAccessKey, Now.Add(time.Hour))
}

// WantNested checks a refusal in the envelope of direct methods.
func (a Answer) WantNested(t testing.TB, status int, name string, code, message, info string) {
	t.Helper()
	a.Want(t, status, "")
	tracking := strings.ReplaceAll(a.Header.Get("x-ms-request-id"), "-", "")
	want := `{"errorCode":` + code + `,"trackingId":"` + tracking + `-G:0-TimeStamp:03/14/2026 09:26:53","message":"` + message +
		`","info":` + info + `,"timestampUtc":"2026-03-14T09:26:53.5897932Z"}`
	if got := a.Text(t, "Message"); got != want {
		t.Errorf("Message is %s\nwant       %s", got, want)
	}
	if got := a.Text(t, "ExceptionMessage"); got != "" {
		t.Errorf("ExceptionMessage is %s", got)
	}
	if got := a.Header.Get("iothub-errorcode"); got != name {
		t.Errorf("iothub-errorcode is %s, want %s", got, name)
	}
}
