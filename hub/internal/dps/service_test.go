package dps_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// A serviceHub is a hub that is asked by the owner of its provisioning service.
type serviceHub struct {
	*wiretest.RESTHub
	t *testing.T
}

func startService(t *testing.T, opt node.Options) serviceHub {
	return serviceHub{wiretest.StartREST(t, opt), t}
}

// do makes a request. The header is names and values in turn.
func (h serviceHub) do(method, path, body string, header ...string) wiretest.Answer {
	h.t.Helper()
	c := wiretest.Call{Method: method, Path: path, Body: body, Token: h.Token(node.ProvisioningPolicy), Header: map[string]string{}}
	for i := 0; i < len(header); i += 2 {
		c.Header[header[i]] = header[i+1]
	}
	return h.Do(c)
}

// wantError checks a refusal: its number in header and body, and its tracking id, which
// is that of the request.
func wantError(t *testing.T, a wiretest.Answer, code int, text string) {
	t.Helper()
	want := fmt.Sprintf(`{"errorCode":%d,"trackingId":"%s","message":%q,"timestampUtc":"2026-03-14T09:26:53.5897932Z"}`, code, a.Header.Get("x-ms-request-id"), text)
	if a.Status != code/1000 || a.Body != want || a.Header.Get("x-ms-error-code") != fmt.Sprint(code) {
		t.Errorf("answer is %d %s\nwant      %d %s", a.Status, a.Body, code/1000, want)
	}
}

const someKey = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// The life of an enrollment, in each spelling of its path that clients have.
func TestEnrollmentsAreManaged(t *testing.T) {
	for kind, tt := range map[string]struct{ collection, id, item string }{
		"individual": {"enrollments", "registrationId", "enrollment"},
		"group":      {"enrollmentGroups", "enrollmentGroupId", "enrollmentGroup"},
	} {
		t.Run(kind, func(t *testing.T) {
			h := startService(t, node.Options{})
			path := "/" + tt.collection + "/E-1"
			body := `{"` + tt.id + `":"E-1","attestation":{"type":"symmetricKey"},"provisioningStatus":"enabled"}`
			made := h.do("PUT", path, body).Want(t, 200, "")
			if key := made.Text(t, "attestation.symmetricKey.primaryKey"); len(key) < 40 {
				t.Errorf("made without a key: %s", made.Body)
			}
			etag := made.Text(t, "etag")
			if !strings.HasPrefix(etag, `"`) || made.Header.Get("Etag") != etag {
				t.Errorf("etag %s, header %s", etag, made.Header.Get("Etag"))
			}
			a := h.do("PUT", path, body)
			a.Want(t, 409, "")
			for _, spelling := range []string{path, path + "/", "/" + strings.ToLower(tt.collection) + "/e-1", "/" + strings.ToUpper(tt.collection) + "/E%2D1"} {
				got := h.do("GET", spelling, "").Want(t, 200, "")
				if got.Text(t, tt.id) != "E-1" || got.Text(t, "etag") != etag {
					t.Errorf("GET %s: %s", spelling, got.Body)
				}
			}
			wantKeys := fmt.Sprintf(`{"type":"symmetricKey","symmetricKey":{"primaryKey":"%s","secondaryKey":"%s"}}`,
				made.Text(t, "attestation.symmetricKey.primaryKey"), made.Text(t, "attestation.symmetricKey.secondaryKey"))
			for _, spelling := range []string{path + "/attestationmechanism", strings.ToLower(path) + "/AttestationMechanism/"} {
				if got := h.do("POST", spelling, "").Want(t, 200, ""); got.Body != wantKeys {
					t.Errorf("POST %s: %s, want %s", spelling, got.Body, wantKeys)
				}
			}
			changed := strings.Replace(body, "enabled", "disabled", 1)
			h.do("PUT", path, changed, "If-Match", `"other"`).Want(t, 412, "")
			etag = h.do("PUT", path, changed, "If-Match", etag).Want(t, 200, "").Text(t, "etag")
			etag = h.do("PUT", path, changed, "If-Match", strings.Trim(etag, `"`)).Want(t, 200, "").Text(t, "etag")
			h.do("PUT", path, changed, "If-Match", "*").Want(t, 200, "")
			h.do("DELETE", path, "", "If-Match", etag).Want(t, 412, "")
			list := h.do("POST", "/"+tt.collection+"/query", `{"query":"SELECT * FROM `+tt.collection+`"}`).Want(t, 200, "")
			if got := list.Header.Get("x-ms-item-type"); got != tt.item || !strings.HasPrefix(list.Body, "[{") {
				t.Errorf("query: item type %s, %s", got, list.Body)
			}
			if strings.Contains(list.Body, wantKeys) {
				t.Errorf("the query shows keys")
			}
			gone := h.do("DELETE", path, "").Want(t, 204, "")
			if gone.Body != "" {
				t.Errorf("DELETE: %s", gone.Body)
			}
			h.do("GET", path, "").Want(t, 404, "")
			h.do("DELETE", path, "").Want(t, 404, "")
			h.do("POST", path+"/attestationmechanism", "").Want(t, 404, "")
		})
	}
}

