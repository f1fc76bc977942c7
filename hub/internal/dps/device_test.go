package dps_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// deviceToken is what a device signs that registers, as Node writes it: with slashes.
func deviceToken(t *testing.T, scope, id string, key sas.Key, expiry time.Time) string {
	t.Helper()
	return wiretest.Sign(t, scope+"/registrations/"+id, "registration", key, expiry)
}

func TestDevicesRegisterByKeys(t *testing.T) {
	h := startService(t, node.Options{})
	h.do("PUT", "/enrollments/r1", `{"deviceId":"d1","attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"`+someKey+`","secondaryKey":"`+someKey+`"}},"initialTwin":{"tags":{"site":"north"}}}`).Want(t, 200, "")
	group := h.do("PUT", "/enrollmentGroups/g1", `{"attestation":{"type":"symmetricKey"}}`).Want(t, 200, "")
	derived, err := sas.DeriveKey(sas.Key(group.Text(t, "attestation.symmetricKey.secondaryKey")), "m1")
	if err != nil {
		t.Fatal(err)
	}
	expiry := wiretest.Now.Add(time.Hour)
	ask := func(method, id, rest, body, token string) wiretest.Answer {
		t.Helper()
		return h.Do(wiretest.Call{Method: method, Path: "/" + h.IDScope() + "/registrations/" + id + rest, Body: body, Token: token})
	}
	own := deviceToken(t, h.IDScope(), "r1", someKey, expiry)
	a := ask("PUT", "r1", "/register", `{"registrationId":"r1","payload":{"a":1}}`, own).Want(t, 200, "")
	for path, want := range map[string]string{
		"status": "assigned", "registrationState.status": "assigned", "registrationState.assignedHub": "localhost", "registrationState.deviceId": "d1",
		"registrationState.registrationId": "r1", "registrationState.substatus": "initialAssignment",
	} {
		if got := a.Text(t, path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	ask("GET", "r1", "/operations/"+a.Text(t, "operationId"), "{}", own).Want(t, 200, a.Body)
	if got := ask("POST", "r1", "", `{"registrationId":"r1"}`, own).Want(t, 200, ""); got.Text(t, "assignedHub") != "localhost" {
		t.Errorf("look-up: %s", got.Body)
	}
	if i, err := h.Identity(hub.ID{Device: "d1"}); err != nil || i.Auth.SymmetricKey.Primary != someKey {
		t.Errorf("the identity: %v, %v", i, err)
	}
	ask("PUT", "m1", "/register?api-version=2019-03-31&forceRegistration=true", "", deviceToken(t, h.IDScope(), "m1", derived, expiry)).Want(t, 200, "")
	if list := h.do("POST", "/registrations/g1/query", "").Want(t, 200, ""); list.Header.Get("x-ms-item-type") != "deviceRegistration" || !strings.Contains(list.Body, `"m1"`) {
		t.Errorf("the registrations of the group: %s", list.Body)
	}
	h.do("GET", "/registrations/M1", "").Want(t, 200, "")
	h.do("DELETE", "/registrations/m1", "").Want(t, 204, "")
	h.do("GET", "/registrations/m1", "").Want(t, 404, "")

	for name, tt := range map[string]struct {
		scope, id, token string
		code             int
	}{
		"a foreign key":                  {h.IDScope(), "r1", deviceToken(t, h.IDScope(), "r1", sas.NewKey(), expiry), 401002},
		"the key of another":             {h.IDScope(), "r1", deviceToken(t, h.IDScope(), "m1", derived, expiry), 401002},
		"an expired token":               {h.IDScope(), "r1", deviceToken(t, h.IDScope(), "r1", someKey, wiretest.Now.Add(-time.Hour)), 401002},
		"no credential":                  {h.IDScope(), "r1", "-", 401002},
		"a policy":                       {h.IDScope(), "r1", h.Token("iothubowner"), 401002},
		"an unknown scope":               {"0neFFFFFFFF", "r1", deviceToken(t, "0neFFFFFFFF", "r1", someKey, expiry), 404201},
		"a scope that is no id scope":    {"enrolled", "r1", own, 404201},
		"the group's key, not a derived": {h.IDScope(), "m2", deviceToken(t, h.IDScope(), "m2", sas.Key(group.Text(t, "attestation.symmetricKey.primaryKey")), expiry), 401002},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []struct{ method, rest string }{{"PUT", "/register"}, {"GET", "/operations/x"}, {"POST", ""}, {"PATCH", "/nothing"}} {
				a := h.Do(wiretest.Call{Method: o.method, Path: "/" + tt.scope + "/registrations/" + tt.id + o.rest, Token: tt.token})
				wantError(t, a, tt.code, a.Text(t, "message"))
				if text := a.Text(t, "message"); strings.Contains(text, "g1") || strings.Contains(text, "polic") {
					t.Errorf("the device is told %q", text)
				}
			}
		})
	}
	recent := h.Refusals(t.Context()).Recent
	if len(recent) == 0 || recent[0].ID.Device == "" {
		t.Errorf("refusals are not remembered: %v", recent)
	}
	for name, tt := range map[string]struct {
		method, rest, body string
		code               int
	}{
		"another id":       {"PUT", "/register", `{"registrationId":"r2"}`, 400004},
		"no JSON":          {"PUT", "/register", `{`, 400004},
		"a TPM":            {"PUT", "/register", `{"registrationId":"r1","tpm":{"endorsementKey":"AAAA"}}`, 401002},
		"too long":         {"PUT", "/register", `{"payload":"` + strings.Repeat("x", 200<<10) + `"}`, 413001},
		"no operation":     {"GET", "/operations/nothing", "", 404204},
		"no such path":     {"GET", "/nothing", "", 404204},
		"no such method":   {"POST", "/register", "", 405000},
		"look-up, no body": {"GET", "", "", 405000},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask(tt.method, "r1", tt.rest, tt.body, own)
			wantError(t, a, tt.code, a.Text(t, "message"))
		})
	}
}

