package wire_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// fullMessage has every section and every property.
func fullMessage() *wire.Message {
	return &wire.Message{
		Header:              &wire.Header{Durable: true, Priority: 9, TTL: new(time.Minute), FirstAcquirer: true, DeliveryCount: 3},
		DeliveryAnnotations: wire.Map{{Key: wire.Symbol("d"), Value: int32(1)}},
		Annotations: wire.Map{
			{Key: wire.Symbol("x-opt-sequence-number"), Value: int64(7)},
			{Key: wire.Symbol("x-opt-enqueued-time"), Value: time.UnixMilli(1764374400123).UTC()},
		},
		Properties: &wire.Properties{
			MessageID: uuid, UserID: []byte("u1"), To: "/devices/d1/messages/devicebound", Subject: "s", ReplyTo: "r", CorrelationID: uint64(300),
			ContentType: "application/json", ContentEncoding: "utf-8", AbsoluteExpiryTime: time.UnixMilli(1).UTC(),
			CreationTime: time.UnixMilli(2).UTC(), GroupID: "g", GroupSequence: new(uint32(1)), ReplyToGroupID: "rg",
		},
		ApplicationProperties: wire.Map{{Key: "status-code", Value: int32(200)}, {Key: "text", Value: "ä"}, {Key: "none", Value: nil}},
		Data:                  [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), 300)},
		Footer:                wire.Map{{Key: wire.Symbol("f"), Value: true}},
	}
}

