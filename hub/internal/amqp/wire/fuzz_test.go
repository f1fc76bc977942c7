package wire_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// maxExpansion is how many bytes of memory a byte of input may take: a null in
// a map takes half an entry, and an array's elements may have a descriptor.
const maxExpansion = 96

// checkBounded fails if decoding b allocates more than follows from its size.
func checkBounded(t *testing.T, b []byte, decode func()) {
	t.Helper()
	const fixed = 256 << 10 // array elements without bytes, and what else runs
	if n := allocatedBy(decode); n > uint64(maxExpansion*len(b)+fixed) {
		t.Errorf("%d bytes take %d bytes of memory: %.200x", len(b), n, b)
	}
}

func checkError(t *testing.T, err error) {
	t.Helper()
	if strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("the error is of several lines: %q", err)
	}
}

// FuzzDecodeValue: what was decoded encodes to what decodes to the same and
// encodes to the same bytes; what is behind the value is left alone.
func FuzzDecodeValue(f *testing.F) {
	for _, v := range everyType() {
		if b := wire.AppendValue(nil, v); len(b) < 64 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkBounded(t, b, func() { wire.DecodeValue(b) })
		v, rest, err := wire.DecodeValue(b)
		if err != nil {
			checkError(t, err)
			return
		}
		if !bytes.HasSuffix(b, rest) || len(rest) == len(b) {
			t.Fatalf("DecodeValue(%x) leaves %x", b, rest)
		}
		encoded := wire.AppendValue(nil, v)
		again, rest, err := wire.DecodeValue(encoded)
		if err != nil || len(rest) > 0 {
			t.Fatalf("DecodeValue(%x), which was %x: %v, leaving %x", encoded, b, err, rest)
		}
		if diff := cmp.Diff(v, again, equateNaNs); diff != "" {
			t.Errorf("DecodeValue(%x), which was %x (-want +got):\n%s", encoded, b, diff)
		}
		if twice := wire.AppendValue(nil, again); !bytes.Equal(encoded, twice) {
			t.Errorf("%x is encoded as %x and then as %x", b, encoded, twice)
		}
	})
}

// FuzzDecodeFrame: a frame that was read is written as one that reads the same,
// with the same payload.
func FuzzDecodeFrame(f *testing.F) {
	for _, p := range emptyPerformatives() {
		f.Add(appendAny(nil, p, ""))
	}
	f.Add(appendAny(nil, &wire.Transfer{DeliveryTag: []byte("t"), State: wire.Accepted{}}, "payload"))
	f.Add(appendAny(nil, &wire.Detach{Error: &wire.Error{Condition: "amqp:not-found"}}, ""))
	f.Add(appendAny(nil, &wire.Attach{Source: &wire.Source{Address: "a"}, Target: &wire.Target{}}, ""))
	f.Add(wire.AppendFrame(nil, 0, nil, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			// Otherwise next to none would have the right size.
			b = bytes.Clone(b)
			binary.BigEndian.PutUint32(b, uint32(len(b)))
		}
		checkBounded(t, b, func() { wire.DecodeFrame(b) })
		frame, err := wire.DecodeFrame(b)
		if err != nil {
			checkError(t, err)
			return
		}
		var encoded []byte
		if frame.SASL {
			encoded = wire.AppendSASL(nil, frame.Body)
		} else {
			encoded = wire.AppendFrame(nil, frame.Channel, frame.Body, frame.Payload)
		}
		again, err := wire.DecodeFrame(encoded)
		if err != nil {
			t.Fatalf("DecodeFrame(%x), which was %x: %v", encoded, b, err)
		}
		if diff := cmp.Diff(frame, again, equateNaNs); diff != "" {
			t.Errorf("DecodeFrame(%x), which was %x (-want +got):\n%s", encoded, b, diff)
		}
	})
}

// FuzzDecodeMessage: a message that was read is written as one that reads the
// same. One without a body gets an empty one.
func FuzzDecodeMessage(f *testing.F) {
	f.Add(wire.AppendMessage(nil, &wire.Message{}))
	f.Add(wire.AppendMessage(nil, &wire.Message{HasValue: true, Value: "v"}))
	f.Add(wire.AppendMessage(nil, &wire.Message{Sequence: []wire.List{nil}, Header: &wire.Header{}}))
	f.Add(wire.AppendMessage(nil, &wire.Message{
		Properties:            &wire.Properties{MessageID: uint64(1), CorrelationID: "c"},
		Annotations:           wire.Map{{Key: wire.Symbol("a"), Value: nil}},
		ApplicationProperties: wire.Map{{Key: "a", Value: int32(1)}},
		Data:                  [][]byte{{}, {1}},
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkBounded(t, b, func() { wire.DecodeMessage(b) })
		m, err := wire.DecodeMessage(b)
		if err != nil {
			checkError(t, err)
			return
		}
		encoded := wire.AppendMessage(nil, m)
		again, err := wire.DecodeMessage(encoded)
		if err != nil {
			t.Fatalf("DecodeMessage(%x), which was %x: %v", encoded, b, err)
		}
		if m.Data == nil && !m.HasValue && m.Sequence == nil {
			m.Data = [][]byte{{}}
		}
		if diff := cmp.Diff(m, again, equateNaNs); diff != "" {
			t.Errorf("DecodeMessage(%x), which was %x (-want +got):\n%s", encoded, b, diff)
		}
	})
}
