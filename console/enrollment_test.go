package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// provisioning is a client of the provisioning service of the site's hub.
func (s *site) provisioning() *hubrest.ProvisioningClient {
	s.Helper()
	p, err := hubrest.NewProvisioning(hubrest.Options{ConnectionString: s.hub.Policy("provisioningserviceowner"), TLS: s.hub.ClientTLS()})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(p.Close)
	return p
}

func TestAnEnrollmentGroupIsCreatedChangedAndDeleted(t *testing.T) {
	s := newSite(t)
	form := []string{"kind", "group", "id", "line-7", "by", "keys", "again", "never", "tags", `{"site":"<b>"}`, "desired", `{"interval":60}`}
	d := s.post("/enrollments", form...)
	d.says("The enrollment group is created")
	d.isPlain()
	if d := s.post("/enrollments", form...); d.status != http.StatusConflict {
		t.Errorf("once more: status %d", d.status)
	}
	a, err := s.provisioning().AttestationMechanism(t.Context(), hubrest.Group, "line-7")
	if err != nil {
		t.Fatal(err)
	}
	key := string(a.SymmetricKey.PrimaryKey)
	derived, err := sas.DeriveKey(a.SymmetricKey.PrimaryKey, "Pump-7")
	if err != nil {
		t.Fatal(err)
	}
	if d.holds(key) {
		t.Error("the page has the key before anybody asks")
	}
	if shown := s.post("/enrollment/group/line-7/keys"); !shown.holds(key) {
		shown.Errorf("the key is not shown: %s", shown.text("main"))
	}
	if shown := s.post("/enrollment/group/line-7/keys", "registration", "Pump-7"); shown.holds(key) || shown.text("code") != string(derived) {
		shown.Errorf("the key of a device is not shown alone: %s", shown.text("main"))
	}

	text := textOf(d.one("textarea", "name", "text"))
	etag, _ := attribute(d.all("input", "name", "etag")[0], "value")
	changed := strings.Replace(text, `"enabled"`, `"disabled"`, 1)
	s.post("/enrollment/group/line-7", "etag", etag, "text", changed).says("disabled")
	if now, err := s.provisioning().AttestationMechanism(t.Context(), hubrest.Group, "line-7"); err != nil || string(now.SymmetricKey.PrimaryKey) != key {
		t.Errorf("the change has made another key: %v", err)
	}
	if d := s.post("/enrollment/group/line-7", "etag", etag, "text", changed); d.status != http.StatusConflict {
		t.Errorf("with the etag of before: status %d", d.status)
	}
	for _, bad := range []string{"", "{", `{"provisioningStatus":7}`, `{"provisionigStatus":"enabled"}`} {
		if d := s.post("/enrollment/group/line-7", "etag", etag, "text", bad); d.status != http.StatusBadRequest {
			t.Errorf("%q: status %d", bad, d.status)
		}
	}
	s.post("/enrollment/group/line-7/delete", "confirm", "line-8").says("Not done")
	s.post("/enrollment/group/line-7/delete", "confirm", "line-7").says("is deleted")
	if d := s.try("/enrollment/group/line-7"); d.status != http.StatusNotFound {
		t.Errorf("once it is deleted: status %d", d.status)
	}
}

func TestARegistrationIsShownAndForgotten(t *testing.T) {
	s := newSite(t)
	s.post("/enrollments", "kind", "individual", "id", "pump-1", "device", "pump-one")
	a, err := s.provisioning().AttestationMechanism(t.Context(), hubrest.Individual, "pump-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mqttdevice.Register(t.Context(), mqttdevice.RegistrationOptions{
		Host: s.hub.HostName, IDScope: s.hub.IDScope(), RegistrationID: "pump-1", Key: a.SymmetricKey.PrimaryKey, Addr: s.hub.MQTTSAddr, TLS: s.hub.ClientTLS(),
	}); err != nil {
		t.Fatal(err)
	}
	s.get("/enrollments?kind=individual").says("assigned")
	s.get("/enrollment/individual/pump-1").says("pump-one")
	d := s.get("/registrations?id=Pump-1")
	d.says("assigned")
	d.says("pump-one")
	s.post(d.url.Path+"/delete", "confirm", "pump").says("Not done")
	s.post("/registration/pump-1/delete", "confirm", "pump-1").says("is forgotten")
	if d := s.try("/registrations?id=pump-1"); d.status != http.StatusNotFound {
		t.Errorf("once it is forgotten: status %d", d.status)
	}
	if d := s.try("/registrations"); d.status != http.StatusBadRequest {
		t.Errorf("without an id: status %d", d.status)
	}
}

