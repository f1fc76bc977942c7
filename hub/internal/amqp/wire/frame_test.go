package wire_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
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
	return strings.TrimPrefix(fmt.Sprintf("%T", p), "*wire.")
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

// fieldCounts are those that clients which read fields by their index need.
var fieldCounts = map[string]int{
	"Open": 10, "Begin": 8, "Attach": 14, "Flow": 11, "Transfer": 11, "Disposition": 6, "Detach": 3, "End": 1, "Close": 1,
	"SASLMechanisms": 1, "SASLInit": 3, "SASLChallenge": 1, "SASLResponse": 1, "SASLOutcome": 2,
}

func TestPerformativesHaveAllTheirFieldsBehindASmallDescriptor(t *testing.T) {
	for _, p := range append(fullPerformatives(), emptyPerformatives()...) {
		body := appendAny(nil, p, "")[wire.FrameHeader:]
		if body[0] != 0x00 || body[1] != 0x53 || body[3] != 0xc0 && body[3] != 0xd0 {
			t.Errorf("%s begins with %x, want 0053..c0 or 0053..d0", kind(p), body[:4])
		}
		v, rest, err := wire.DecodeValue(body)
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s: DecodeValue(%x) leaves %x, %v", kind(p), body, rest, err)
		}
		fields := v.(wire.Described).Value.(wire.List)
		if want := fieldCounts[kind(p)]; len(fields) != want {
			t.Errorf("%s has %d fields, want %d", kind(p), len(fields), want)
		}
	}
}

