package amqp

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
)

func TestParsePlain(t *testing.T) {
	const token = "SharedAccessSignature sr=hub.localhost&sig=x&se=1"
	for response, want := range map[string]plain{
		"\x00iothubowner@sas.root.hub\x00" + token: {policy: "iothubowner", hub: "hub", password: token}, // recorded: CLI
		"\x00iothubowner\x00c2VjcmV0":              {policy: "iothubowner", password: "c2VjcmV0"},        // recorded: amenzhinsky
		"\x00d1@sas.hub\x00" + token:               {id: hub.ID{Device: "d1"}, hub: "hub", password: token},
		"\x00d1/modules/m1@sas.hub\x00" + token:    {id: hub.ID{Device: "d1", Module: "m1"}, hub: "hub", password: token},
		"\x00d1@hub\x00" + token:                   {id: hub.ID{Device: "d1"}, hub: "hub", password: token},
		"\x00a@b@sas.hub\x00" + token:              {id: hub.ID{Device: "a@b"}, hub: "hub", password: token},
		"\x00a%40b@sas.hub\x00" + token:            {id: hub.ID{Device: "a@b"}, hub: "hub", password: token},
		"authzid\x00d1@SAS.hub\x00" + token:        {id: hub.ID{Device: "d1"}, hub: "hub", password: token},
		"\x00d1@sas.hub.localhost\x00" + token:     {id: hub.ID{Device: "d1"}, hub: "hub.localhost", password: token},
	} {
		got, err := parsePlain([]byte(response))
		if err != nil {
			t.Errorf("parsePlain(%q): %v", response, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(plain{})); diff != "" {
			t.Errorf("parsePlain(%q) (-want +got):\n%s", response, diff)
		}
	}
	for _, response := range []string{
		"", "\x00", "\x00\x00", "user", "\x00user", "\x00\x00password", "\x00user\x00", "\x00a\x00b\x00c", "\x00@sas.hub\x00p", "\x00d1@\x00p", "\x00d1@sas.\x00p",
		"\x00@sas.root.hub\x00p", "\x00p@sas.root.\x00p", "\x00a b@sas.hub\x00p", "\x00d/modules/@sas.hub\x00p", "\x000ne0001/registrations/r1@x\x00p",
	} {
		if got, err := parsePlain([]byte(response)); err == nil {
			t.Errorf("parsePlain(%q) = %+v, want an error", response, got)
		}
	}
}

func FuzzParsePlain(f *testing.F) {
	for _, response := range []string{"\x00iothubowner@sas.root.hub\x00t", "\x00iothubowner\x00k", "\x00d1/modules/m1@sas.hub\x00t", "\x00a@b@hub\x00t", "\x00\x00"} {
		f.Add([]byte(response))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		p, err := parsePlain(response)
		if err != nil {
			if strings.Contains(err.Error(), "\x00") {
				t.Errorf("parsePlain(%q) shows what it read: %v", response, err)
			}
			return
		}
		// It is a policy or an identity, never both, and each with what proves it.
		if p.password == "" || (p.policy != "") == (p.id != hub.ID{}) {
			t.Errorf("parsePlain(%q) = %+v", response, p)
		}
		if p.policy == "" && (p.hub == "" || p.id.Validate() != nil) {
			t.Errorf("parsePlain(%q) = %+v", response, p)
		}
	})
}

func TestProtocolOf(t *testing.T) {
	for first, want := range map[string]string{
		"AMQP\x00\x00\x09\x01": "AMQP 0-9-1", "GET / HT": "HTTP", "POST /x ": "HTTP", "OPTIONS ": "HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01": "TLS",
		"\x10\x20\x00\x04MQTT": "MQTT", "AMQP\x00\x01\x01\x00": "not version 1.0", "AMQP\x02\x01\x00\x00": "TLS inside", "\x00\x00\x00\x00\x00\x00\x00\x00": "not AMQP", "GET /": "HTTP",
	} {
		if got := protocolOf(first); !strings.Contains(got, want) {
			t.Errorf("protocolOf(%q) = %q, want %q", first, got, want)
		}
	}
}
