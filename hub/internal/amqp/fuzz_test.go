package amqp

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

func encoded(m *wire.Message) []byte { return wire.AppendMessage(nil, m) }

func TestReadMessagePrintsProperties(t *testing.T) {
	m, err := readMessage(encoded(&wire.Message{
		ApplicationProperties: wire.Map{
			{Key: "text", Value: "x"}, {Key: wire.Symbol("symbol"), Value: wire.Symbol("y")}, {Key: "bool", Value: false}, {Key: "int", Value: int32(-5)}, {Key: "ulong", Value: uint64(7)},
			{Key: "double", Value: 0.1}, {Key: "float", Value: float32(0.1)}, {Key: "char", Value: wire.Char('é')}, {Key: "time", Value: time.UnixMilli(1500).UTC()},
			{Key: "uuid", Value: wire.UUID{0: 0xab, 15: 1}}, {Key: "binary text", Value: []byte("z")}, {Key: "binary", Value: []byte{0xff}}, {Key: "null", Value: nil}, {Key: "iothub-ack", Value: "full"},
		},
		Data: [][]byte{[]byte("a"), []byte("b")},
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := []hub.Property{
		{Name: "text", Value: "x"}, {Name: "symbol", Value: "y"}, {Name: "bool", Value: "false"}, {Name: "int", Value: "-5"}, {Name: "ulong", Value: "7"},
		{Name: "double", Value: "0.1"}, {Name: "float", Value: "0.1"}, {Name: "char", Value: "é"}, {Name: "time", Value: "1970-01-01T00:00:01.500Z"},
		{Name: "uuid", Value: "ab000000-0000-0000-0000-000000000001"}, {Name: "binary text", Value: "z"}, {Name: "binary", Value: "/w=="}, {Name: "null", Null: true},
	}
	if diff := cmp.Diff(want, m.application); diff != "" {
		t.Errorf("application properties (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]hub.Property{{Name: "iothub-ack", Value: "full"}}, m.system); diff != "" || string(m.body) != "ab" {
		t.Errorf("system properties, body %q (-want +got):\n%s", m.body, diff)
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add(encoded(&wire.Message{Properties: &wire.Properties{MessageID: "m", To: "/devices/d/messages/devicebound"}, ApplicationProperties: wire.Map{{Key: "iothub-ack", Value: "full"}, {Key: "n", Value: int32(1)}}, Data: [][]byte{[]byte("x"), []byte("y")}}))
	f.Add(encoded(&wire.Message{Value: "text", HasValue: true}))
	f.Add(encoded(&wire.Message{ApplicationProperties: wire.Map{{Key: "l", Value: wire.List{"x"}}}}))
	f.Add(encoded(&wire.Message{Sequence: []wire.List{{"x"}}}))
	f.Add([]byte{0, 0x53, 0x75, 0xa0, 1})
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, err := readMessage(payload)
		var refused *wire.Error
		if err != nil {
			if !errors.As(err, &refused) || refused.Condition == "" || len(refused.Description) > 1000 {
				t.Errorf("readMessage: %v", err)
			}
			return
		}
		if len(m.body) > len(payload) {
			t.Errorf("a body of %d bytes was read from %d", len(m.body), len(payload))
		}
		for _, p := range m.application {
			if strings.HasPrefix(p.Name, systemPrefix) || p.Null && p.Value != "" {
				t.Errorf("an application property is %+v", p)
			}
		}
		for _, p := range m.system {
			if !strings.HasPrefix(p.Name, systemPrefix) {
				t.Errorf("a system property is %+v", p)
			}
		}
		// A message to a device is for one that could be.
		if device, c2d, err := newC2D(payload); err == nil {
			if (hub.ID{Device: device}).Validate() != nil || len(c2d.Properties) != len(m.application) || string(c2d.Body) != string(m.body) {
				t.Errorf("to %q: %+v", device, c2d)
			}
		} else if !errors.As(err, &refused) {
			t.Errorf("newC2D: %v", err)
		}
	})
}

func FuzzPutToken(f *testing.F) {
	request := func(operation, kind, token any) []byte {
		return encoded(&wire.Message{ApplicationProperties: wire.Map{{Key: "operation", Value: operation}, {Key: "type", Value: kind}}, Value: token, HasValue: true})
	}
	f.Add(request("put-token", "servicebus.windows.net:sastoken", "SharedAccessSignature sr=h&sig=s&se=1"))
	f.Add(request("put-token", "jwt", "a.b.c"))
	f.Add(request("PUT-TOKEN", "bearer", "Bearer a.b.c"))
	f.Add(request("delete-token", int32(1), nil))
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, err := wire.DecodeMessage(payload)
		if err != nil {
			return
		}
		token, refused := parsePutToken(m)
		if (token == "") != (refused != "") {
			t.Fatalf("parsePutToken: token %q, refused %q", token, refused)
		}
		// What is taken is a credential as the rules know them, once.
		sas, bearer := strings.HasPrefix(token, "SharedAccessSignature "), strings.HasPrefix(token, "Bearer ")
		if token != "" && sas == bearer {
			t.Errorf("the token is %q", token)
		}
	})
}

func TestDeliveryTag(t *testing.T) {
	// As System.Guid.ToByteArray writes it.
	want := []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	if diff := cmp.Diff(want, deliveryTag("00112233-4455-6677-8899-aabbccddeeff")); diff != "" {
		t.Errorf("the tag (-want +got):\n%s", diff)
	}
	if tag := deliveryTag("x"); tag != nil {
		t.Errorf("the tag of what is no GUID is %x", tag)
	}
}

// Every error of the rules has a condition that clients know.
func TestConditions(t *testing.T) {
	for want, list := range map[wire.Symbol][]*hub.Error{
		condNotFound:     {hub.ErrDeviceNotFound, hub.ErrModuleNotFound, hub.ErrDeviceNotOnline},
		condUnauthorized: {hub.ErrUnauthorizedAccess, hub.ErrPrincipalUnauthorized},
		condLimit:        {hub.ErrQueueFull, hub.ErrTooManyMethodCalls},
		condTooLarge:     {hub.ErrMessageTooLarge},
		condArgument:     {hub.ErrArgumentInvalid, hub.ErrArgumentNull, hub.ErrFormat},
		condNotAllowed:   {hub.ErrInvalidOperation, hub.ErrNotInCurrentState},
		condLockLost:     {hub.ErrMessageLockLost},
		condPrecondition: {hub.ErrPreconditionFailed},
		condThrottled:    {hub.ErrThrottled},
		condTimeout:      {hub.ErrGatewayTimeout},
		condInternal:     {hub.ErrServer, hub.ErrServiceUnavailable},
	} {
		for _, e := range list {
			if got := conditionOf(e); got != want {
				t.Errorf("%s: %s, want %s", e.Name, got, want)
			}
		}
	}
}
