package dps_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/dps"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// A bareHub is a hub that is asked without a network.
type bareHub struct {
	*node.Node
	door  *dps.Door
	token string
}

func startBare(t testing.TB) *bareHub {
	t.Helper()
	n := wiretest.NewNode(t, node.Options{Clock: clock.Stopped(wiretest.Now)})
	h := &bareHub{Node: n, door: dps.New(n.Server, n.Provisioning, dps.Options{})}
	for _, p := range n.Policies() {
		if p.Name == node.ProvisioningPolicy {
			h.token = wiretest.Sign(t, "localhost", p.Name, p.PrimaryKey, wiretest.Now.AddDate(1, 0, 0))
		}
	}
	return h
}

// do makes a request, and checks that its answer is one of the service's.
func (h *bareHub) do(t testing.TB, method, path, body, token string, header ...string) wiretest.Answer {
	t.Helper()
	r := httptest.NewRequest("POST", "http://localhost/", strings.NewReader(body))
	r.Method = method
	var err error
	if r.URL, err = r.URL.Parse(path); err != nil || r.URL.Host != "localhost" {
		t.Skip("net/http takes no such path")
	}
	r.URL.RawQuery = "api-version=2021-10-01"
	r.Header.Set("Authorization", token)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if !h.door.Serve(w, r) {
		t.Skip("it is not of the provisioning service")
	}
	a := wiretest.Answer{Status: w.Code, Header: w.Header(), Body: w.Body.String()}
	switch {
	case a.Status == http.StatusNoContent:
	case a.Status < 300:
		if !json.Valid([]byte(a.Body)) {
			t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
		}
	case slices.Contains([]int{400, 401, 404, 405, 409, 412, 413, 429}, a.Status):
		var e struct {
			ErrorCode  int
			TrackingID string
			Message    string
		}
		if err := json.Unmarshal([]byte(a.Body), &e); err != nil || e.ErrorCode/1000 != a.Status || e.Message == "" || e.TrackingID != a.Header.Get("x-ms-request-id") {
			t.Fatalf("%s %s: refused with %d %s", method, path, a.Status, a.Body)
		}
	default:
		t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
	return a
}

// An enrollment is refused in the words of the service, or it is there as it was
// answered, and can be sent back.
func FuzzPutEnrollment(f *testing.F) {
	for _, body := range []string{
		`{"registrationId":"r1","deviceId":"d1","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + someKey + `"}},"capabilities":{"iotEdge":true}}`,
		`{"attestation":{"type":"symmetricKey"},"initialTwin":{"tags":{"a":{"b":1}},"properties":{"desired":{"c":[1,2]}}},"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false}}`,
		`{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"AAAA"}}},"tpm":null},"iotHubs":["a","b"],"allocationPolicy":"static","iotHubHostName":null}`,
		`{"attestation":{"type":"x509","x509":{"caReferences":{"primary":"ca1"}}},"optionalDeviceInformation":{"additionalProperties":{"x":1}}}`,
		`{"attestation":{"type":"symmetricKey"},"allocationPolicy":"custom","customAllocationDefinition":{"webhookUrl":"http://127.0.0.1/x","apiVersion":"2019-03-31"},"provisioningStatus":"disabled"}`,
		`{"attestation":{"type":"tpm","tpm":{"endorsementKey":"x"}},"createdDateTimeUtc":"2020-01-01T00:00:00Z","etag":"\"x\""}`,
		`{"registrationState":{"registrationId":"r1"},"attestation":null}`, `[]`, `null`, `{`, ``, "{\"attestation\":\"\xff\"}",
	} {
		f.Add(body, false)
		f.Add(strings.ReplaceAll(body, "registrationId", "enrollmentGroupId"), true)
	}
	h := startBare(f)
	f.Fuzz(func(t *testing.T, body string, group bool) {
		path := "/enrollments/r1"
		if group {
			path = "/enrollmentGroups/r1"
		}
		put := h.do(t, "PUT", path, body, h.token)
		if put.Status != 200 {
			if a := h.do(t, "GET", path, "", h.token); a.Status != 404 {
				t.Errorf("%s was refused with %s, and is there: %s", body, put.Body, a.Body)
			}
			return
		}
		defer h.do(t, "DELETE", path, "", h.token)
		got := h.do(t, "GET", path, "", h.token)
		if diff := cmp.Diff(without(t, put.Body, "etag"), without(t, got.Body, "etag")); diff != "" {
			t.Errorf("%s (-answered +read):\n%s", body, diff)
		}
		again := h.do(t, "PUT", path, got.Body, h.token, "If-Match", got.Text(t, "etag"))
		if diff := cmp.Diff(without(t, put.Body, "etag"), without(t, again.Body, "etag")); diff != "" || again.Status != 200 {
			t.Errorf("%s, sent back: %d (-before +after):\n%s", body, again.Status, diff)
		}
	})
}

// without is a document as a value, without a member and the keys, which not all
// answers have.
func without(t *testing.T, doc, member string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatal(err)
	}
	delete(v, member)
	if a, ok := v["attestation"].(map[string]any); ok {
		delete(a, "symmetricKey")
	}
	return v
}

// Whatever a device or a service sends is answered as the service answers.
func FuzzRequests(f *testing.F) {
	h := startBare(f)
	h.do(f, "PUT", "/enrollments/r1", `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"`+someKey+`","secondaryKey":"`+someKey+`"}}}`, h.token)
	own := wiretest.Sign(f, h.IDScope()+"/registrations/r1", "registration", someKey, wiretest.Now.AddDate(1, 0, 0))
	for _, s := range []struct{ method, path, body, name, value string }{
		{"PUT", "/SCOPE/registrations/r1/register", `{"registrationId":"r1","payload":{"a":1}}`, "", ""},
		{"PUT", "/SCOPE/registrations/r1/register", `{"registrationId":"r1","tpm":{"endorsementKey":"x"}}`, "Content-Length", "1"},
		{"GET", "/SCOPE/registrations/r1/operations/x", `{}`, "", ""},
		{"POST", "/SCOPE/registrations/R1/", `null`, "", ""},
		{"PUT", "/SCOPE/registrations/%2e%2e/register", "", "", ""},
		{"POST", "/enrollments/query", `{"query":"SELECT * FROM enrollments"}`, "x-ms-continuation", "cjE"},
		{"POST", "/enrollments/query", `{"query":"*"}`, "x-ms-max-item-count", "-1"},
		{"POST", "/enrollments", `{"mode":"update","enrollments":[{"registrationId":"r2"},null]}`, "", ""},
		{"POST", "/enrollmentGroups", `{"mode":"delete","enrollmentGroups":[{"enrollmentGroupId":"g"}]}`, "", ""},
		{"DELETE", "/enrollments/r%201", "", "If-Match", `W/"x"`},
		{"POST", "/registrations/r1/query", "", "x-ms-continuation", "AAAA"},
	} {
		for _, device := range []bool{false, true} {
			f.Add(s.method, s.path, s.body, s.name, s.value, device)
		}
	}
	f.Fuzz(func(t *testing.T, method, path, body, name, value string, device bool) {
		if !strings.HasPrefix(path, "/") {
			t.Skip("net/http takes no such request")
		}
		token := h.token
		if device {
			token = own
		}
		h.do(t, method, strings.Replace(path, "SCOPE", h.IDScope(), 1), body, token, "x-"+name, "", name, value)
	})
}
