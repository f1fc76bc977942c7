package provisioning_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
)

func parsed(t testing.TB, text []byte) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return doc
}

func enrollmentOf(t testing.TB, text string) (e provisioning.Enrollment) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func code(err error) int {
	if err == nil {
		return 200
	}
	return provisioning.RefusalOf(err).HTTPStatus()
}

func TestAnEnrollmentIsReadAsItWasPut(t *testing.T) {
	b := newBench(t, node.Options{})
	e := b.put(enrollmentOf(t, `{
		"registrationId": "Dev-1", "deviceId": "d1", "etag": "\"ignored\"",
		"attestation": {"type": "symmetrickey", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}, "tpm": null, "x509": null},
		"capabilities": {"iotEdge": true}, "iotHubs": null, "optionalDeviceInformation": {"serial": 7},
		"initialTwin": {"tags": null, "properties": {"desired": {"a": 1}}}, "provisioningStatus": "Enabled",
		"registrationState": {"status": "assigned"}}`))
	if e.Created.IsZero() || !e.Created.Equal(e.Updated) || !strings.HasPrefix(e.ETag, `"`) || e.Attestation.SymmetricKey.Primary == "" {
		t.Errorf("put: %+v", e)
	}
	got, err := b.Enrollment(provisioning.Individual, "dev-1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"registrationId": "Dev-1", "deviceId": "d1", "etag": e.ETag,
		"attestation":  map[string]any{"type": "symmetricKey", "symmetricKey": map[string]any{}},
		"capabilities": map[string]any{"iotEdge": true}, "optionalDeviceInformation": map[string]any{"serial": 7.0},
		"initialTwin":        map[string]any{"tags": nil, "properties": map[string]any{"desired": map[string]any{"a": 1.0}}},
		"provisioningStatus": "enabled", "allocationPolicy": "hashed",
		"reprovisionPolicy":  map[string]any{"updateHubAssignment": true, "migrateDeviceData": true},
		"createdDateTimeUtc": e.Created.Format(time.RFC3339Nano), "lastUpdatedDateTimeUtc": e.Updated.Format(time.RFC3339Nano),
	}
	if diff := cmp.Diff(want, parsed(t, text)); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	if m, err := b.AttestationMechanism(provisioning.Individual, "DEV-1"); err != nil || *m.SymmetricKey != *e.Attestation.SymmetricKey {
		t.Errorf("attestation mechanism: %v, %v", m.Type, err)
	}
}

func TestETagsAndKeysOfAnEnrollment(t *testing.T) {
	b := newBench(t, node.Options{})
	for _, first := range []provisioning.Enrollment{byKey("one"), groupByKey("one")} {
		k := first.Kind()
		put := func(e provisioning.Enrollment, m hub.Match) (provisioning.Enrollment, int) {
			e, err := b.PutEnrollment(e, m)
			return e, code(err)
		}
		if _, got := put(first, hub.Match{Any: true}); got != 404 {
			t.Errorf("%s: replacing none: %d", k, got)
		}
		was := b.put(first)
		if _, got := put(first, hub.Match{}); got != 409 {
			t.Errorf("%s: creating again: %d", k, got)
		}
		if _, got := put(first, hub.Match{ETag: `"another"`}); got != 412 {
			t.Errorf("%s: another etag: %d", k, got)
		}
		// As clients do: what was read, changed.
		read, err := b.Enrollment(k, "ONE")
		if err != nil {
			t.Fatal(err)
		}
		read.Status = hub.StatusDisabled
		is, got := put(read, hub.Match{ETag: strings.Trim(was.ETag, `"`)})
		if got != 200 || is.ETag == was.ETag || !is.Created.Equal(was.Created) || *is.Attestation.SymmetricKey != *was.Attestation.SymmetricKey {
			t.Errorf("%s: replaced: %d, %+v", k, got, is)
		}
		read.Attestation.SymmetricKey.Primary = "bmV3IGtleSBvZiBzaXh0ZWVuIGJ5dGVz"
		is, got = put(read, hub.Match{Any: true})
		if got != 200 || is.Attestation.SymmetricKey.Primary != "bmV3IGtleSBvZiBzaXh0ZWVuIGJ5dGVz" || is.Attestation.SymmetricKey.Secondary != was.Attestation.SymmetricKey.Secondary {
			t.Errorf("%s: with another primary key: %d", k, got)
		}
		if err := b.DeleteEnrollment(k, "one", hub.Match{ETag: was.ETag}); code(err) != 412 {
			t.Errorf("%s: delete with an etag of before: %v", k, err)
		}
		if err := b.DeleteEnrollment(k, "One", hub.Match{ETag: is.ETag}); err != nil {
			t.Errorf("%s: delete: %v", k, err)
		}
		for what, err := range map[string]error{
			"delete": b.DeleteEnrollment(k, "one", hub.Match{}),
			"read":   func() error { _, err := b.Enrollment(k, "one"); return err }(),
			"keys":   func() error { _, err := b.AttestationMechanism(k, "one"); return err }(),
		} {
			if code(err) != 404 {
				t.Errorf("%s: %s of none: %v", k, what, err)
			}
		}
	}
}