// A query is read page by page, and ends.
func TestQueriesArePaged(t *testing.T) {
	h := startService(t, node.Options{})
	var want []string
	for i := range 5 {
		id := fmt.Sprintf("r%d", i)
		h.do("PUT", "/enrollments/"+id, `{"attestation":{"type":"symmetricKey"}}`).Want(t, 200, "")
		want = append(want, id)
	}
	const query = `{"query":"*"}` // as Node's test has it
	var got []string
	continuation, pages := "", 0
	for {
		a := h.do("POST", "/enrollments/query/", query, "x-ms-max-item-count", "2", "x-ms-continuation", continuation).Want(t, 200, "")
		for part := range strings.SplitSeq(a.Body, `"registrationId":"`) {
			if id, _, ok := strings.Cut(part, `"`); ok && strings.HasPrefix(id, "r") {
				got = append(got, id)
			}
		}
		pages++
		if _, more := a.Header[http.CanonicalHeaderKey("x-ms-continuation")]; !more || pages == 9 {
			break
		}
		continuation = a.Header.Get("x-ms-continuation")
	}
	if diff := cmp.Diff(want, got); diff != "" || pages != 3 {
		t.Errorf("%d pages (-want +got):\n%s", pages, diff)
	}
	wantError(t, h.do("POST", "/enrollments/query", query, "x-ms-max-item-count", "0"), 400004, "x-ms-max-item-count must be a number from 1")
	wantError(t, h.do("POST", "/enrollments/query", query, "x-ms-continuation", "%"), 400004, "x-ms-continuation is not one that a query has answered")
	h.do("POST", "/enrollments/query", `{"query":"SELECT * FROM devices"}`).Want(t, 400, "")
}