// While a hub says that it is assigning, a device is told when to ask again; the time
// is the hub's.
func TestDevicesAskAgainWhileTheyAreAssigned(t *testing.T) {
	moved := clock.Stopped(wiretest.Now)
	h := startService(t, node.Options{Assigning: 2500 * time.Millisecond, Clock: moved})
	h.do("PUT", "/enrollments/r1", `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"`+someKey+`","secondaryKey":"`+someKey+`"}}}`).Want(t, 200, "")
	own := deviceToken(t, h.IDScope(), "r1", someKey, wiretest.Now.Add(time.Hour))
	path := "/" + h.IDScope() + "/registrations/r1"
	a := h.Do(wiretest.Call{Method: "PUT", Path: path + "/register", Token: own}).Want(t, 202, `{"operationId":"*","status":"assigning"}`)
	if after := a.Header.Get("Retry-After"); after != "2" && after != "3" {
		t.Errorf("Retry-After is %q", after)
	}
	poll := wiretest.Call{Method: "GET", Path: path + "/operations/" + a.Text(t, "operationId"), Token: own}
	h.Do(poll).Want(t, 202, "")
	h.Advance(3 * time.Second)
	if a := h.Do(poll).Want(t, 200, ""); a.Text(t, "status") != "assigned" || a.Header.Get("Retry-After") != "" {
		t.Errorf("in the end: %v %s", a.Header, a.Body)
	}
}

func TestDevicesRegisterByCertificates(t *testing.T) {
	h := startService(t, node.Options{})
	good, foreign := clientCertificate(t, "x1"), clientCertificate(t, "x1")
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate[0]}))
	h.do("PUT", "/enrollments/x1", `{"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":"`+strings.ReplaceAll(text, "\n", `\n`)+`"}}}}}`).Want(t, 200, "")
	ask := func(with tls.Certificate, id string) (int, string) {
		t.Helper()
		config := h.ClientTLS()
		config.ServerName, config.Time = "localhost", h.Now
		config.Certificates = []tls.Certificate{with}
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequest("PUT", "https://"+h.HTTPSAddr+"/"+h.IDScope()+"/registrations/"+id+"/register?api-version=2019-03-31", strings.NewReader(`{"registrationId":"`+id+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		answer, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	if status, body := ask(good, "x1"); status != 200 || !strings.Contains(body, `"assigned"`) {
		t.Errorf("its own certificate: %d %s", status, body)
	}
	if status, body := ask(foreign, "x1"); status != 401 {
		t.Errorf("another certificate of the same name: %d %s", status, body)
	}
	if status, body := ask(good, "x2"); status != 401 && status != 404 {
		t.Errorf("a name that is not the certificate's: %d %s", status, body)
	}
}

func clientCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: wiretest.Now.Add(-time.Hour), NotAfter: wiretest.Now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
