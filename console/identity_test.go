package console_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

func TestKeysAreShownToWhoAsks(t *testing.T) {
	s := newSite(t)
	before := s.create("d1")
	for _, tab := range deviceTabs {
		s.shows(s.get("/device/d1"+tab), before, false)
	}
	d := s.post("/device/d1/keys")
	s.shows(d, before, true)
	cs, err := sas.ParseConnectionString(textOf(d.one("code", "id", "connection-primary")))
	if err != nil || cs.DeviceID != "d1" || cs.SharedAccessKey != before.Authentication.SymmetricKey.PrimaryKey {
		t.Errorf("the connection string is of %q: %v", cs.DeviceID, err)
	}
	s.shows(s.get("/device/d1"), before, false) // no longer
	if d := s.try("/device/d1/keys"); d.status == http.StatusOK {
		t.Error("the keys can be had by opening a page")
	}

	m := s.createModule("d1", "m1")
	d = s.post("/device/d1/module/m1/keys")
	if text := textOf(d.root); !strings.Contains(text, string(m.Authentication.SymmetricKey.PrimaryKey)) || strings.Contains(text, string(before.Authentication.SymmetricKey.PrimaryKey)) {
		t.Error("the keys of the module are not those that are shown")
	}

	s.create("a;b")
	s.post("/device/a;b/keys").says("does not fit into one")
}

func TestTokensAreGoodForWhatTheySay(t *testing.T) {
	s := newSite(t)
	key := s.create("d1").Authentication.SymmetricKey
	for name, signer := range map[string]sas.Key{"primary": key.PrimaryKey, "secondary": key.SecondaryKey} {
		began := time.Now()
		d := s.post("/device/d1/token", "minutes", "90", "key", name)
		token, err := sas.ParseToken(textOf(d.one("code", "id", "token")))
		if err != nil {
			t.Fatal(err)
		}
		if !token.SignedBy(signer) || !token.Covers("test-hub/devices/d1") || token.Covers("test-hub/devices/d2") {
			t.Errorf("signed with the %s key: %v, for %s", name, token.SignedBy(signer), token.Resource)
		}
		if left := token.Expiry.Sub(began); left < 89*time.Minute || left > 95*time.Minute {
			t.Errorf("it is good for %v", left)
		}
	}
	for _, minutes := range []string{"", "0", "-5", "x", "99999999999999"} {
		if d := s.post("/device/d1/token", "minutes", minutes); d.status != http.StatusBadRequest {
			t.Errorf("a token for %q minutes: status %d", minutes, d.status)
		}
	}
	s.get("/device/d1").saysNot("SharedAccessSignature")
}

func TestKeysAreRenewed(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.createModule("d1", "m1")
	keys := func(module bool) hubrest.SymmetricKey {
		t.Helper()
		d, err := s.service.Device(t.Context(), "d1")
		if !module {
			if err != nil {
				t.Fatal(err)
			}
			return d.Authentication.SymmetricKey
		}
		m, err := s.service.Module(t.Context(), hubrest.Target{DeviceID: "d1", ModuleID: "m1"})
		if err != nil {
			t.Fatal(err)
		}
		return m.Authentication.SymmetricKey
	}
	for _, of := range []string{"/device/d1", "/device/d1/module/m1"} {
		module := strings.Contains(of, "module")
		for _, tt := range []struct {
			which              string
			primary, secondary bool // are new
		}{{"primary", true, false}, {"secondary", false, true}, {"both", true, true}} {
			before := keys(module)
			d := s.post(of+"/renew", "which", tt.which, "etag", s.get(of).value("form", of+"/renew", "etag"))
			after := keys(module)
			if (before.PrimaryKey != after.PrimaryKey) != tt.primary || (before.SecondaryKey != after.SecondaryKey) != tt.secondary {
				t.Errorf("%s, %s: the wrong keys are new", of, tt.which)
			}
			if text := textOf(d.root); strings.Contains(text, string(after.PrimaryKey)) || strings.Contains(text, string(after.SecondaryKey)) {
				t.Errorf("%s, %s: the page shows a key", of, tt.which)
			}
		}
		before := keys(module)
		old := s.get(of).value("form", of+"/renew", "etag")
		s.post(of+"/renew", "which", "swap", "etag", old).says("The keys have changed places.")
		after := keys(module)
		if before.PrimaryKey != after.SecondaryKey || before.SecondaryKey != after.PrimaryKey {
			t.Errorf("%s: the keys are not swapped", of)
		}
		s.post(of+"/renew", "which", "both", "etag", old).says("Somebody else has changed it")
		if keys(module) != after {
			t.Errorf("%s: keys were renewed by a page that is old", of)
		}
	}
	if d := s.post("/device/d1/renew", "which", "all", "etag", "x"); d.status != http.StatusBadRequest {
		t.Errorf("other keys: status %d", d.status)
	}
}