func TestEnrollmentsAreListedPageByPage(t *testing.T) {
	s := newSite(t)
	p := s.provisioning()
	for _, id := range []string{"a", "b"} {
		if _, err := p.CreateEnrollment(t.Context(), hubrest.Enrollment{RegistrationID: id, Attestation: hubrest.Attestation{Type: hubrest.BySymmetricKey}}); err != nil {
			t.Fatal(err)
		}
	}
	var list []hubrest.Enrollment
	for i := range 30 {
		list = append(list, hubrest.Enrollment{GroupID: "g-" + string(rune('a'+i/10)) + string(rune('0'+i%10)), Attestation: hubrest.Attestation{Type: hubrest.BySymmetricKey}})
	}
	for len(list) > 0 {
		if result, err := p.BulkEnrollments(t.Context(), hubrest.Group, hubrest.BulkCreate, list[:10]); err != nil || !result.IsSuccessful {
			t.Fatal(err, result)
		}
		list = list[10:]
	}
	d := s.get("/enrollments?size=25")
	next, _ := attribute(d.one("a", "rel", "next"), "href")
	if first, second := d.column(), s.get(next).column(); len(first) != 25 || len(second) != 5 || second[4] != "g-c9" {
		t.Errorf("pages %v and %v", first, second)
	}
	s.get("/enrollments?kind=individual").says("2 enrollments")

	// What is exported can be imported.
	export := s.post("/devices/export", "of", "groups", "format", "csv")
	if export.status != http.StatusOK {
		t.Fatalf("export: status %d", export.status)
	}
	s.ended(s.upload("/devices/import", "groups.csv", export.body, "of", "groups", "mode", "createOrUpdate")).says("30 unchanged")
	run := s.ended(s.upload("/devices/import", "new.csv", "registrationId\nc\n", "of", "enrollments", "mode", "create"))
	s.ended(s.post(run.url.Path + "/import")).says("1 created")
}

func TestOnlyWhoMayEnrolls(t *testing.T) {
	none := newSite(t, func(o *console.Options) { o.Provisioning = nil })
	for _, path := range []string{"/enrollments", "/enrollments/new", "/enrollment/group/g", "/registration/r", "/devices/import?of=groups"} {
		if d := none.try(path); d.status != http.StatusNotFound {
			t.Errorf("%s without a provisioning service: status %d", path, d.status)
		}
	}
	read := newSite(t, func(o *console.Options) { o.ReadOnly = true })
	if _, err := read.provisioning().CreateEnrollment(t.Context(), hubrest.Enrollment{GroupID: "g", Attestation: hubrest.Attestation{Type: hubrest.BySymmetricKey}}); err != nil {
		t.Fatal(err)
	}
	if page := read.get("/enrollment/group/g"); len(page.all("form", "method", "post")) != 1 {
		t.Error("a read-only console offers more than to sign out")
	}
	for _, path := range []string{"/enrollments", "/enrollment/group/g", "/enrollment/group/g/keys", "/enrollment/group/g/delete", "/registration/r/delete"} {
		if d := read.post(path, "id", "h", "confirm", "g"); d.status != http.StatusForbidden {
			t.Errorf("%s read-only: status %d", path, d.status)
		}
	}
	if d := read.try("/enrollments?" + url.Values{"kind": {"<b>"}}.Encode()); d.status != http.StatusBadRequest {
		t.Errorf("of a kind that there is not: status %d", d.status)
	}
}

func TestADeviceIsRegistered(t *testing.T) {
	s := newSite(t)
	const id = "a#b?c=%41+%2F"
	s.post("/devices", "id", id, "edge", "1").says("is registered")
	d, err := s.service.Device(t.Context(), id)
	if err != nil || !d.Capabilities.IoTEdge || d.Authentication.Type != hubrest.AuthSAS {
		t.Errorf("device %v, %v", d.DeviceID, err)
	}
	s.post("/devices", "id", "x", "by", "selfSigned", "primary", strings.Repeat("A", 40), "disabled", "1")
	if d, err := s.service.Device(t.Context(), "x"); err != nil || d.Status != hubrest.Disabled || d.Authentication.X509Thumbprint.PrimaryThumbprint == "" {
		t.Errorf("device %v, %v", d.DeviceID, err)
	}
	for name, form := range map[string][]string{"twice": {"id", id}, "no id": {}, "a slash": {"id", "a/b"}, "a proof of none": {"id", "y", "by", "smile"}, "a thumbprint of none": {"id", "y", "by", "selfSigned", "primary", "x"}} {
		if d := s.post("/devices", form...); d.status != http.StatusBadRequest && d.status != http.StatusConflict || len(d.all("p", "role", "alert")) != 1 {
			t.Errorf("%s: status %d: %s", name, d.status, d.text("main"))
		}
	}
	if d := newSiteAs(t, "service").post("/devices", "id", "z"); d.status != http.StatusForbidden {
		t.Errorf("with the policy service: status %d", d.status)
	}
}
