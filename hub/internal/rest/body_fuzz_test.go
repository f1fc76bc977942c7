package rest_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// An identityText is what a caller says of an identity.
type identityText struct {
	Status         string
	StatusReason   *string
	ManagedBy      *string
	Authentication *struct {
		Type           string
		SymmetricKey   *struct{ PrimaryKey, SecondaryKey string }
		X509Thumbprint *struct{ PrimaryThumbprint, SecondaryThumbprint *string }
	}
	Capabilities *struct{ IoTEdge bool }
}

// want is what asked becomes: got, but for what is made of nothing.
func (asked identityText) want(got identityText, module bool) identityText {
	want := got
	if want.StatusReason = asked.StatusReason; !module || asked.Status != "" {
		want.Status = strings.ToLower(asked.Status)
	}
	if want.Status == "" {
		want.Status = "enabled"
	}
	if module {
		want.Status, want.StatusReason, want.ManagedBy = got.Status, got.StatusReason, asked.ManagedBy // a module has no status
	} else {
		edge := asked.Capabilities != nil && asked.Capabilities.IoTEdge
		want.Capabilities = &struct{ IoTEdge bool }{edge}
	}
	a := asked.Authentication
	if a == nil || got.Authentication == nil {
		return want
	}
	auth := *got.Authentication
	if a.Type != "" && !strings.EqualFold(a.Type, auth.Type) {
		auth.Type = a.Type // which is wrong
	}
	if keys := a.SymmetricKey; auth.Type == "sas" && keys != nil && keys.PrimaryKey != "" {
		auth.SymmetricKey = keys
	}
	if prints := a.X509Thumbprint; auth.Type == "selfSigned" && prints != nil {
		auth.X509Thumbprint = prints
	}
	want.Authentication = &auth
	return want
}

// withoutTags is a document without what every write changes.
func withoutTags(t testing.TB, text string) map[string]any {
	t.Helper()
	var doc map[string]any
	decodeLoosely(t, text, &doc)
	delete(doc, "etag")
	return doc
}

