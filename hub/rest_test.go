package hub_test

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

	"github.com/google/go-cmp/cmp"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/sas"
)

// restNow is the time of every REST test: answers can be compared whole.
var restNow = time.Date(2026, 3, 14, 9, 26, 53, 589_793_200, time.UTC)

// A restHub is a hub, and a client of its REST door.
type restHub struct {
	*hubtest.Hub
	t      testing.TB
	client *http.Client
	log    *logBuffer
	now    func() time.Time
}

func startREST(t testing.TB, opt hub.Options) *restHub {
	t.Helper()
	h := &restHub{t: t, log: new(logBuffer)}
	if opt.Now == nil {
		opt.Now = func() time.Time { return restNow }
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	h.now = opt.Now
	h.Hub = hubtest.New(t, hubtest.WithOptions(opt))
	transport := &http.Transport{TLSClientConfig: h.ClientTLS(), MaxIdleConnsPerHost: 64}
	transport.TLSClientConfig.ServerName = h.HostName
	transport.TLSClientConfig.Time = opt.Now
	h.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(transport.CloseIdleConnections)
	return h
}

// token returns a shared access signature of a policy for the hub "localhost".
func (h *restHub) token(policy string) string {
	h.t.Helper()
	for _, p := range h.Policies() {
		if p.Name == policy {
			return sign(h.t, "localhost", p.Name, p.PrimaryKey, h.now().Add(time.Hour))
		}
	}
	h.t.Fatalf("there is no policy %s", policy)
	return ""
}

func sign(t testing.TB, audience, policy string, key sas.Key, expiry time.Time) string {
	t.Helper()
	token, err := sas.Sign(audience, policy, key, expiry)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A call is a request; what is empty has a sensible default.
type call struct {
	method, path, body string
	header             map[string]string
	token              string // "" is the owner's, "-" none
}

type answer struct {
	Status int
	Header http.Header
	Body   string
}

func (h *restHub) do(c call) answer {
	h.t.Helper()
	if !strings.Contains(c.path, "api-version=") {
		c.path += "?api-version=2021-04-12"
	}
	return h.doRaw(c)
}

// doRaw does not add an api-version.
func (h *restHub) doRaw(c call) answer {
	h.t.Helper()
	a, err := h.try(context.Background(), c)
	if err != nil {
		h.t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	return a
}

// begin makes a call in the background. Its channel is closed without an
// answer when there is none.
func (h *restHub) begin(ctx context.Context, c call) <-chan answer {
	done := make(chan answer, 1)
	c.path += "?api-version=2021-04-12"
	go func() {
		defer close(done)
		if a, err := h.try(ctx, c); err == nil {
			done <- a
		}
	}()
	return done
}

func (h *restHub) try(ctx context.Context, c call) (answer, error) {
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, "https://"+h.HTTPSAddr, body)
	if err != nil {
		return answer{}, err
	}
	path, query, _ := strings.Cut(c.path, "?")
	req.URL.Opaque = path // as it is, without Go's idea of encoding
	req.URL.RawQuery = query
	req.Host = "localhost"
	switch c.token {
	case "":
		req.Header.Set("Authorization", h.token("iothubowner"))
	case "-":
	default:
		req.Header.Set("Authorization", c.token)
	}
	for name, value := range c.header {
		req.Header.Set(name, value)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

// want checks the status and the body of an answer. In the wanted body "*"
// stands for any text without a quotation mark; an empty one is not checked.
func (a answer) want(t testing.TB, status int, body string) answer {
	t.Helper()
	pattern := strings.ReplaceAll(regexp.QuoteMeta(body), `\*`, `[^"]*`)
	if a.Status != status || body != "" && !regexp.MustCompile("^"+pattern+"$").MatchString(a.Body) {
		t.Fatalf("answer is %d %s\nwant      %d %s", a.Status, a.Body, status, body)
	}
	return a
}

// wantError checks a refusal in the classic envelope.
func (a answer) wantError(t testing.TB, status int, name, text string) {
	t.Helper()
	a.want(t, status, `{"Message":"ErrorCode:`+name+`;`+text+`","ExceptionMessage":"Tracking ID:*"}`)
	if got := a.Header.Get("iothub-errorcode"); got != name {
		t.Errorf("iothub-errorcode is %q, want %q", got, name)
	}
}

// field returns a member of a JSON body, such as "authentication.type".
func (a answer) field(t testing.TB, path string) any {
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

func (a answer) text(t testing.TB, path string) string {
	t.Helper()
	s, ok := a.field(t, path).(string)
	if !ok {
		t.Fatalf("%s is not a string in %s", path, a.Body)
	}
	return s
}

// A logBuffer is a log that tests read, and wait for, while the hub writes it.
type logBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	waits map[string]chan struct{} // closed when the log has the text
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.b.Write(p)
	for text, written := range l.waits {
		if strings.Contains(l.b.String(), text) {
			close(written)
			delete(l.waits, text)
		}
	}
	return n, err
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// expect returns a channel that is closed when text is logged from now on.
func (l *logBuffer) expect(text string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits == nil {
		l.waits = make(map[string]chan struct{})
	}
	l.b.Reset()
	l.waits[text] = make(chan struct{})
	return l.waits[text]
}

func TestPathsAreTakenAsClientsWriteThem(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`}).want(t, 200, "")
	h.do(call{method: "PUT", path: "/devices/a%23b%2Bc%25", body: `{}`}).want(t, 200, "")
	for _, path := range []string{
		"/devices/dev1", "/devices/dev1/", "/Devices/dev1", "/devices%2Fdev1", "/%2Fdevices%2fdev1", "/%64evices/dev%31",
		"/devices/a%23b+c%25", "/devices%2Fa%2523b%252Bc%2525",
	} {
		h.do(call{method: "GET", path: path}).want(t, 200, "")
	}
	for _, path := range []string{"/devices", "/devices/", "/DEVICES", "/devices/?top=10&api-version=2020-09-30"} {
		if a := h.do(call{method: "GET", path: path}); a.Status != 200 || !strings.HasPrefix(a.Body, "[{") {
			t.Errorf("GET %s: %d %s", path, a.Status, a.Body)
		}
	}
	// A word of the API is a name where its method is another.
	h.do(call{method: "PUT", path: "/devices/query", body: `{}`}).want(t, 200, "")
	if got := h.do(call{method: "GET", path: "/devices/query"}).text(t, "deviceId"); got != "query" {
		t.Errorf("GET /devices/query is device %s", got)
	}
	h.do(call{method: "GET", path: "/devices/Dev1"}).wantError(t, 404, "DeviceNotFound", "Dev1")
	for _, path := range []string{"/", "/device/dev1", "/devices//modules", "/devices/dev1/modules/m/x", "/devices/../devices"} {
		if a := h.do(call{method: "GET", path: path}); a.Status != 404 {
			t.Errorf("GET %s: %d %s, want 404", path, a.Status, a.Body)
		}
	}
}

func TestMethodOverride(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`}).want(t, 200, "")
	body := `{"tags":{"a":1},"properties":null,"etag":null}`
	h.do(call{method: "POST", path: "/twins/dev1", body: body}).wantError(t, 405, "GenericMethodNotAllowed", "Method not allowed")
	a := h.do(call{method: "POST", path: "/twins/dev1", body: body, header: map[string]string{"X-HTTP-Method-Override": "patch"}}).want(t, 200, "")
	if diff := cmp.Diff(map[string]any{"a": json.Number("1")}, a.field(t, "tags")); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

func TestAPIVersion(t *testing.T) {
	h := startREST(t, hub.Options{})
	for query, want := range map[string]int{
		"": 400, "?api-version=": 400, "?api-version=banana": 400, "?api-version=2015-08-15": 400, "?api-version=2021-4-12": 400, "?api-version=2021-04-12-beta": 400,
		"?api-version=2016-11-14": 200, "?api-version=2024-03-31": 200, "?api-version=2020-05-31-preview": 200, "?top=1&api-version=2099-01-01": 200,
	} {
		a := h.doRaw(call{method: "GET", path: "/devices" + query})
		if a.Status != want {
			t.Errorf("%q: %d %s, want %d", query, a.Status, a.Body, want)
		}
		if want == 400 {
			a.wantError(t, 400, "InvalidProtocolVersion", "BadRequest")
		}
	}
}

func TestErrorsCarryIDsThatTheLogHas(t *testing.T) {
	h := startREST(t, hub.Options{})
	a := h.do(call{method: "GET", path: "/devices/dev1"})
	a.wantError(t, 404, "DeviceNotFound", "dev1")
	id := a.Header.Get("x-ms-request-id")
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("x-ms-request-id is %q, want a GUID", id)
	}
	compact := strings.ReplaceAll(id, "-", "")
	want := "Tracking ID:" + compact + "-G:0-TimeStamp:03/14/2026 09:26:53"
	if got := a.text(t, "ExceptionMessage"); got != want {
		t.Errorf("ExceptionMessage is %q, want %q", got, want)
	}
	if log := h.log.String(); !strings.Contains(log, id) || !strings.Contains(log, compact) {
		t.Errorf("the log has not both %s and %s:\n%s", id, compact, log)
	}
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	h := startREST(t, hub.Options{})
	a := h.do(call{method: "PUT", path: "/devices/dev1", body: `{}`})
	key := a.text(t, "authentication.symmetricKey.primaryKey")
	token := h.token("service")
	h.do(call{method: "PUT", path: "/devices/dev1", body: a.Body, token: token}).want(t, 401, "")
	h.do(call{method: "PUT", path: "/devices/dev1", body: `{"authentication":{"symmetricKey":{"primaryKey":"` + key + `"}}}`}).want(t, 400, "")
	_, sig, _ := strings.Cut(token, "sig=")
	sig, _, _ = strings.Cut(sig, "&")
	if log := h.log.String(); strings.Contains(log, key) || strings.Contains(log, sig) {
		t.Errorf("the log has a key or a signature:\n%s", log)
	}
}

func TestBodies(t *testing.T) {
	h := startREST(t, hub.Options{})
	put := func(body string) answer { return h.do(call{method: "PUT", path: "/devices/dev1", body: body}) }
	put("").wantError(t, 400, "ArgumentNull", "BadRequest")
	put("{").want(t, 400, "")
	if got := put(`{"deviceId":`).Header.Get("iothub-errorcode"); got != "IotHubFormatError" {
		t.Errorf("malformed JSON is %s, want IotHubFormatError", got)
	}
	put(`[]`).wantError(t, 400, "ArgumentInvalid", "the body must not be of type array")
	put(`{"status":1}`).wantError(t, 400, "ArgumentInvalid", "status must not be of type number")
	put(`{"x":"`+strings.Repeat("x", 1<<20)+`"}`).wantError(t, 413, "MessageTooLarge", "the body must be at most 1048576 bytes")
	// Neither a Content-Type nor a length is needed.
	req, err := http.NewRequest("PUT", "https://"+h.HTTPSAddr+"/devices/dev1?api-version=2021-04-12", io.MultiReader(strings.NewReader(`{"DEVICEID":"dev1"}`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "localhost"
	req.Header.Set("Authorization", h.token("iothubowner"))
	resp, err := h.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("chunked body without a type: %d, want 200", resp.StatusCode)
	}
}

func TestBrowserToolsMayAsk(t *testing.T) {
	h := startREST(t, hub.Options{})
	a := h.doRaw(call{method: "OPTIONS", path: "/devices/dev1", token: "-", header: map[string]string{"Origin": "http://localhost:3000"}}).want(t, 204, "")
	if got := a.Header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("Access-Control-Allow-Origin is %q", got)
	}
}

func TestHealthAndMetricsAnswerLoopbackWithoutKey(t *testing.T) {
	h := startREST(t, hub.Options{})
	h.doRaw(call{method: "GET", path: "/health", token: "-"}).want(t, 200, `{"status":"ok"}`)
	h.do(call{method: "GET", path: "/devices/dev1"}).want(t, 404, "")
	a := h.doRaw(call{method: "GET", path: "/metrics", token: "-"})
	for _, want := range []string{`iotdm_hub_rest_requests_total{status="404"} 1`, "iotdm_hub_connected_devices 0"} {
		if !strings.Contains(a.Body, want) {
			t.Errorf("/metrics lacks %s:\n%s", want, a.Body)
		}
	}
	// A page in a browser comes under a name of its own.
	a = h.doRaw(call{method: "GET", path: "/metrics", token: "-", header: map[string]string{"Origin": "http://evil.example"}})
	if got := a.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("a browser may read /metrics: %q", got)
	}
}
