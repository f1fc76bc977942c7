package wire_test

import (
	"encoding/hex"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// fullPerformatives have every field set that is read.
func fullPerformatives() []wire.Performative {
	symbols := []wire.Symbol{"a", "b"}
	fields := wire.Fields{{Key: wire.Symbol("com.microsoft:epoch"), Value: int64(7)}, {Key: wire.Symbol("x"), Value: nil}}
	e := &wire.Error{Condition: "amqp:not-found", Description: "no such device", Info: fields}
	filter := wire.Map{{
		Key:   wire.Symbol("apache.org:selector-filter:string"),
		Value: wire.Described{Descriptor: uint64(0x0000468C00000004), Value: "amqp.annotation.x-opt-offset > '-1'"},
	}}
	return []wire.Performative{
		&wire.Open{
			ContainerID: "c", Hostname: "hub.localhost", MaxFrameSize: 65536, ChannelMax: 8191, IdleTimeout: 4 * time.Minute,
			OutgoingLocales: symbols, IncomingLocales: symbols, OfferedCapabilities: symbols, DesiredCapabilities: symbols, Properties: fields,
		},
		&wire.Begin{
			RemoteChannel: new(uint16(0)), NextOutgoingID: math.MaxUint32, IncomingWindow: 5000, OutgoingWindow: 1, HandleMax: 255, Properties: fields,
		},
		&wire.Attach{
			Name: "n", Handle: 300, Role: wire.Receiver, SndSettleMode: new(wire.SndSettled), RcvSettleMode: new(wire.RcvSecond),
			Source: &wire.Source{
				Address: "amqps://hub/messages", Durable: 2, ExpiryPolicy: "never", Timeout: 60, Dynamic: true, DynamicNodeProperties: fields,
				DistributionMode: "move", Filter: filter, DefaultOutcome: wire.Described{Descriptor: uint64(0x26), Value: wire.List(nil)},
				Outcomes: symbols, Capabilities: symbols,
			},
			Target: &wire.Target{
				Address: "t", Durable: 1, ExpiryPolicy: "session-end", Timeout: 1, Dynamic: true, DynamicNodeProperties: fields, Capabilities: symbols,
			},
			InitialDeliveryCount: new(uint32(0)), MaxMessageSize: new(uint64(1 << 40)),
			OfferedCapabilities: symbols, DesiredCapabilities: symbols, Properties: fields,
		},
		&wire.Flow{
			NextIncomingID: new(uint32(1)), IncomingWindow: 2, NextOutgoingID: 3, OutgoingWindow: 4, Handle: new(uint32(5)),
			DeliveryCount: new(uint32(6)), LinkCredit: new(uint32(0)), Available: new(uint32(8)), Drain: true, Echo: true, Properties: fields,
		},
		&wire.Transfer{
			Handle: 1, DeliveryID: new(uint32(0)), DeliveryTag: []byte("tag"), MessageFormat: new(uint32(0x80013700)), Settled: new(false), More: true,
			RcvSettleMode: new(wire.RcvFirst), State: &wire.Received{SectionNumber: 1, SectionOffset: 2}, Resume: true, Aborted: true, Batchable: true,
		},
		&wire.Disposition{Role: wire.Receiver, First: 1, Last: new(uint32(9)), Settled: true, State: &wire.Rejected{Error: e}, Batchable: true},
		&wire.Detach{Handle: 1, Closed: true, Error: e},
		&wire.End{Error: e},
		&wire.Close{Error: e},
		&wire.SASLMechanisms{Mechanisms: []wire.Symbol{"MSSBCBS", "PLAIN"}},
		&wire.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00u\x00p"), Hostname: "h"},
		&wire.SASLChallenge{Challenge: []byte("c")},
		&wire.SASLResponse{Response: []byte("r")},
		&wire.SASLOutcome{Code: 1, AdditionalData: []byte("a")},
	}
}

// emptyPerformatives have nothing set that may be absent.
func emptyPerformatives() []wire.Performative {
	return []wire.Performative{
		&wire.Open{}, &wire.Begin{}, &wire.Attach{}, &wire.Flow{}, &wire.Transfer{}, &wire.Disposition{}, &wire.Detach{}, &wire.End{}, &wire.Close{},
		&wire.SASLMechanisms{Mechanisms: []wire.Symbol{"PLAIN"}}, &wire.SASLInit{Mechanism: "ANONYMOUS"},
		&wire.SASLChallenge{Challenge: []byte{}}, &wire.SASLResponse{Response: []byte{}}, &wire.SASLOutcome{},
	}
}

func isSASL(p wire.Performative) bool { return strings.Contains(kind(p), "SASL") }

func appendAny(b []byte, p wire.Performative, payload string) []byte {
	if isSASL(p) {
		return wire.AppendSASL(b, p)
	}
	return wire.AppendFrame(b, 7, p, []byte(payload))
}

func kind(p wire.Performative) string {
	if p == nil {
		return "nil"
	}
	return strings.TrimPrefix(cmpType(p), "*wire.")
}

func TestFramesComeBackAsTheyWent(t *testing.T) {
	for _, p := range append(fullPerformatives(), emptyPerformatives()...) {
		t.Run(kind(p), func(t *testing.T) {
			want := wire.Frame{Body: p, SASL: isSASL(p)}
			if !want.SASL {
				want.Channel = 7
			}
			payload := ""
			if _, ok := p.(*wire.Transfer); ok {
				payload = "payload"
				want.Payload = []byte(payload)
			}
			b := appendAny([]byte("before"), p, payload)[len("before"):]
			got, err := wire.DecodeFrame(b)
			if err != nil {
				t.Fatalf("DecodeFrame(%x): %v", b, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("DecodeFrame(%x) (-want +got):\n%s", b, diff)
			}
			if size := wire.FrameSize(b); int(size) != len(b) {
				t.Errorf("FrameSize = %d, the frame has %d", size, len(b))
			}
		})
	}
}

func TestAnEmptyFrameHasNoBody(t *testing.T) {
	b := wire.AppendFrame(nil, 0, nil, nil)
	if got, want := hex.EncodeToString(b), "0000000802000000"; got != want {
		t.Errorf("AppendFrame(nil) = %s, want %s", got, want)
	}
	got, err := wire.DecodeFrame(b)
	if diff := cmp.Diff(wire.Frame{}, got); diff != "" || err != nil {
		t.Errorf("DecodeFrame(%x): %v (-want +got):\n%s", b, err, diff)
	}
}