// A document of an identity is refused and leaves nothing, or it is there as it
// was meant, reads as it was answered, and can be sent back.
func FuzzPutIdentity(f *testing.F) {
	h := startBare(f, node.Options{})
	wiretest.Create(f, h.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	for _, body := range capturedBodies(f, "PUT /devices/") {
		f.Add(body, strings.Contains(body, "moduleId"))
	}
	for _, body := range []string{
		`{}`, `null`, `[]`, `{"deviceId":"other"}`, `{"status":"DISABLED","statusReason":"\ud800"}`,
		`{"authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"` + strings.Repeat("aB", 20) + `","secondaryThumbprint":""}}}`,
		`{"authentication":{"type":"SAS","symmetricKey":{"primaryKey":"a2V5","secondaryKey":null}}}`,
		`{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=","secondaryKey":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}}}`,
		`{"authentication":{"type":"certificateAuthority"},"capabilities":{"iotEdge":true},"parentScopes":["ms-azure-iot-edge://e-1"],"deviceScope":""}`,
		`{"deviceScope":"ms-azure-iot-edge://e-1"}`, `{"status":"enabled","managedBy":"IotEdge"}`,
	} {
		f.Add(body, false)
		f.Add(body, true)
	}
	f.Fuzz(func(t *testing.T, body string, module bool) {
		path := "/devices/new"
		if module {
			path = "/devices/dev/modules/new"
		}
		created := h.do("PUT", path, body)
		if refused(t, created) {
			h.do("GET", path, "").Want(t, 404, "")
			return
		}
		defer func() { h.do("DELETE", path, "").Want(t, 204, "") }()
		var asked, got identityText
		decodeLoosely(t, body, &asked)
		decodeLoosely(t, created.Body, &got)
		if diff := cmp.Diff(asked.want(got, module), got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s\nthe identity (-want +got):\n%s", body, diff)
		}
		if diff := cmp.Diff(created.Body, h.get(t, path)); diff != "" {
			t.Errorf("%s\nthe identity that is read (-created +read):\n%s", body, diff)
		}
		again := h.do("PUT", path, created.Body, "If-Match", "*").Want(t, 200, "")
		if diff := cmp.Diff(withoutTags(t, created.Body), withoutTags(t, again.Body)); diff != "" {
			t.Errorf("%s\nthe identity sent back (-created +sent back):\n%s", body, diff)
		}
	})
}

// A bulk operation is refused as a whole and changes nothing, or every entry is
// applied, or named in the answer and not applied.
func FuzzBulk(f *testing.F) {
	h := startBare(f, node.Options{})
	for _, body := range capturedBodies(f, "POST /devices?", "POST /devices/?") {
		f.Add(body)
	}
	for _, body := range []string{
		`[]`, `[{}]`, `[null]`, `[{"id":"new"}]`, `[{"id":"dev","importMode":"create"},{"id":"new","importMode":"create"}]`,
		`[{"id":"dev","moduleId":"m","importMode":"DELETE"},{"id":"dev","importMode":"deleteIfMatchETag","eTag":"\"x\""}]`,
		`[{"id":"dev","importMode":"updateTwin","tags":{"a":1},"properties":{"desired":{"b":null}}},{"id":"none","importMode":"updateTwinIfMatchETag","twinETag":"*"}]`,
		`[{"id":"new","tags":{"a":{"b":[1]}},"properties":{"desired":{"c":1},"reported":{"d":2}},"status":"disabled"},{"id":"new","moduleId":"n"}]`,
		`[{"id":"new","tags":{"$a":1}},{"id":"n ew"},{"id":"dev","properties":{"desired":[]}},{"id":"dev","moduleId":"$edgeHub"}]`,
		`[{"id":"new"},{"ID":"new"}]`, `[{"id":"a","importMode":"x"}]`, `[` + strings.Repeat(`{"id":"d"},`, 101) + `{}]`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		h.clear(t)
		wiretest.Create(t, h.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
		wiretest.Create(t, h.Node, hub.ID{Device: "dev", Module: "m"}, hub.IdentitySpec{})
		before := h.everything(t)
		a := h.do("POST", "/devices", body)
		if a.Header.Get("iothub-errorcode") != hub.ErrBulkOperation.Name && refused(t, a) {
			if diff := cmp.Diff(before, h.everything(t)); diff != "" {
				t.Errorf("%s\nis refused with %s, and changes (-before +after):\n%s", body, a.Body, diff)
			}
			return
		}
		type entry struct {
			ID, ModuleID, ImportMode string
			Tags                     json.RawMessage
		}
		var entries []entry
		decodeLoosely(t, body, &entries)
		var answer struct {
			IsSuccessful bool
			Errors       []struct {
				DeviceID string
				ModuleID *string
			}
		}
		decodeLoosely(t, a.Body, &answer)
		if answer.IsSuccessful != (len(answer.Errors) == 0) || answer.IsSuccessful != (a.Status == 200) || len(entries) == 0 || len(entries) > hub.MaxBulk {
			t.Fatalf("%s: %d %s", body, a.Status, a.Body)
		}
		failed := make(map[hub.ID]bool)
		for _, e := range answer.Errors {
			id := hub.ID{Device: e.DeviceID}
			if e.ModuleID != nil {
				id.Module = *e.ModuleID
			}
			failed[id] = true
		}
		deleted := func(e entry) bool { return strings.HasPrefix(strings.ToLower(e.ImportMode), "delete") }
		for n, e := range entries {
			id := hub.ID{Device: e.ID, Module: e.ModuleID}
			_, err := h.Identity(id)
			laterDelete := slices.ContainsFunc(entries[n:], func(later entry) bool { return later.ID == e.ID && deleted(later) })
			switch {
			case failed[id]:
				delete(failed, id) // each is named once
				if err == nil && id.Device != "dev" {
					t.Errorf("%s: %s failed by %s, and is there", body, id, a.Body)
				}
			case deleted(e) != (err != nil) && !laterDelete:
				t.Errorf("%s: %s did not fail, and is: %v", body, id, err)
			case err == nil:
				var tags map[string]any
				if len(e.Tags) > 0 {
					decodeLoosely(t, string(e.Tags), &tags)
				}
				if diff := cmp.Diff(withoutNulls(tags), valueOf(t, h.twin(t, id), "tags"), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s: tags of %s (-want +got):\n%s", body, id, diff)
				}
			}
		}
		if len(failed) > 0 {
			t.Errorf("%s: %s names others: %v", body, a.Body, failed)
		}
	})
}

// withoutNulls is what is left of a patch that was merged into nothing.
func withoutNulls(v map[string]any) map[string]any {
	for name, value := range v {
		switch value := value.(type) {
		case nil:
			delete(v, name)
		case map[string]any:
			withoutNulls(value)
		}
	}
	return v
}

// A twin that is refused stays as it is, one that is taken reads as it was
// answered, and what was read can be sent back and changes nothing.
func FuzzWriteTwin(f *testing.F) {
	h := startBare(f, node.Options{})
	dev := hub.ID{Device: "dev"}
	for _, body := range capturedBodies(f, "PATCH /twins/", "PUT /twins/") {
		f.Add(body, false)
		f.Add(body, true)
	}
	for _, body := range []string{
		`{}`, `null`, `{"tags":null}`, `{"properties":null}`, `{"properties":{"desired":null}}`, `{"tags":{"b":null},"properties":{"desired":{"a":{"c":null}}}}`,
		`{"properties":{"desired":{"a":[1,{"x":null}]}}}`, `{"tags":{"a.b":1}}`, `{"tags":{"A":1,"a":2}}`, `{"properties":{"desired":{"$version":1,"n":1e2,"m":-0}}}`,
		`{"tags":{"a":"\u0000"}}`, `{"properties":{"desired":{"a":` + nested(11) + `}}}`, `{"tags":[]}`, `{"unknown":1}`, `{"tags":{"x":1},"tags":{"y":2}}`,
	} {
		f.Add(body, false)
		f.Add(body, true)
	}
	f.Fuzz(func(t *testing.T, body string, replace bool) {
		h.clear(t)
		wiretest.Create(t, h.Node, dev, hub.IdentitySpec{})
		h.do("PATCH", "/twins/dev", `{"tags":{"b":"old"},"properties":{"desired":{"a":{"c":1,"d":2}}}}`).Want(t, 200, "")
		before := h.twin(t, dev)
		method := "PATCH"
		if replace {
			method = "PUT"
		}
		a := h.do(method, "/twins/dev", body)
		if refused(t, a) {
			if diff := cmp.Diff(before, h.twin(t, dev)); diff != "" {
				t.Errorf("%s is refused with %s, and changes (-before +after):\n%s", body, a.Body, diff)
			}
			return
		}
		if diff := cmp.Diff(h.twin(t, dev), a.Body); diff != "" {
			t.Errorf("%s (-read +answered):\n%s", body, diff)
		}
		for _, again := range []string{"PATCH", "PUT"} {
			back := h.do(again, "/twins/dev", a.Body).Want(t, 200, "")
			for _, part := range []string{"tags", "properties.desired"} {
				if diff := cmp.Diff(valueOf(t, a.Body, part), valueOf(t, back.Body, part)); diff != "" {
					t.Errorf("%s: %s after it was sent back by %s (-before +after):\n%s", body, part, again, diff)
				}
			}
		}
	})
}

// valueOf is a part of a twin without its metadata.
func valueOf(t testing.TB, doc, part string) map[string]any {
	t.Helper()
	var v map[string]any
	if text := gjson.Get(doc, part).Raw; text != "" {
		decodeLoosely(t, text, &v)
	}
	delete(v, "$metadata")
	delete(v, "$version")
	return v
}

// A direct method is called once and as it was asked for, and answered with what
// the device said, or it is refused and not called.
func FuzzInvokeMethod(f *testing.F) {
	h := startBare(f, node.Options{})
	dev := hub.ID{Device: "dev"}
	wiretest.Create(f, h.Node, dev, hub.IdentitySpec{})
	device := connectEcho(f, h, dev)
	for _, body := range capturedBodies(f, "POST /twins/") {
		f.Add(body)
	}
	for _, body := range []string{
		`{"methodName":"reboot"}`, `{"methodName":"reboot","payload":null}`, `{"methodName":"reboot","payload":{"a":[1e2,-0,"\ud800"]},"responseTimeoutInSeconds":5}`,
		`{"methodName":"","payload":1}`, `{"methodName":"a b"}`, `{"methodName":"m","responseTimeoutInSeconds":"30"}`, `{"methodName":"m","responseTimeoutInSeconds":0}`,
		`{"methodName":"m","connectTimeoutInSeconds":9223372036854775807}`, `{"methodName":"m","connectTimeoutInSeconds":-1}`, `{"METHODNAME":"m","Payload": [ ] }`,
		`{"methodName":"m","timeoutInSeconds":0}`, `{"methodName":"m","payload":1,"payload":{"a":1,"a":2}}`, `"m"`, `{"methodName":"é"}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		device.calls = nil
		a := h.do("POST", "/twins/dev/methods", body)
		if refused(t, a) {
			if len(device.calls) > 0 {
				t.Errorf("%s is refused with %s, and the device got %v", body, a.Body, device.calls)
			}
			return
		}
		var asked struct {
			MethodName string
			Payload    json.RawMessage
		}
		decodeLoosely(t, body, &asked)
		if len(device.calls) != 1 || device.calls[0].name != asked.MethodName {
			t.Fatalf("%s: the device got %v", body, device.calls)
		}
		if len(asked.Payload) > 0 && device.calls[0].payload != string(asked.Payload) {
			t.Errorf("%s: the device got %s", body, device.calls[0].payload)
		}
		var answer struct {
			Status  int
			Payload json.RawMessage
		}
		decodeLoosely(t, a.Body, &answer)
		if len(asked.Payload) > 0 && (answer.Status != 200 || string(answer.Payload) != string(asked.Payload)) {
			t.Errorf("%s: the answer is %s", body, a.Body)
		}
	})
}

// headerText reads header fields as HTTP has them, and leaves out those that
// belong to the transfer itself.
func headerText(text, body string) (http.Header, bool) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: h\r\n" + text + "\r\n\r\n")))
	if err != nil || len(r.Header["Content-Length"]) > 0 || len(r.TransferEncoding) > 0 {
		return nil, false
	}
	return r.Header, true
}

// postWith posts a body with header fields.
func (h *bareHub) postWith(path, body string, header http.Header) wiretest.Answer {
	var fields []string
	for name, values := range header {
		for _, value := range values {
			fields = append(fields, name, value)
		}
	}
	return h.do("POST", path, body, fields...)
}

// fieldOf is the last value of a header field, in any spelling of its name.
func fieldOf(header http.Header, name string) (value string) {
	for have, values := range header {
		if strings.EqualFold(have, name) && len(values) > 0 {
			value = values[len(values)-1]
		}
	}
	return value
}

// applicationFields are the application properties among header fields.
func applicationFields(header http.Header) map[string]string {
	fields := make(map[string]string)
	for name := range header {
		if name := strings.ToLower(name); len(name) > len("iothub-app-") && strings.HasPrefix(name, "iothub-app-") {
			fields[name] = fieldOf(header, name)
		}
	}
	return fields
}

// A cloud-to-device message whose headers and body are taken reaches the device
// with all of them, and one that is refused never waits.
func FuzzSendMessage(f *testing.F) {
	h := startBare(f, node.Options{})
	wiretest.Create(f, h.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	f.Add("IoTHub-MessageId: m-1\r\nIoTHub-Ack: Full\r\niothub-app-Color: blue\r\nContent-Type: application/json", "{}")
	f.Add("iothub-expiry: 2026-03-14T10:00:00Z\r\nIoTHub-CorrelationId: a b\r\nIoTHub-UserId: \xff", "\x00\xff")
	f.Add("iothub-expiry: 0001-01-01T00:00:00", "")
	f.Add("iothub-expiry: 9999-12-31T23:59:59+14:00\r\niothub-app-a: 1\r\niothub-app-A: 2\r\niothub-app-: 3", "x")
	f.Add("iothub-ack: sometimes", "x")
	f.Add("iothub-app-$.mid: x\r\niothub-app-iothub-ack: none", "x")
	f.Add("IoTHub-MessageId: é", "x")
	f.Fuzz(func(t *testing.T, fields, body string) {
		header, ok := headerText(fields, body)
		if !ok {
			return
		}
		a := h.postWith("/devices/dev/messages/deviceBound", body, header)
		got := h.do("GET", "/devices/dev/messages/deviceBound", "")
		if refused(t, a) {
			got.Want(t, 204, "")
			return
		}
		if expiry := fieldOf(header, "iothub-expiry"); got.Status == 204 && expiry != "" {
			return // it was too late from the beginning
		}
		got.Want(t, 200, "")
		defer func() {
			h.do("DELETE", "/devices/dev/messages/deviceBound/"+strings.Trim(fieldOf(got.Header, "etag"), `"`), "").Want(t, 204, "")
		}()
		if got.Body != body {
			t.Errorf("the body is %q, want %q", got.Body, body)
		}
		for _, name := range []string{"iothub-messageid", "iothub-correlationid", "iothub-userid"} {
			asked := fieldOf(header, name)
			if asked == "" && name == "iothub-messageid" {
				continue // the hub may have made one
			}
			if value := fieldOf(got.Header, name); value != asked {
				t.Errorf("%s is %q, want %q", name, value, asked)
			}
		}
		if diff := cmp.Diff(applicationFields(header), applicationFields(got.Header)); diff != "" {
			t.Errorf("application properties (-want +got):\n%s", diff)
		}
	})
}

