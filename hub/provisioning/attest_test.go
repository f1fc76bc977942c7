package provisioning_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// connects fails unless the device of a registration can connect with its password.
func (b bench) connects(r provisioning.Registration, key sas.Key) {
	b.t.Helper()
	token, err := sas.Sign(r.Hub+"/devices/"+r.DeviceID, "", key, time.Now().Add(time.Hour))
	if err == nil {
		_, err = b.hub.Authenticate(r.Hub, hub.ID{Device: r.DeviceID}, token, nil)
	}
	if err != nil {
		b.t.Errorf("device %s does not connect: %v", r.DeviceID, err)
	}
}

func TestADeviceRegistersWithAKeyOfItsOwn(t *testing.T) {
	b := newBench(t, node.Options{})
	e := byKey("Dev-1")
	e.DeviceID = "thermostat-1"
	e.InitialTwin = twinOf(t, `{"tags":{"site":"north"},"properties":{"desired":{"interval":5}}}`)
	e.Capabilities.IoTEdge = true
	e = b.put(e)
	keys := e.Attestation.SymmetricKey

	r := b.register(bySAS(t, "dev-1", keys.Primary), provisioning.Assigned)
	want := provisioning.Registration{
		RegistrationID: "Dev-1", Hub: "localhost", DeviceID: "thermostat-1", Status: provisioning.Assigned,
		Substatus: "initialAssignment", SymmetricKey: new(struct{}),
		Created: r.Created, Updated: r.Updated, ETag: r.ETag,
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	i := b.identity("thermostat-1")
	if i.Auth.Type != hub.AuthSAS || i.Auth.SymmetricKey != hub.SymmetricKey(*keys) || !i.IoTEdge || i.Status != hub.StatusEnabled {
		t.Errorf("identity: %+v", i)
	}
	if got, want := b.twin("thermostat-1"), `{"site":"north"} {"interval":5} {}`; got != want {
		t.Errorf("twin %s, want %s", got, want)
	}
	b.connects(r, keys.Primary)
	b.connects(b.register(bySAS(t, "DEV-1", keys.Secondary), provisioning.Assigned), keys.Secondary)
	if read, err := b.Enrollment(provisioning.Individual, "DEV-1"); err != nil || read.Registration == nil || read.Registration.DeviceID != "thermostat-1" {
		t.Errorf("the enrollment is read as %+v, %v", read, err)
	}
}

func TestADeviceRegistersWithAKeyThatIsDerived(t *testing.T) {
	b := newBench(t, node.Options{})
	group := b.put(groupByKey("Line-A"))
	keys := group.Attestation.SymmetricKey
	for id, key := range map[string]sas.Key{
		"dev-1": derived(t, keys.Primary, "dev-1"),
		"dev-2": derived(t, keys.Secondary, "dev-2"),
		"DEV-3": derived(t, keys.Primary, "DEV-3"),
		"Dev-4": derived(t, keys.Primary, "dev-4"), // as Azure's documents advise
	} {
		r := b.register(bySAS(t, id, key), provisioning.Assigned)
		if r.RegistrationID != id || r.DeviceID != id {
			t.Errorf("%s is registered as %+v", id, r)
		}
		b.connects(r, key)
	}
	// The same registration under another spelling is the same device.
	if r := b.register(bySAS(t, "dev-3", derived(t, keys.Primary, "dev-3")), provisioning.Assigned); r.DeviceID != "DEV-3" {
		t.Errorf("DEV-3 is %s by its other name", r.DeviceID)
	}
	list, next, err := b.Registrations("line-a", "", 3)
	if err != nil || len(list) != 3 || next == "" {
		t.Fatalf("registrations: %d, %q, %v", len(list), next, err)
	}
	more, next, err := b.Registrations("LINE-A", next, 3)
	if err != nil || len(more) != 1 || next != "" || more[0].RegistrationID != "Dev-4" {
		t.Errorf("more registrations: %+v, %q, %v", more, next, err)
	}
}

func TestThePublishedVectorOfADerivedKey(t *testing.T) {
	b := newBench(t, node.Options{})
	e := groupByKey("g")
	e.Attestation.SymmetricKey = &provisioning.SymmetricKey{Primary: "sK1cISZYKU50RMJjFcUj5auQhVzFKCzrFvctwHk/cHI="}
	b.put(e)
	b.register(bySAS(t, "dev-1", "dEqUp/Yx9kVJdtgNouxUbM9EyS4/r30JGixDJrfB33c="), provisioning.Assigned)
}

func TestADeviceRegistersWithACertificate(t *testing.T) {
	b := newBench(t, node.Options{})
	root := issue("root", nil)
	factory := issue("factory", &root)
	line := issue("line", &factory)
	other := issue("other", nil)
	own, spare := issue("own", nil), issue("own", nil)

	b.put(clientCert("own", own, spare))
	b.put(groupByCert("of-line", line))
	b.put(groupByCert("of-factory", factory))
	b.addCA("acme", root)
	ca := groupByCert("of-root", root)
	ca.Attestation.X509 = &provisioning.X509{CAs: &provisioning.CAReferences{Primary: "gone", Secondary: "acme"}}
	b.put(ca)
	ca.GroupID, ca.RegistrationID = "", "by-ca"
	b.put(ca)

	group := func(name string, id string) {
		t.Helper()
		list, _, err := b.Registrations(name, "", 0)
		for _, r := range list {
			if r.RegistrationID == id {
				return
			}
		}
		t.Errorf("%s is not registered by %s: %v", id, name, err)
	}
	r := b.register(byCert("own", spare), provisioning.Assigned)
	if i := b.identity("own"); r.X509 == nil || r.SymmetricKey != nil || i.Auth.Type != hub.AuthSelfSigned || i.Auth.X509.Primary == nil || i.Auth.X509.Secondary == nil {
		t.Errorf("%+v has %+v", r, i.Auth)
	}
	for _, c := range []struct {
		id, group string
		peer      provisioning.Peer
	}{
		{"a", "of-line", byCert("a", issue("a", &line), line)},
		{"b", "of-line", byCert("b", issue("b", &line))}, // what is in between is stored
		{"c", "of-line", byCert("c", issue("c", &line), line, factory, root)},
		{"d", "of-factory", byCert("d", issue("d", &factory), factory, root)},
		{"e", "of-root", byCert("E", issue("e", &root))},
	} {
		r := b.register(c.peer, provisioning.Assigned)
		group(c.group, r.RegistrationID)
		leaf := c.peer.Chain[0]
		if _, err := b.hub.Authenticate("localhost", hub.ID{Device: r.DeviceID}, "", c.peer.Chain); err != nil {
			t.Errorf("%s does not connect with %s: %v", r.DeviceID, thumb(leaf), err)
		}
	}
	b.register(byCert("by-ca", issue("by-ca", &factory), factory), provisioning.Assigned)

	// A leaf that was rolled is the credential from then on.
	old, rolled := issue("roll", &line), issue("roll", &line)
	b.register(byCert("roll", old), provisioning.Assigned)
	b.register(byCert("roll", rolled), provisioning.Assigned)
	if _, err := b.hub.Authenticate("localhost", hub.ID{Device: "roll"}, "", byCert("roll", old).Chain); !errors.Is(err, hub.ErrUnauthorizedAccess) {
		t.Errorf("the certificate before is still good: %v", err)
	}

	// The nearest counts, also when it is disabled.
	b.change(provisioning.Group, "of-line", func(e *provisioning.Enrollment) { e.Status = hub.StatusDisabled })
	b.register(byCert("a", issue("a", &line), line, factory), provisioning.Disabled)
	if err := b.DeleteEnrollment(provisioning.Group, "of-line", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	b.register(byCert("a", issue("a", &line), line), provisioning.Assigned)
	group("of-factory", "a")

	wantCode(t, "a foreign CA", b.refused(byCert("f", issue("f", &other), other)), 401002, "none of 2 enrollment groups")
	wantCode(t, "a chain with a gap", b.refused(byCert("f", issue("f", &line))), 401002, "unknown authority")
	if err := b.DeleteEnrollment(provisioning.Group, "of-factory", hub.Match{}); err != nil {
		t.Fatal(err)
	}
	b.register(byCert("a", issue("a", &line), line, factory), provisioning.Assigned)
	group("of-root", "a")
	if err := b.hub.DeleteCACertificate("acme"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "a CA that is gone", b.refused(byCert("a", issue("a", &line), line, factory)), 401002, "")
	wantCode(t, "its enrollment", b.refused(byCert("by-ca", issue("by-ca", &factory), factory)), 401002, "enrollment by-ca")
}

func TestWhoIsRefused(t *testing.T) {
	b := newBench(t, node.Options{})
	keys := b.put(byKey("k")).Attestation.SymmetricKey
	own := issue("x", nil)
	b.put(clientCert("x", own))
	good := bySAS(t, "k", keys.Primary)
	with := func(p provisioning.Peer, fn func(*provisioning.Peer)) provisioning.Peer { fn(&p); return p }
	token := func(resource string, expiry time.Time) string {
		s, err := sas.Sign(resource, "registration", keys.Primary, expiry)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		peer provisioning.Peer
		code int
		log  string
	}{
		"another id scope":        {with(good, func(p *provisioning.Peer) { p.Scope = "0neFFFFFFFF" }), 404201, `"0neFFFFFFFF"`},
		"no enrollment":           {bySAS(t, "nobody", keys.Primary), 404201, "no enrollment nobody"},
		"no registration id":      {bySAS(t, "k/..", keys.Primary), 404201, "no registration id"},
		"nothing":                 {with(good, func(p *provisioning.Peer) { p.Password = "" }), 401002, "neither"},
		"no token":                {with(good, func(p *provisioning.Peer) { p.Password = "secret" }), 401002, "SharedAccessSignature"},
		"another key":             {bySAS(t, "k", sas.NewKey()), 401002, "enrollment k: the signature"},
		"another's token":         {with(good, func(p *provisioning.Peer) { p.Password = token(scope+"/registrations/k2", time.Now().Add(time.Hour)) }), 401002, "another resource"},
		"a token that is over":    {with(good, func(p *provisioning.Peer) { p.Password = token(scope+"/registrations/k", time.Now().Add(-time.Hour)) }), 401002, "expired"},
		"a certificate for a key": {byCert("k", issue("k", nil)), 401002, "attested by symmetricKey"},
		"a key for a certificate": {bySAS(t, "x", keys.Primary), 401002, "attested by x509"},
		"another certificate":     {byCert("x", issue("x", nil)), 401002, "thumbprint"},
		"another common name":     {byCert("k", own), 401002, "common name"},
		"a certificate too late":  {byCert("x", wiretest.Issue("x", nil, time.Now().Add(-time.Minute))), 401002, "valid from"},
		"no certificate enrolled": {byCert("nobody", issue("nobody", nil)), 404201, "nor a group"},
	} {
		t.Run(name, func(t *testing.T) {
			b := b
			b.t = t
			got := b.refused(c.peer)
			wantCode(t, name, got, c.code, c.log)
			if strings.Contains(got.Error(), string(keys.Primary)) || c.peer.Password != "" && strings.Contains(got.Error(), c.peer.Password) {
				t.Errorf("a secret shows in %q", got.Error())
			}
		})
	}
	b.register(good, provisioning.Assigned)
	group := b.put(groupByKey("g")).Attestation.SymmetricKey
	wantCode(t, "the group's own key", b.refused(bySAS(t, "m", group.Primary)), 401002, "none of 1 enrollment groups")
	wantCode(t, "another's derived key", b.refused(bySAS(t, "m", derived(t, group.Primary, "n"))), 401002, "none of 1")
	wantCode(t, "a group's key where an enrollment is nearer", b.refused(bySAS(t, "k", derived(t, group.Primary, "k"))), 401002, "enrollment k")
}

// Tokens as the SDKs write their resource.
func TestTokensOfAllSDKs(t *testing.T) {
	b := newBench(t, node.Options{})
	key := b.put(byKey("Dev:1")).Attestation.SymmetricKey.Primary
	expiry := "1900000000"
	for _, sr := range []string{
		scope + "/registrations/Dev:1", scope + "%2Fregistrations%2FDev:1", scope + "%2Fregistrations%2FDev%3A1", scope + "%2fregistrations%2fDev%3a1",
		strings.ToLower(scope) + "%2Fregistrations%2Fdev%3A1",
	} {
		secret, _ := base64.StdEncoding.DecodeString(string(key))
		sum := derived(t, sas.Key(base64.StdEncoding.EncodeToString(secret)), sr+"\n"+expiry)
		sig := strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(string(sum))
		for _, tail := range []string{"&skn=registration&se=" + expiry, "&se=" + expiry + "&skn=", "&se=" + expiry} {
			p := bySAS(t, "Dev:1", key)
			p.Password = "SharedAccessSignature sr=" + sr + "&sig=" + sig + tail
			b.register(p, provisioning.Assigned)
		}
	}
}

func TestACredentialEnds(t *testing.T) {
	b := newBench(t, node.Options{})
	key := b.put(byKey("k")).Attestation.SymmetricKey.Primary
	ca := wiretest.Issue("ca", nil, time.Now().Add(time.Hour))
	b.put(groupByCert("g", ca))
	until := time.Unix(time.Now().Add(time.Hour).Unix(), 0)
	for name, c := range map[string]struct {
		peer provisioning.Peer
		want time.Time
	}{
		"a token, with patience":           {bySAS(t, "k", key), until.Add(sas.Skew)},
		"a certificate when its CA's ends": {byCert("d", issue("d", &ca)), ca.Leaf.NotAfter},
	} {
		got, err := b.Authenticate(c.peer)
		if d := got.Sub(c.want); err != nil || d.Abs() > 2*time.Second {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}