func TestWhatClientsInsistOn(t *testing.T) {
	fieldsOf := func(p wire.Performative) wire.List {
		v, _, err := wire.DecodeValue(appendAny(nil, p, "")[wire.FrameHeader:])
		if err != nil {
			t.Fatal(err)
		}
		return v.(wire.Described).Value.(wire.List)
	}
	attach := fieldsOf(&wire.Attach{Source: &wire.Source{}, Target: &wire.Target{}})
	e := &wire.Error{Condition: "amqp:internal-error"}
	for _, tt := range []struct {
		name      string
		want, got any
	}{
		{"handle-max is a number", uint32(0), fieldsOf(&wire.Begin{})[4]},
		{"max-frame-size is a number", uint32(0), fieldsOf(&wire.Open{})[2]},
		{"a source has 11 fields", 11, len(attach[5].(wire.Described).Value.(wire.List))},
		{"a target has 7 fields", 7, len(attach[6].(wire.Described).Value.(wire.List))},
		{"no source is null", nil, fieldsOf(&wire.Attach{})[5]},
		{"no target is null", nil, fieldsOf(&wire.Attach{})[6]},
		{"an error has 3 fields", 3, len(fieldsOf(&wire.Close{Error: e})[0].(wire.Described).Value.(wire.List))},
		{"mechanisms are an array", wire.Array{wire.Symbol("PLAIN")}, fieldsOf(&wire.SASLMechanisms{Mechanisms: []wire.Symbol{"PLAIN"}})[0]},
		{"no capabilities are null", nil, attach[11]},
		{"settle modes are ubytes", uint8(1), fieldsOf(&wire.Attach{SndSettleMode: new(uint8(1))})[3]},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// Frames written by hand: what peers may write that this package doesn't.
func TestFramesOfOtherWritersAreRead(t *testing.T) {
	for name, tt := range map[string]struct {
		frame string
		want  wire.Frame
	}{
		"a begin of four fields": {
			"00000015 02000003 005311 c00704 40 43 5205 5206", wire.Frame{Channel: 3, Body: &wire.Begin{IncomingWindow: 5, OutgoingWindow: 6, HandleMax: math.MaxUint32}},
		},
		"a list0": {"0000000c 02000001 005317 45", wire.Frame{Channel: 1, Body: &wire.End{}}},
		"a descriptor of 8 bytes": {
			"00000013 02000001 0080 0000000000000018 45", wire.Frame{Channel: 1, Body: &wire.Close{}},
		},
		"a descriptor in words": {
			"0000001b 02000001 00a30f 616d71703a636c6f73653a6c697374 45", wire.Frame{Channel: 1, Body: &wire.Close{}},
		},
		"a descriptor in words with a long size": {
			"0000001e 02000001 00b30000000f 616d71703a636c6f73653a6c697374 45", wire.Frame{Channel: 1, Body: &wire.Close{}},
		},
		"an extended header": {"00000010 03000001 ffffffff 005318 45", wire.Frame{Channel: 1, Body: &wire.Close{}}},
		"a list32":           {"00000019 02000000 005316 d0 00000008 00000003 43 5601 40", wire.Frame{Body: &wire.Detach{Closed: true}}},
		"fields that are too many": {
			"00000014 02000000 005316 c00605 4341404041", wire.Frame{Body: &wire.Detach{Closed: true}},
		},
		"booleans of two bytes and a wide uint": {
			"00000000 02000000 005315 c00a04 5601 7000000001 40 42", wire.Frame{Body: &wire.Disposition{Role: wire.Receiver, First: 1}},
		},
		"one mechanism that is no array": {
			"00000016 02010000 005340 c00801 a305 504c41494e", wire.Frame{SASL: true, Body: &wire.SASLMechanisms{Mechanisms: []wire.Symbol{"PLAIN"}}},
		},
		"a ulong where a uint is meant": {
			"00000012 02000000 005316 c00402 530941", wire.Frame{Body: &wire.Detach{Handle: 9, Closed: true}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := unhex(t, tt.frame)
			binary.BigEndian.PutUint32(b, uint32(len(b)))
			got, err := wire.DecodeFrame(b)
			if err != nil {
				t.Fatalf("DecodeFrame(%x): %v", b, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("DecodeFrame(%x) (-want +got):\n%s", b, diff)
			}
		})
	}
}

func TestHostileFramesAreRefusedInOneLine(t *testing.T) {
	for _, tt := range []struct{ name, frame, want string }{
		{"nothing", "", "a frame of 0 bytes"},
		{"half a header", "00000008", "a frame of 4 bytes"},
		{"a size that is not the frame's", "00000009 02000000", "a frame of 8 bytes says it has 9"},
		{"a size of 4 GiB", "ffffffff 02000000", "a frame of 8 bytes says it has 4294967295"},
		{"a body in the header", "00000008 01000000", "a frame of 8 bytes has its body at 4"},
		{"a body outside the frame", "00000008 03000000", "a frame of 8 bytes has its body at 12"},
		{"a type of frame that is none", "00000008 02020000", "a frame of type 2"},
		{"an empty SASL frame", "00000008 02010000", "a frame does not begin with a performative"},
		{"a body that is no performative", "0000000a 02000000 4040", "a frame does not begin with a performative"},
		{"a descriptor without a list", "0000000b 02000000 005310", "performative 0x10: a value is cut short"},
		{"a map for a list", "0000000e 02000000 005310 c10100", "performative 0x10: a map instead of a list"},
		{"a performative that is none", "0000000c 02000000 005319 45", "there is no performative 0x19"},
		{"a section for a performative", "0000000c 02000000 005370 45", "there is no performative 0x70"},
		{"words that are no performative", "0000000d 02000000 00a30161 45", "there is no performative \"a\""},
		{"many words that are no performative", "0000013d 02000000 00b3" + "0000012c" + strings.Repeat("61", 300) + "45", `there is no performative "` + strings.Repeat("a", 40) + `"`},
		{"a SASL performative in an AMQP frame", "00000013 02000000 005341 c00501 a302 4141", "a performative is in a frame of the wrong type"},
		{"an AMQP performative in a SASL frame", "0000000c 02010000 005318 45", "a performative is in a frame of the wrong type"},
		{"a transfer in a SASL frame", "0000000f 02010000 005314 c0020143", "a performative is in a frame of the wrong type"},
		{"something behind a performative", "0000000d 02000000 005318 45 40", "a frame has 1 bytes behind its performative"},
		{"a transfer without a handle", "0000000c 02000000 005314 45", "transfer: field 1: missing"},
		{"an attach without a name", "00000011 02000000 005312 c00403 404341", "attach: field 1: missing"},
		{"a flow whose window is a string", "00000013 02000000 005313 c00604 40a10043 43", "flow: field 2: a string instead of a uint"},
		{"a handle larger than a uint", "00000017 02000000 005316 c00a01 800000000100000000", "detach: field 1: 4294967296 is larger than a uint"},
		{"a channel-max larger than a ushort", "0000001a 02000000 005310 c00a04 a100 40 43 7000010000", "open: field 4: 65536 is larger than a ushort"},
		{"a delivery tag that is a string", "00000013 02000000 005314 c00603 4343 a10161", "transfer: field 3: a string instead of a binary"},
		{"a state that is a string", "00000014 02000000 005315 c00705 4143 4041 a100", "disposition: field 5: a string instead of a delivery state"},
		{"an error that is a string", "0000000f 02000000 005318 c00301 a100", "close: field 1: a string instead of an error"},
		{"an error of another kind", "00000012 02000000 005318 c00501 00531045", "close: field 1: a described value instead of an error"},
		{"a source whose list is a string", "00000018 02000000 005312 c00c06 a100 4341 4040 005328a100", "attach: field 6: a string instead of a list"},
		{"properties that are a list", "00000017 02000000 005310 c00c0a a100 40404040 40404040 45", "open: field 10: a list instead of a map"},
		{"mechanisms that are numbers", "00000012 02010000 005340 c00601 e003015001", "sasl-mechanisms: field 1: a ubyte instead of a symbol"},
		{"a list that says it has 255 fields", "0000000f 02000000 005310 c002ff40", "performative 0x10: a list has 255 elements in 1 bytes"},
		{"fields that are fewer than their bytes", "00000011 02000000 005318 c00401 404040", "close: 2 bytes behind its fields"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.frame)
			if len(b) > 8 {
				binary.BigEndian.PutUint32(b, uint32(len(b)))
			}
			f, err := wire.DecodeFrame(b)
			if err == nil {
				t.Fatalf("DecodeFrame(%x) = %+v, want an error", b, f)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("the error of DecodeFrame(%x) (-want +got):\n%s", b, diff)
			}
		})
	}
}

func TestStatesComeBackAsTheyWent(t *testing.T) {
	for _, want := range []wire.State{
		nil, wire.Accepted{}, wire.Released{}, &wire.Rejected{}, &wire.Rejected{Error: &wire.Error{Condition: "amqp:not-found"}},
		&wire.Modified{}, &wire.Modified{DeliveryFailed: true, UndeliverableHere: true, MessageAnnotations: wire.Map{{Key: "a", Value: nil}}},
		&wire.Received{}, &wire.OtherState{Described: wire.Described{Descriptor: uint64(0x34), Value: wire.List{[]byte("txn")}}},
		&wire.OtherState{Described: wire.Described{Descriptor: wire.Symbol("x:y"), Value: nil}},
	} {
		b := wire.AppendFrame(nil, 0, &wire.Disposition{State: want}, nil)
		f, err := wire.DecodeFrame(b)
		if err != nil {
			t.Errorf("DecodeFrame(%x): %v", b, err)
			continue
		}
		if diff := cmp.Diff(want, f.Body.(*wire.Disposition).State); diff != "" {
			t.Errorf("DecodeFrame(%x) (-want +got):\n%s", b, diff)
		}
	}
}

// The states in the shortest form and the longest.
func TestStatesOfOtherWritersAreRead(t *testing.T) {
	for state, want := range map[string]wire.State{
		"00 53 24 45":                   wire.Accepted{},
		"00 53 24 c0 01 00":             wire.Accepted{},
		"00 53 24 d0 00000004 00000000": wire.Accepted{},
		"00 80 0000000000000026 45":     wire.Released{},
		"00 a3 12 616d71703a6163636570746564" + "3a6c697374 45": wire.Accepted{},
		"00 53 25 45":          &wire.Rejected{},
		"00 53 25 c0 02 01 40": &wire.Rejected{},
		"00 53 27 45":          &wire.Modified{},
		"00 53 27 c0 02 01 41": &wire.Modified{DeliveryFailed: true},
	} {
		list := append(unhex(t, "41 43 40 41"), unhex(t, state)...)
		b := append(unhex(t, "00000000 02000000 005315 c0"), byte(1+len(list)), 5)
		b = append(b, list...)
		binary.BigEndian.PutUint32(b, uint32(len(b)))
		f, err := wire.DecodeFrame(b)
		if err != nil {
			t.Errorf("DecodeFrame(%x): %v", b, err)
			continue
		}
		if diff := cmp.Diff(want, f.Body.(*wire.Disposition).State); diff != "" {
			t.Errorf("DecodeFrame(%x) (-want +got):\n%s", b, diff)
		}
	}
}

// A terminus that is no source and no target is refused by whom it is attached
// to, with a condition; the frame is in order.
func TestAnotherTerminusIsAnAddress(t *testing.T) {
	coordinator := wire.Described{Descriptor: uint64(0x30), Value: wire.List{wire.Array{wire.Symbol("amqp:local-transactions")}}}
	list := wire.List{"n", uint32(0), false, nil, nil, "a source", coordinator}
	b := wire.AppendValue(make([]byte, wire.FrameHeader), wire.Described{Descriptor: uint64(0x12), Value: list})
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	b[4] = 2
	f, err := wire.DecodeFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	want := &wire.Attach{Name: "n", Source: &wire.Source{Address: "a source"}, Target: &wire.Target{Address: coordinator}}
	if diff := cmp.Diff(wire.Performative(want), f.Body); diff != "" {
		t.Errorf("DecodeFrame(%x) (-want +got):\n%s", b, diff)
	}
}

// What a frame has said outlives the buffer that it was read into, but for a
// transfer's payload.
func TestPerformativesKeepNothingOfTheBuffer(t *testing.T) {
	for _, want := range fullPerformatives() {
		b := appendAny(nil, want, "")
		f, err := wire.DecodeFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 'X'
		}
		if diff := cmp.Diff(want, f.Body); diff != "" {
			t.Errorf("%s, when its buffer is used again (-want +got):\n%s", kind(want), diff)
		}
	}
}