func TestMessagesComeBackAsTheyWent(t *testing.T) {
	for name, want := range map[string]*wire.Message{
		"everything":       fullMessage(),
		"data":             {Data: [][]byte{[]byte("x")}},
		"a value":          {HasValue: true, Value: wire.Map{{Key: "partition_ids", Value: wire.Array{"0", "1"}}}},
		"a value of nil":   {HasValue: true},
		"sequences":        {Sequence: []wire.List{{"a", nil}, nil}},
		"empty properties": {Properties: &wire.Properties{}, Data: [][]byte{{}}},
		"an empty header":  {Header: &wire.Header{}, Data: [][]byte{{}}},
		"ids of bytes":     {Properties: &wire.Properties{MessageID: []byte{}, CorrelationID: []byte("c")}, Data: [][]byte{{}}},
		"ids of text":      {Properties: &wire.Properties{MessageID: "", CorrelationID: "c"}, Data: [][]byte{{}}},
		"ids that are 0":   {Properties: &wire.Properties{MessageID: uint64(0), CorrelationID: wire.UUID{}}, Data: [][]byte{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := wire.AppendMessage([]byte("before"), want)[len("before"):]
			got, err := wire.DecodeMessage(b)
			if err != nil {
				t.Fatalf("DecodeMessage(%x): %v", b, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("DecodeMessage(%x) (-want +got):\n%s", b, diff)
			}
		})
	}
}

func TestOnlyWhatIsSetIsWritten(t *testing.T) {
	for _, tt := range []struct {
		message *wire.Message
		want    string
	}{
		{&wire.Message{}, "005375 a000"},
		{&wire.Message{HasValue: true}, "005377 40"},
		{&wire.Message{Annotations: wire.Map{}, Data: [][]byte{{1}}}, "005375 a00101"},
		{
			&wire.Message{Properties: &wire.Properties{ContentType: "a", ContentEncoding: "b"}},
			"005373 c012 0d 40404040 4040 a30161 a30162 40404040 40 005375 a000",
		},
	} {
		if got, want := wire.AppendMessage(nil, tt.message), unhex(t, tt.want); !bytes.Equal(got, want) {
			t.Errorf("AppendMessage(%+v) = %x, want %x", tt.message, got, want)
		}
	}
}

func TestMessagesOfOtherWritersAreRead(t *testing.T) {
	for _, tt := range []struct {
		name, bytes string
		want        *wire.Message
	}{
		{"nothing", "", &wire.Message{}},
		{"no body", "005373 45", &wire.Message{Properties: &wire.Properties{}}},
		{"an empty header", "005370 45 005375 a000", &wire.Message{Header: &wire.Header{Priority: 4}, Data: [][]byte{{}}}},
		{"a header of two fields", "005370 c00402 41 5009", &wire.Message{Header: &wire.Header{Durable: true, Priority: 9}}},
		{"sections in words", "00 a310 616d71703a646174613a62696e617279 a00101", &wire.Message{Data: [][]byte{{1}}}},
		{"a descriptor of 8 bytes", "00 80 0000000000000077 a10161", &wire.Message{HasValue: true, Value: "a"}},
		{"a value that is described", "005377 005305 41", &wire.Message{HasValue: true, Value: wire.Described{Descriptor: uint64(5), Value: true}}},
		{"annotations that are null", "005372 40 005375 a000", &wire.Message{Data: [][]byte{{}}}},
		{"annotations with string keys", "005372 c10702 a10161 a10162", &wire.Message{Annotations: wire.Map{{Key: "a", Value: "b"}}}},
		{"properties that are short", "005373 c00401 a10161", &wire.Message{Properties: &wire.Properties{MessageID: "a"}}},
		{
			"an address that is a number, a content type that is a string", "005373 c00b07 40 40 5201 40 40 40 a10161",
			&wire.Message{Properties: &wire.Properties{ContentType: "a"}},
		},
		{"sections in another order", "005375 a00101 005370 45", &wire.Message{Header: &wire.Header{Priority: 4}, Data: [][]byte{{1}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unhex(t, tt.bytes)
			got, err := wire.DecodeMessage(b)
			if err != nil {
				t.Fatalf("DecodeMessage(%x): %v", b, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("DecodeMessage(%x) (-want +got):\n%s", b, diff)
			}
		})
	}
}

func TestHostileMessagesAreRefusedInOneLine(t *testing.T) {
	for _, tt := range []struct{ name, bytes, want string }{
		{"no section", "a10161", "a string instead of a message's section"},
		{"a section without a value", "005375", "section 0x75: a value is cut short"},
		{"a section that is none", "005379 40", "a message has no section 0x79"},
		{"a section that is a performative", "005314 45", "a message has no section 0x14"},
		{"words that are no section", "00a30161 45", `a message has no section "a"`},
		{"properties twice", "005373 45 005373 45", "a message has section 0x73 twice"},
		{"a value twice", "005377 40 005377 40", "a message has section 0x77 twice"},
		{"data and a value", "005375 a000 005377 40", "a message has bodies of two kinds"},
		{"a sequence and data", "005376 45 005375 a000", "a message has bodies of two kinds"},
		{"data that are text", "005375 a100", "section 0x75: a string instead of a binary"},
		{"a sequence that is a map", "005376 c10100", "section 0x76: a map instead of a list"},
		{"properties that are a map", "005373 c10100", "section 0x73: a map instead of a list"},
		{"annotations that are a list", "005372 45", "section 0x72: a list instead of a map"},
		{"a message id that is a list", "005373 c00201 45", "section 0x73: field 1: a list instead of a message id"},
		{"a time that is a number", "005373 c00a09 4040404040404040 43", "section 0x73: field 9: a uint instead of a timestamp"},
		{"a priority that is text", "005370 c00402 41 a100", "section 0x70: field 2: a string instead of a ubyte"},
		{"a user id that is a number", "005373 c00302 4043", "section 0x73: field 2: a uint instead of a binary"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := wire.DecodeMessage(unhex(t, tt.bytes))
			if err == nil {
				t.Fatalf("DecodeMessage(%s) = %+v, want an error", tt.bytes, m)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("the error of DecodeMessage(%s) (-want +got):\n%s", tt.bytes, diff)
			}
		})
	}
}

func TestGetTakesStringsAndSymbols(t *testing.T) {
	m := wire.Map{{Key: uint64(1), Value: "other"}, {Key: "a", Value: 1}, {Key: wire.Symbol("b"), Value: 2}, {Key: "b", Value: 3}}
	for name, want := range map[string]any{"a": 1, "b": 2, "c": nil, "": nil} {
		if got := m.Get(name); got != want {
			t.Errorf("Get(%q) = %v, want %v", name, got, want)
		}
	}
}