func TestCertificatesOfAnEnrollment(t *testing.T) {
	b := newBench(t, node.Options{})
	ca := issue("factory", nil)
	der := base64.StdEncoding.EncodeToString(ca.Leaf.Raw)
	for name, text := range map[string]string{
		"PEM":           pemOf(ca).Text,
		"base64":        der,
		"base64, lines": der[:64] + "\r\n" + der[64:],
		"base64 of PEM": base64.StdEncoding.EncodeToString([]byte(pemOf(ca).Text)),
	} {
		e := groupByCert("g", ca)
		e.Attestation.X509.Signing.Primary.Text = text
		e.Attestation.X509.Client = &provisioning.Certificates{}
		got := b.put(e)
		c := got.Attestation.X509.Signing.Primary
		if c.Text != "" || c.Info == nil || c.Info.Subject != "CN=factory" || !strings.EqualFold(c.Info.SHA1, thumb(ca.Leaf)) || c.Info.Version != 3 {
			t.Errorf("%s: %+v", name, c)
		}
		// What was read is put again: the certificate stays.
		b.change(provisioning.Group, "g", func(e *provisioning.Enrollment) { e.Status = hub.StatusDisabled })
		b.change(provisioning.Group, "g", func(e *provisioning.Enrollment) { e.Status = hub.StatusEnabled })
		b.register(byCert("d", issue("d", &ca)), provisioning.Assigned)
		if m, err := b.AttestationMechanism(provisioning.Group, "g"); err != nil || m.X509.Signing.Primary.Text != text {
			t.Errorf("%s: the mechanism has %+v, %v", name, m.X509.Signing.Primary, err)
		}
		if err := b.DeleteEnrollment(provisioning.Group, "g", hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEnrollmentsThatAreRefused(t *testing.T) {
	b := newBench(t, node.Options{})
	leaf := issue("leaf", nil)
	pem, _ := json.Marshal(pemOf(leaf).Text)
	const keys = `"attestation":{"type":"symmetricKey"}`
	for body, want := range map[string]string{
		`{"registrationId":"a b",` + keys + `}`:                              "letters, digits",
		`{"registrationId":"a.",` + keys + `}`:                               "end with",
		`{"registrationId":"` + strings.Repeat("a", 129) + `",` + keys + `}`: "1 to 128",
		`{` + keys + `}`: "1 to 128",
		`{"registrationId":"a","enrollmentGroupId":"b",` + keys + `}`:                                           "not both",
		`{"registrationId":"a","deviceId":"x/y",` + keys + `}`:                                                  "device id",
		`{"enrollmentGroupId":"a","deviceId":"x",` + keys + `}`:                                                 "no deviceId",
		`{"registrationId":"a","provisioningStatus":"on",` + keys + `}`:                                         "provisioningStatus",
		`{"registrationId":"a","optionalDeviceInformation":[1],` + keys + `}`:                                   "object",
		`{"registrationId":"a","initialTwin":{"tags":{"$a":1}},` + keys + `}`:                                   "initialTwin",
		`{"registrationId":"a","initialTwin":{"properties":{"desired":"x"}},` + keys + `}`:                      "initialTwin",
		`{"registrationId":"a","initialTwin":{"tags":{"a":"` + strings.Repeat("x", 40000) + `"}},` + keys + `}`: "initialTwin",
		`{"registrationId":"a"}`:                                                                                                                "attestation type",
		`{"registrationId":"a","attestation":{"type":"none"}}`:                                                                                  "attestation type",
		`{"registrationId":"a","attestation":{"type":"tpm","tpm":{"endorsementKey":"x"}}}`:                                                      "TPM",
		`{"registrationId":"a","attestation":{"type":"symmetricKey","tpm":{}}}`:                                                                 "TPM",
		`{"registrationId":"a","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"x"}}}`:                                        "base64",
		`{"registrationId":"a","attestation":{"type":"symmetricKey","symmetricKey":{"secondaryKey":"YWJj"}}}`:                                   "16 to 64",
		`{"registrationId":"a","attestation":{"type":"symmetricKey","x509":{}}}`:                                                                "no x509",
		`{"registrationId":"a","attestation":{"type":"x509"}}`:                                                                                  "needs x509",
		`{"registrationId":"a","attestation":{"type":"x509","x509":{}}}`:                                                                        "one of",
		`{"registrationId":"a","attestation":{"type":"x509","symmetricKey":{}}}`:                                                                "no symmetricKey",
		`{"registrationId":"a","attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{}}}}}`:                                     "cannot be read",
		`{"registrationId":"a","attestation":{"type":"x509","x509":{"clientCertificates":{"secondary":{}}}}}`:                                   "primary",
		`{"registrationId":"a","attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"%"}}}}}`:                    "neither PEM nor base64",
		`{"registrationId":"a","attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"info":{"sha256Thumbprint":"AB"}}}}}}`:     "cannot be read",
		`{"registrationId":"a","attestation":{"type":"x509","x509":{"signingCertificates":{"primary":{"certificate":` + string(pem) + `}}}}}`:   "clientCertificates",
		`{"enrollmentGroupId":"a","attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":` + string(pem) + `}}}}}`: "signingCertificates",
		`{"registrationId":"a","attestation":{"type":"x509","x509":{"caReferences":{"primary":"x"},"clientCertificates":{"primary":{}}}}}`:      "one of",
		`{"registrationId":"a","allocationPolicy":"nearest",` + keys + `}`:                                                                      "allocationPolicy",
		`{"registrationId":"a","iotHubs":["a b"],` + keys + `}`:                                                                                 "host name",
		`{"registrationId":"a","allocationPolicy":"custom",` + keys + `}`:                                                                       "webhookUrl",
		`{"registrationId":"a","allocationPolicy":"custom","customAllocationDefinition":{"webhookUrl":"ftp://localhost/"},` + keys + `}`:        "customAllocationDefinition",
		`{"registrationId":"a","allocationPolicy":"custom","customAllocationDefinition":{"webhookUrl":"http://169.254.169.254/"},` + keys + `}`: "customAllocationDefinition",
	} {
		_, err := b.PutEnrollment(enrollmentOf(t, body), hub.Match{})
		if code(err) != 400 || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.200s: %v, want 400 with %q", body, err, want)
		}
	}
	if list, _, err := b.Enrollments(provisioning.Individual, "*", "", 0); err != nil || len(list) != 0 {
		t.Errorf("there are %d all the same, %v", len(list), err)
	}
}

func TestEnrollmentsAreListed(t *testing.T) {
	b := newBench(t, node.Options{})
	for n := range 5 {
		b.put(byKey(fmt.Sprintf("Dev-%d", n)))
	}
	b.put(groupByKey("g"))
	var ids []string
	after := ""
	for range 3 {
		list, next, err := b.Enrollments(provisioning.Individual, "select * FROM Enrollments", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			ids = append(ids, e.ID())
			if e.Attestation.SymmetricKey.Primary != "" {
				t.Errorf("a list has keys")
			}
		}
		after = next
	}
	if diff := cmp.Diff([]string{"Dev-0", "Dev-1", "Dev-2", "Dev-3", "Dev-4"}, ids); diff != "" || after != "" {
		t.Errorf("listed (-want +got):\n%s and then %q", diff, after)
	}
	for _, q := range []string{"", "SELECT * FROM enrollmentGroups", "SELECT * FROM enrollments WHERE x = 1", "SELECT deviceId FROM enrollments", "SELECT * FROM enrollments ORDER BY x"} {
		if _, _, err := b.Enrollments(provisioning.Individual, q, "", 0); code(err) != 400 {
			t.Errorf("query %q: %v", q, err)
		}
	}
	az := `{'additional_properties': {}, 'query': 'SELECT *'}`
	if list, _, err := b.Enrollments(provisioning.Group, az, "", 0); err != nil || len(list) != 1 {
		t.Errorf("as the Azure CLI lists them: %v, %v", list, err)
	}
	if list, _, err := b.Enrollments(provisioning.Group, "SELECT * FROM enrollmentGroups", "", 0); err != nil || len(list) != 1 || list[0].GroupID != "g" {
		t.Errorf("groups: %+v, %v", list, err)
	}
}

func TestBulk(t *testing.T) {
	b := newBench(t, node.Options{})
	b.put(byKey("there"))
	bulk := func(mode provisioning.BulkMode, list ...provisioning.Enrollment) (ok bool, codes map[string]int) {
		t.Helper()
		r, err := b.Bulk(provisioning.Individual, mode, list)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		codes = map[string]int{}
		for _, e := range r.Errors {
			codes[e.RegistrationID] = e.Code / 1000
		}
		return r.IsSuccessful, codes
	}
	bad := byKey("bad")
	bad.Attestation.Type = "tpm"
	stale := byKey("there")
	stale.ETag = `"another"`
	for _, c := range []struct {
		mode provisioning.BulkMode
		list []provisioning.Enrollment
		want map[string]int
	}{
		{"create", []provisioning.Enrollment{byKey("a"), byKey("THERE"), bad}, map[string]int{"THERE": 409, "bad": 400}},
		{"update", []provisioning.Enrollment{byKey("a"), byKey("missing")}, map[string]int{"missing": 404}},
		{"updateIfMatchETag", []provisioning.Enrollment{stale, byKey("a")}, map[string]int{"there": 412}},
		{"Delete", []provisioning.Enrollment{stale, byKey("a"), byKey("missing")}, map[string]int{"missing": 404}},
		{"create", []provisioning.Enrollment{byKey("a"), byKey("b")}, map[string]int{}},
	} {
		ok, got := bulk(c.mode, c.list...)
		if diff := cmp.Diff(c.want, got); diff != "" || ok != (len(c.want) == 0) {
			t.Errorf("%s: successful %v, errors (-want +got):\n%s", c.mode, ok, diff)
		}
	}
	many := make([]provisioning.Enrollment, provisioning.MaxBulk+1)
	for n := range many {
		many[n] = byKey(fmt.Sprintf("m%d", n))
	}
	for name, c := range map[string]struct {
		mode provisioning.BulkMode
		list []provisioning.Enrollment
	}{
		"twice": {"create", []provisioning.Enrollment{byKey("c"), byKey("C")}}, "no mode": {"", many[:1]}, "another mode": {"replace", many[:1]},
		"none": {"create", nil}, "too many": {"create", many}, "a group": {"create", []provisioning.Enrollment{groupByKey("g")}},
		"no id": {"delete", []provisioning.Enrollment{{}}},
	} {
		if _, err := b.Bulk(provisioning.Individual, c.mode, c.list); code(err) != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThereAreSoManyGroups(t *testing.T) {
	b := newBench(t, node.Options{})
	for n := range 100 {
		b.put(groupByKey(fmt.Sprintf("g%d", n)))
	}
	if _, err := b.PutEnrollment(groupByKey("more"), hub.Match{}); code(err) != 429 {
		t.Errorf("the 101st group: %v", err)
	}
	b.change(provisioning.Group, "g7", func(e *provisioning.Enrollment) { e.Status = hub.StatusDisabled })
	if err := b.DeleteEnrollment(provisioning.Group, "g7", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	b.put(groupByKey("more"))
}
