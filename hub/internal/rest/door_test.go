package rest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestPathsAreTakenAsClientsWriteThem(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/a%23b%2Bc%25", Body: `{}`}).Want(t, 200, "")
	for _, path := range []string{
		"/devices/dev1", "/devices/dev1/", "/Devices/dev1", "/devices%2Fdev1", "/%2Fdevices%2fdev1", "/%64evices/dev%31",
		"/devices/a%23b+c%25", "/devices%2Fa%2523b%252Bc%2525",
	} {
		h.Do(wiretest.Call{Method: "GET", Path: path}).Want(t, 200, "")
	}
	for _, path := range []string{"/devices", "/devices/", "/DEVICES", "/devices/?top=10&api-version=2020-09-30"} {
		if a := h.Do(wiretest.Call{Method: "GET", Path: path}); a.Status != 200 || !strings.HasPrefix(a.Body, "[{") {
			t.Errorf("GET %s: %d %s", path, a.Status, a.Body)
		}
	}
	// A word of the API is a name where its method is another.
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/query", Body: `{}`}).Want(t, 200, "")
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/devices/query"}).Text(t, "deviceId"); got != "query" {
		t.Errorf("GET /devices/query is device %s", got)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/Dev1"}).WantError(t, 404, "DeviceNotFound", "Dev1")
	for _, path := range []string{"/", "/device/dev1", "/devices//modules", "/devices/dev1/modules/m/x", "/devices/../devices"} {
		if a := h.Do(wiretest.Call{Method: "GET", Path: path}); a.Status != 404 {
			t.Errorf("GET %s: %d %s, want 404", path, a.Status, a.Body)
		}
	}
}

func TestMethodOverride(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	body := `{"tags":{"a":1},"properties":null,"etag":null}`
	h.Do(wiretest.Call{Method: "POST", Path: "/twins/dev1", Body: body}).WantError(t, 405, "GenericMethodNotAllowed", "Method not allowed")
	a := h.Do(wiretest.Call{Method: "POST", Path: "/twins/dev1", Body: body, Header: map[string]string{"X-HTTP-Method-Override": "patch"}}).Want(t, 200, "")
	if diff := cmp.Diff(map[string]any{"a": json.Number("1")}, a.Field(t, "tags")); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

func TestAPIVersion(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for query, want := range map[string]int{
		"": 400, "?api-version=": 400, "?api-version=banana": 400, "?api-version=2015-08-15": 400, "?api-version=2021-4-12": 400, "?api-version=2021-04-12-beta": 400,
		"?api-version=2016-11-14": 200, "?api-version=2024-03-31": 200, "?api-version=2020-05-31-preview": 200, "?top=1&api-version=2099-01-01": 200,
	} {
		a := h.DoRaw(wiretest.Call{Method: "GET", Path: "/devices" + query})
		if a.Status != want {
			t.Errorf("%q: %d %s, want %d", query, a.Status, a.Body, want)
		}
		if want == 400 {
			a.WantError(t, 400, "InvalidProtocolVersion", "BadRequest")
		}
	}
}

func TestErrorsCarryIDsThatTheLogHas(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	a := h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1"})
	a.WantError(t, 404, "DeviceNotFound", "dev1")
	id := a.Header.Get("x-ms-request-id")
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("x-ms-request-id is %q, want a GUID", id)
	}
	compact := strings.ReplaceAll(id, "-", "")
	want := "Tracking ID:" + compact + "-G:0-TimeStamp:03/14/2026 09:26:53"
	if got := a.Text(t, "ExceptionMessage"); got != want {
		t.Errorf("ExceptionMessage is %q, want %q", got, want)
	}
	if log := h.Log.String(); !strings.Contains(log, id) || !strings.Contains(log, compact) {
		t.Errorf("the log has not both %s and %s:\n%s", id, compact, log)
	}
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	a := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`})
	key := a.Text(t, "authentication.symmetricKey.primaryKey")
	token := h.Token("service")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: a.Body, Token: token}).Want(t, 401, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{"authentication":{"symmetricKey":{"primaryKey":"` + key + `"}}}`}).Want(t, 400, "")
	_, sig, _ := strings.Cut(token, "sig=")
	sig, _, _ = strings.Cut(sig, "&")
	if log := h.Log.String(); strings.Contains(log, key) || strings.Contains(log, sig) {
		t.Errorf("the log has a key or a signature:\n%s", log)
	}
}

func TestBodies(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	put := func(body string) wiretest.Answer {
		return h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: body})
	}
	put("").WantError(t, 400, "ArgumentNull", "BadRequest")
	put("{").Want(t, 400, "")
	if got := put(`{"deviceId":`).Header.Get("iothub-errorcode"); got != "IotHubFormatError" {
		t.Errorf("malformed JSON is %s, want IotHubFormatError", got)
	}
	put(`[]`).WantError(t, 400, "ArgumentInvalid", "the body must not be of type array")
	put(`{"status":1}`).WantError(t, 400, "ArgumentInvalid", "status must not be of type number")
	put(`{"x":"`+strings.Repeat("x", 1<<20)+`"}`).WantError(t, 413, "MessageTooLarge", "the body must be at most 1048576 bytes")
	// Neither a Content-Type nor a length is needed.
	req, err := http.NewRequest("PUT", "https://"+h.HTTPSAddr+"/devices/dev1?api-version=2021-04-12", io.MultiReader(strings.NewReader(`{"DEVICEID":"dev1"}`)))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "localhost"
	req.Header.Set("Authorization", h.Token("iothubowner"))
	resp, err := h.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("chunked body without a type: %d, want 200", resp.StatusCode)
	}
}

func TestBrowserToolsMayAsk(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	a := h.DoRaw(wiretest.Call{Method: "OPTIONS", Path: "/devices/dev1", Token: "-", Header: map[string]string{"Origin": "http://localhost:3000"}}).Want(t, 204, "")
	if got := a.Header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("Access-Control-Allow-Origin is %q", got)
	}
}

func TestHealthAndMetricsAnswerLoopbackWithoutKey(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.DoRaw(wiretest.Call{Method: "GET", Path: "/health", Token: "-"}).Want(t, 200, `{"status":"ok"}`)
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/dev1"}).Want(t, 404, "")
	a := h.DoRaw(wiretest.Call{Method: "GET", Path: "/metrics", Token: "-"})
	for _, want := range []string{`iotdm_hub_rest_requests_total{status="404"} 1`, "iotdm_hub_connected_devices 0"} {
		if !strings.Contains(a.Body, want) {
			t.Errorf("/metrics lacks %s:\n%s", want, a.Body)
		}
	}
	// A page in a browser comes under a name of its own.
	a = h.DoRaw(wiretest.Call{Method: "GET", Path: "/metrics", Token: "-", Header: map[string]string{"Origin": "http://evil.example"}})
	if got := a.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("a browser may read /metrics: %q", got)
	}
}
