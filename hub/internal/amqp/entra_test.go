package amqp_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/entra"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

const entraIssuer = "https://sts.windows.net/11111111-2222-3333-4444-555555555555/"

// newEntra returns options of a hub that knows the principals, and a function
// that issues their tokens.
func newEntra(t testing.TB, roles map[string][]string) (*entra.Options, func(principal string, expiry time.Time) string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	number := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{{"kty": "RSA", "kid": "k", "use": "sig", "n": number(key.N), "e": number(big.NewInt(int64(key.E)))}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	return &entra.Options{Issuers: []string{entraIssuer}, Keys: file, Roles: roles}, func(principal string, expiry time.Time) string {
		text := encode(map[string]string{"alg": "RS256", "kid": "k"}) + "." +
			encode(map[string]any{"aud": "https://iothubs.azure.net", "iss": entraIssuer, "oid": principal, "exp": expiry.Unix()})
		sum := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
}

func putPrincipal(kind, token string) *wire.Message {
	m := putToken("1", token)
	m.ApplicationProperties[1].Value = kind
	return m
}

// A principal of Entra ID may do what its roles say, and as long as its token
// lasts.
func TestEntraTokens(t *testing.T) {
	const contributor, reader, nobody = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b", "00000000-0000-0000-0000-00000000000c"
	options, issue := newEntra(t, map[string][]string{contributor: {"IoT Hub Data Contributor"}, reader: {"IoT Hub Data Reader"}})
	now := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: now, Entra: options}))
	h.Device("d1")
	partition := h.EventHub().EntityPath + "/ConsumerGroups/$Default/Partitions/0"
	for principal, opens := range map[string][]string{
		contributor: {"/messages/devicebound", "/messages/servicebound/feedback", "/messages/servicebound/filenotifications", partition},
		reader:      {"/messages/servicebound/filenotifications", partition},
		nobody:      nil,
	} {
		for kind, prefix := range map[string]string{"bearer": "Bearer ", "jwt": ""} {
			p := newCBSPeer(t, h, "cbs")
			if got := statusOf(t, p.put(putPrincipal(kind, prefix+issue(principal, h.Now().Add(time.Hour))))); got != 200 {
				t.Fatalf("the token of %s as %s: %d, want 200", principal, kind, got)
			}
			for i, address := range []string{"/messages/devicebound", "/messages/servicebound/feedback", "/messages/servicebound/filenotifications", partition, "/devices/d1/twin"} {
				want := wire.Symbol(unauthorized)
				if has(opens, address) {
					want = ""
				}
				if got := tryAttach(p.AMQPPeer, uint32(i+2), address, address == "/messages/devicebound"); got != want {
					t.Errorf("%s: %s: %q, want %q", principal, address, got, want)
				}
			}
		}
	}
	for principal, want := range map[string]int32{reader: 200, nobody: 401} {
		c := wiretest.OpenAMQP(t, h, wiretest.DialAMQPTCP(t, h))
		if got := askManagementWith(t, c, h.EventHub().EntityPath, issue(principal, h.Now().Add(time.Hour))); got != want {
			t.Errorf("$management answers %d to the token of %s in the question, want %d", got, principal, want)
		}
	}
	p := newCBSPeer(t, h, "cbs")
	if got := statusOf(t, p.put(putPrincipal("jwt", issue(contributor, h.Now().Add(-time.Hour))))); got != 401 {
		t.Errorf("a token that has expired: %d, want 401", got)
	}
	if got := statusOf(t, p.put(putPrincipal("jwt", issue(contributor, h.Now().Add(time.Hour))))); got != 200 {
		t.Fatalf("put-token: %d", got)
	}
	now.Advance(66 * time.Minute)
	p.WantClose(unauthorized)
}

// Over WebSocket it is the same.
func TestServiceOverWebSocket(t *testing.T) {
	h := hubtest.New(t)
	h.Device("d1")
	c := wiretest.OpenAMQP(t, h, wiretest.DialAMQPWebSocket(t, h))
	c.Claim(h.HostName, serviceToken(t, h, "service"))
	if err := send(t, c.Sender("/messages/devicebound"), wiretest.AMQPMessage("/devices/d1/messages/devicebound", "x")); err != nil {
		t.Fatal(err)
	}
	wiretest.WantPending(t, h.Node, "d1", 1)
	_, err := c.NewReceiver(wiretest.WithPatience(t), "/devices/d1/messages/devicebound", &goamqp.ReceiverOptions{})
	if got := conditionOf(t, err); got != unauthorized {
		t.Errorf("a device's link: %q, want %q", got, unauthorized)
	}
}