// What a device sends with its headers, alone or as a batch, is stored with all
// of them, and what is refused is not stored.
func FuzzReceiveTelemetry(f *testing.F) {
	h := startBare(f, node.Options{})
	wiretest.Create(f, h.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
	const batch = "Content-Type: application/vnd.microsoft.iothub.json"
	f.Add("IoTHub-MessageId: m-1\r\niothub-app-Color: blue\r\ndt-subject: c", "{}")
	f.Add("iothub-creation-time-utc: yesterday\r\niothub-app-a: \xff\r\niothub-app-A: 2", "\xff")
	f.Add(batch, `[{"body":"aGVsbG8=","properties":{"iothub-app-Color":"blue","iothub-messageid":"1"}},{"body":"text","base64Encoded":false}]`)
	f.Add(batch+"; charset=utf-8", `[{"body":"*"}]`)
	f.Add(batch, `[{},null]`)
	f.Add(batch, `{"body":""}`)
	f.Add(batch, "[]")
	next := int64(0)
	f.Fuzz(func(t *testing.T, fields, body string) {
		header, ok := headerText(fields, body)
		if !ok {
			return
		}
		a := h.postWith("/devices/dev/messages/events", body, header)
		events := wiretest.Events(t, h.Node, hub.EventQuery{Offset: next, Device: "dev", Sources: []hub.EventSource{hub.SourceTelemetry}})
		if len(events) > 0 {
			next = events[len(events)-1].Offset + 1
		}
		if refused(t, a) {
			if len(events) > 0 {
				t.Errorf("%s is refused, and stored as %v", body, events)
			}
			return
		}
		if strings.HasPrefix(header.Get("Content-Type"), strings.TrimPrefix(batch, "Content-Type: ")) && len(events) != 1 {
			var entries []any
			decodeLoosely(t, body, &entries)
			if len(events) != len(entries) {
				t.Errorf("%s: %d events", body, len(events))
			}
			return
		}
		if len(events) != 1 {
			t.Fatalf("%d events of one message", len(events))
		}
		if strings.Contains(strings.ToLower(header.Get("Content-Type")), "microsoft.iothub") {
			return // a batch of one
		}
		if got := string(events[0].Body); got != body {
			t.Errorf("the body is %q, want %q", got, body)
		}
		got := make(map[string]string)
		for _, p := range events[0].Properties {
			got["iothub-app-"+p.Name] = p.Value
		}
		if diff := cmp.Diff(applicationFields(header), got); diff != "" {
			t.Errorf("application properties (-want +got):\n%s", diff)
		}
		for _, p := range events[0].System {
			field := map[string]string{"message-id": "iothub-messageid", "correlation-id": "iothub-correlationid", "user-id": "iothub-userid", "to": "iothub-to",
				"content-type": "iothub-contenttype", "content-encoding": "iothub-contentencoding"}[p.Name]
			if field == "" {
				field = p.Name
			}
			if want := fieldOf(header, field); p.Value != want {
				t.Errorf("%s is %q, want %q", p.Name, p.Value, want)
			}
		}
	})
}

// Whatever a caller asks for, the answer is the hub's own, and a request that is
// refused, or only reads, changes nothing.
func FuzzRequest(f *testing.F) {
	h := startBare(f, node.Options{MaxJobs: 1 << 20})
	for _, text := range capturedRequests(f) {
		f.Add(text)
	}
	for _, line := range []string{
		"GET /iotdm/events?from=latest&device=dev", "GET /iotdm/events?from=2026-03-14T00:00:00Z&source=Telemetry&source=x", "GET /iotdm/events?from=-1",
		"GET /jobs/v2/query?pageSize=1&continuationToken=%25", "GET /devices?top=-1", "DELETE /devices/dev/commands", "GET /messages/serviceBound/feedback",
		"DELETE /messages/serviceBound/feedback/x", "POST /configurations/testQueries", "POST /devices/dev/applyConfigurationContent", "POST /devices/keys/regenerate",
		"PUT /iotdm/certificates/ca", "DELETE /devices/dev/messages/deviceBound/x%3Freject", "GET /statistics/devices", "GET /digitaltwins/dev",
	} {
		f.Add(line + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	f.Add("POST /devices/keys/regenerate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 86\r\n\r\n" + `{"policyKey":"both","devices":[{"id":"dev"},{"id":"dev","moduleId":"m"},{"id":"none"}]}`)
	f.Add("POST /devices/query HTTP/1.1\r\nHost: localhost\r\nx-ms-max-item-count: 1\r\nContent-Length: 33\r\n\r\n" + `{"query":"SELECT * FROM devices"}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil || r.URL.Query().Has("follow") || strings.Contains(strings.ToLower(text), "connecttimeoutinseconds") {
			return // those wait
		}
		h.clear(t)
		wiretest.Create(t, h.Node, hub.ID{Device: "dev"}, hub.IdentitySpec{})
		wiretest.Create(t, h.Node, hub.ID{Device: "dev", Module: "m"}, hub.IdentitySpec{})
		before := h.everything(t)
		a := h.serve(r)
		if (refused(t, a) || r.Method == "GET") && !reflect.DeepEqual(before, h.everything(t)) {
			t.Errorf("%q is answered with %d %s, and changes (-before +after):\n%s", text, a.Status, a.Body, cmp.Diff(before, h.everything(t)))
		}
		for _, c := range h.Configurations.List() {
			if err := h.Configurations.Delete(c.ID, hub.Match{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