func TestADeviceIsDisabledAndEnabled(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.post("/device/d1/status", "status", "disabled", "reason", "lost & found").says("Device d1 is disabled.")
	d := s.get("/device/d1")
	d.says("disabled : lost & found")
	if s.get("/device/d1").value("form", "/device/d1/status", "status") != "enabled" {
		t.Error("a disabled device is not offered to be enabled")
	}
	s.post("/device/d1/status", "status", "enabled").says("Device d1 is enabled.")
	if d := s.post("/device/d1/status", "status", "gone"); d.status != http.StatusBadRequest {
		t.Errorf("another status: %d", d.status)
	}
	s.post("/device/d1/status", "status", "disabled", "reason", strings.Repeat("x", 129)).says("longer than the 128 characters")
}

func TestADeviceIsDeletedOnlyWhenItsIDIsTyped(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.createModule("d1", "m1")
	etag := s.get("/device/d1").value("form", "/device/d1/delete", "etag")
	for _, typed := range []string{"", "d", "D1", "m1"} {
		s.post("/device/d1/delete", "confirm", typed, "etag", etag).says(`type "d1" to confirm`)
	}
	s.post("/device/d1/delete", "confirm", "d1", "etag", "AAAA").says("Somebody else has changed it")
	if d := s.post("/device/d1/delete", "confirm", "d1"); d.status != http.StatusBadRequest {
		t.Errorf("without an etag: status %d", d.status)
	}
	module := s.get("/device/d1/module/m1").value("form", "/device/d1/module/m1/delete", "etag")
	s.post("/device/d1/module/m1/delete", "confirm", "m1", "etag", module).says("Module m1 is deleted.")
	if _, err := s.service.Device(t.Context(), "d1"); err != nil {
		t.Fatalf("the device is gone too soon: %v", err)
	}
	s.post("/device/d1/delete", "confirm", "d1", "etag", etag).says("Device d1 is deleted.")
	if _, err := s.service.Device(t.Context(), "d1"); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("the device is there: %v", err)
	}
}

func TestTheIdentityTellsWhyADeviceIsNotThere(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.get("/device/d1").says("disconnected")
	d := s.device("d1", nil)
	s.get("/device/d1").says("mqtts from 127.0.0.1")
	d.Close()
	until(t, func() bool { return strings.Contains(s.get("/device/d1").text("main"), "State disconnected") })
	s.get("/device/d1").says("the device disconnected")
}

func TestADeviceWithACertificateHasNoKeys(t *testing.T) {
	s := newSite(t)
	print := strings.Repeat("AB", 20)
	_, err := s.service.CreateDevice(t.Context(), hubrest.Device{DeviceID: "d1", Authentication: hubrest.Authentication{
		Type: hubrest.AuthSelfSigned, X509Thumbprint: hubrest.X509Thumbprint{PrimaryThumbprint: print, SecondaryThumbprint: print}}})
	if err != nil {
		t.Fatal(err)
	}
	d := s.get("/device/d1")
	d.says("selfSigned")
	d.says(print)
	if len(d.all("form", "action", "/device/d1/keys")) != 0 {
		t.Error("it is offered to show keys")
	}
	for _, action := range []string{"/keys", "/token", "/mqtt"} {
		s.post("/device/d1"+action, "minutes", "5").says("It has no keys: it authenticates by selfSigned")
	}
	s.post("/device/d1/renew", "which", "both", "etag", "x").says("It has no keys")
}
