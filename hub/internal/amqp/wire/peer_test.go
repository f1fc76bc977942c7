package wire_test

import (
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// goAMQPMessage is fullMessage as go-amqp has it. Its UnmarshalBinary gives times
// in UTC.
func goAMQPMessage() *amqp.Message {
	return &amqp.Message{
		Format:              0,
		Header:              &amqp.MessageHeader{Durable: true, Priority: 9, TTL: time.Minute, FirstAcquirer: true, DeliveryCount: 3},
		DeliveryAnnotations: amqp.Annotations{"d": int32(1)},
		Annotations: amqp.Annotations{
			"x-opt-sequence-number": int64(7),
			"x-opt-enqueued-time":   time.UnixMilli(1764374400123).UTC(),
		},
		Properties: &amqp.MessageProperties{
			MessageID: amqp.UUID(uuid), UserID: []byte("u1"), To: new("/devices/d1/messages/devicebound"), Subject: new("s"), ReplyTo: new("r"),
			CorrelationID: uint64(300), ContentType: new("application/json"), ContentEncoding: new("utf-8"),
			AbsoluteExpiryTime: new(time.UnixMilli(1).UTC()), CreationTime: new(time.UnixMilli(2).UTC()),
			GroupID: new("g"), GroupSequence: new(uint32(1)), ReplyToGroupID: new("rg"),
		},
		ApplicationProperties: map[string]any{"status-code": int32(200), "text": "ä", "none": nil},
		Data:                  fullMessage().Data,
		Footer:                amqp.Annotations{"f": true},
	}
}

// go-amqp, which Event Hubs' client for Go is made of, and this package read
// what the other writes.
func TestGoAMQPReadsWhatIsWritten(t *testing.T) {
	b := wire.AppendMessage(nil, fullMessage())
	got := new(amqp.Message)
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatalf("UnmarshalBinary(%x): %v", b, err)
	}
	if diff := cmp.Diff(goAMQPMessage(), got, ignoreUnexported); diff != "" {
		t.Errorf("UnmarshalBinary(%x) (-want +got):\n%s", b, diff)
	}
}

func TestWhatGoAMQPWritesIsRead(t *testing.T) {
	b, err := goAMQPMessage().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeMessage(b)
	if err != nil {
		t.Fatalf("DecodeMessage(%x): %v", b, err)
	}
	if diff := cmp.Diff(fullMessage(), got, sortMaps); diff != "" {
		t.Errorf("DecodeMessage(%x) (-want +got):\n%s", b, diff)
	}
}

// The types that the answers of $management have, as azeventhubs insists.
func TestGoAMQPReadsValues(t *testing.T) {
	b := wire.AppendMessage(nil, &wire.Message{HasValue: true, Value: wire.Map{
		{Key: "partition_ids", Value: []string{"0", "1"}},
		{Key: "partition_count", Value: int32(2)},
		{Key: "created_at", Value: time.UnixMilli(5)},
		{Key: "begin_sequence_number", Value: int64(0)},
		{Key: "is_partition_empty", Value: false},
		{Key: "symbols", Value: []wire.Symbol{"s"}},
		{Key: "numbers", Value: []uint32{1, 300}},
		{Key: "list", Value: wire.List{nil, uint8(1), 1.5}},
	}})
	got := new(amqp.Message)
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatalf("UnmarshalBinary(%x): %v", b, err)
	}
	want := map[string]any{
		"partition_ids": []string{"0", "1"}, "partition_count": int32(2), "created_at": time.UnixMilli(5).UTC(),
		"begin_sequence_number": int64(0), "is_partition_empty": false, "symbols": []amqp.Symbol{"s"}, "numbers": []uint32{1, 300},
		"list": []any{nil, uint8(1), 1.5},
	}
	values := map[string]any{}
	m, ok := got.Value.(map[any]any)
	for k, v := range m {
		values[k.(string)] = v
	}
	if m, isStrings := got.Value.(map[string]any); isStrings {
		values, ok = m, true
	}
	if !ok {
		t.Fatalf("the value is a %T", got.Value)
	}
	if diff := cmp.Diff(want, values); diff != "" {
		t.Errorf("UnmarshalBinary(%x) (-want +got):\n%s", b, diff)
	}
}
