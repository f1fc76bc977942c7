package wire_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// telemetry is a message as SDKs send it.
func telemetry() *wire.Message {
	return &wire.Message{
		Properties:            &wire.Properties{MessageID: "6550a598-adf1-4666-4b1e-740da29d6deb", ContentType: "application/json", ContentEncoding: "utf-8"},
		ApplicationProperties: wire.Map{{Key: "room", Value: "kitchen"}, {Key: "alert", Value: "false"}},
		Data:                  [][]byte{bytes.Repeat([]byte("x"), 1024)},
	}
}

// event is telemetry as readers of the built-in endpoint get it.
func event() *wire.Message {
	m := telemetry()
	now := time.UnixMilli(1764374400123).UTC()
	m.Annotations = wire.Map{
		{Key: wire.Symbol("x-opt-sequence-number"), Value: int64(1000000)},
		{Key: wire.Symbol("x-opt-offset"), Value: "123456789"},
		{Key: wire.Symbol("x-opt-enqueued-time"), Value: now},
		{Key: wire.Symbol("iothub-connection-device-id"), Value: "device-1"},
		{Key: wire.Symbol("iothub-connection-auth-method"), Value: `{"scope":"device","type":"sas","issuer":"iothub"}`},
		{Key: wire.Symbol("iothub-connection-auth-generation-id"), Value: "638000000000000000"},
		{Key: wire.Symbol("iothub-enqueuedtime"), Value: now},
		{Key: wire.Symbol("iothub-message-source"), Value: "Telemetry"},
	}
	return m
}

func frames() map[string]wire.Performative {
	return map[string]wire.Performative{
		"transfer":    &wire.Transfer{Handle: 1, DeliveryID: new(uint32(1000)), DeliveryTag: []byte("12345678"), MessageFormat: new(uint32(0)), Settled: new(false)},
		"flow":        &wire.Flow{NextIncomingID: new(uint32(1000)), IncomingWindow: 5000, OutgoingWindow: 5000, Handle: new(uint32(1)), DeliveryCount: new(uint32(1000)), LinkCredit: new(uint32(300))},
		"disposition": &wire.Disposition{Role: wire.Receiver, First: 1000, Last: new(uint32(1001)), Settled: true, State: wire.Accepted{}},
	}
}

// What is written for each message takes no memory but the buffer's.
func TestWritingAllocatesNothing(t *testing.T) {
	buffer := make([]byte, 0, 4096)
	m, payload := event(), make([]byte, 1024)
	for name, p := range frames() {
		if n := testing.AllocsPerRun(100, func() { wire.AppendFrame(buffer, 1, p, payload) }); n > 0 {
			t.Errorf("AppendFrame of a %s allocates %v times", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { wire.AppendMessage(buffer, m) }); n > 0 {
		t.Errorf("AppendMessage allocates %v times", n)
	}
	id, settled := uint32(0), true
	if n := testing.AllocsPerRun(100, func() {
		id++
		wire.AppendFrame(buffer, 1, &wire.Transfer{Handle: 1, DeliveryID: &id, DeliveryTag: buffer[:4], Settled: &settled}, payload)
	}); n > 0 {
		t.Errorf("AppendFrame of a transfer that is made for it allocates %v times", n)
	}
}

// One allocation is what is returned.
func TestReadingFramesAllocatesOnce(t *testing.T) {
	for name, p := range frames() {
		b := wire.AppendFrame(nil, 1, p, make([]byte, 1024))
		if name != "transfer" {
			b = wire.AppendFrame(nil, 1, p, nil)
		}
		if n := testing.AllocsPerRun(100, func() { wire.DecodeFrame(b) }); n > 1 {
			t.Errorf("DecodeFrame of a %s allocates %v times", name, n)
		}
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	for name, p := range frames() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var buffer []byte
			for b.Loop() {
				buffer = wire.AppendFrame(buffer[:0], 1, p, nil)
			}
		})
	}
}

func BenchmarkDecodeFrame(b *testing.B) {
	for name, p := range frames() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			frame := wire.AppendFrame(nil, 1, p, nil)
			for b.Loop() {
				if _, err := wire.DecodeFrame(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	for name, m := range map[string]*wire.Message{"telemetry": telemetry(), "event": event()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var buffer []byte
			for b.Loop() {
				buffer = wire.AppendMessage(buffer[:0], m)
			}
			b.SetBytes(int64(len(buffer)))
		})
	}
}

func BenchmarkDecodeMessage(b *testing.B) {
	for name, m := range map[string]*wire.Message{"telemetry": telemetry(), "event": event()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			message := wire.AppendMessage(nil, m)
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				if _, err := wire.DecodeMessage(message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