func TestBulkOperations(t *testing.T) {
	h := startService(t, node.Options{})
	list := func(mode string) string {
		return `{"mode":"` + mode + `","enrollments":[{"registrationId":"b1","attestation":{"type":"symmetricKey"}},{"registrationId":"b2","attestation":{"type":"symmetricKey"}}]}`
	}
	h.do("POST", "/enrollments/", list("create")).Want(t, 200, `{"isSuccessful":true,"errors":[]}`)
	again := h.do("POST", "/enrollments", list("create")).Want(t, 200, "")
	if !strings.HasPrefix(again.Body, `{"isSuccessful":false,"errors":[{"registrationId":"b1","errorCode":409`) {
		t.Errorf("create again: %s", again.Body)
	}
	h.do("POST", "/enrollments", list("update")).Want(t, 200, `{"isSuccessful":true,"errors":[]}`)
	h.do("POST", "/enrollments", list("delete")).Want(t, 200, `{"isSuccessful":true,"errors":[]}`)
	h.do("GET", "/enrollments/b1", "").Want(t, 404, "")
	groups := `{"mode":"create","enrollmentGroups":[{"enrollmentGroupId":"g1","attestation":{"type":"symmetricKey"}}]}`
	h.do("POST", "/enrollmentGroups", groups).Want(t, 200, `{"isSuccessful":true,"errors":[]}`)
	wantError(t, h.do("POST", "/enrollments", groups), 400004, "the enrollments in the body are not those of the path")
	wantError(t, h.do("POST", "/enrollments", `{"mode":"create","enrollments":[null]}`), 400004, "an enrollment in the body is null")
	wantError(t, h.do("POST", "/enrollments", `{"mode":"create","enrollments":[`+strings.Repeat("{},", 5000)+`{}]}`), 400004, "a bulk operation takes at most 100 enrollments")
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	h := startService(t, node.Options{})
	h.do("PUT", "/enrollments/there", `{"attestation":{"type":"symmetricKey"}}`).Want(t, 200, "")
	for name, tt := range map[string]struct {
		method, path, body string
		code               int
		text               string // empty is any
	}{
		"no body":                     {"PUT", "/enrollments/e", "", 400004, "the body is missing"},
		"a body that is no JSON":      {"PUT", "/enrollments/e", "{", 400004, "the body is not JSON: unexpected end of JSON input"},
		"a list":                      {"PUT", "/enrollments/e", "[]", 400004, "the body must not be of type array"},
		"a member of another type":    {"PUT", "/enrollments/e", `{"attestation":{"type":1}}`, 400004, "attestation.type must not be of type number"},
		"another id":                  {"PUT", "/enrollments/e", `{"registrationId":"f","attestation":{"type":"symmetricKey"}}`, 400004, "registrationId in the body is not that of the path"},
		"a group as an individual":    {"PUT", "/enrollments/e", `{"enrollmentGroupId":"e","attestation":{"type":"symmetricKey"}}`, 400004, "registrationId in the body is not that of the path"},
		"an individual as a group":    {"PUT", "/enrollmentGroups/e", `{"registrationId":"e","attestation":{"type":"symmetricKey"}}`, 400004, "enrollmentGroupId in the body is not that of the path"},
		"a TPM":                       {"PUT", "/enrollments/e", `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"AAAA"}}}`, 400004, ""},
		"a body that is too long":     {"PUT", "/enrollments/e", `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, 413001, "the body must be at most 131072 bytes"},
		"a method that there is none": {"PATCH", "/enrollments/there", "{}", 405000, "Method not allowed"},
		"a path that there is none":   {"GET", "/enrollments/there/keys", "", 404204, "the provisioning service has no such operation"},
		"an empty id":                 {"GET", "/enrollments//attestationmechanism", "", 404204, "the provisioning service has no such operation"},
		"the registration of nobody":  {"GET", "/registrations/e", "", 404201, ""},
		"those of no group":           {"POST", "/registrations/e/query", "", 404204, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.do(tt.method, tt.path, tt.body)
			text := tt.text
			if text == "" {
				text = a.Text(t, "message")
			}
			wantError(t, a, tt.code, text)
		})
	}
	for _, version := range []string{"", "?api-version=", "?api-version=latest", "?api-version=2021-10-1"} {
		a := h.DoRaw(wiretest.Call{Method: "GET", Path: "/enrollments/there" + version, Token: h.Token(node.ProvisioningPolicy)})
		wantError(t, a, 400004, "api-version is missing or not one: it is a date, such as 2021-10-01")
	}
}

// Neither an answer to a refusal nor the log has keys, and the log says under the
// answer's id why.
func TestTheLogSaysWhyAndHasNoKeys(t *testing.T) {
	h := startService(t, node.Options{})
	a := h.do("PUT", "/enrollments/e", `{"registrationId":"f","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"`+someKey+`"}}}`)
	id := a.Header.Get("x-ms-request-id")
	log := h.Log.String()
	if !strings.Contains(log, "request="+id) || !strings.Contains(log, "registrationId in the body is not that of the path") {
		t.Errorf("the log does not say why %s was refused:\n%s", id, log)
	}
	if strings.Contains(log, someKey) {
		t.Error("the log has a key")
	}
}

// What the hub has of the same names is not the provisioning service's.
func TestTheHubKeepsItsOwnPaths(t *testing.T) {
	h := startService(t, node.Options{})
	h.Device("registrations")
	h.Module("registrations", "register")
	for _, path := range []string{"/devices/registrations", "/devices/registrations/modules", "/devices/registrations/modules/register", "/twins/registrations"} {
		h.Do(wiretest.Call{Method: "GET", Path: path}).Want(t, 200, "")
	}
}
