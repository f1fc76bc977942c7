package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Frame is one frame as it came.
type Frame struct {
	SASL    bool
	Channel uint16
	Body    Performative // nil is an empty frame
	Payload []byte       // of a transfer: what is behind the performative; a slice of what was decoded
}

// The protocol headers of 8 bytes.
const (
	HeaderAMQP = "AMQP\x00\x01\x00\x00"
	HeaderTLS  = "AMQP\x02\x01\x00\x00"
	HeaderSASL = "AMQP\x03\x01\x00\x00"
)

// FrameHeader is the size of the header that each frame begins with.
const FrameHeader = 8

// The types of frames.
const (
	frameAMQP = 0
	frameSASL = 1
)

// FrameSize reads the size of a frame, including itself, from its first 4 bytes.
func FrameSize(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// DecodeFrame reads a whole frame. Of what it returns only the payload is a slice
// of b.
func DecodeFrame(b []byte) (Frame, error) {
	if len(b) < FrameHeader {
		return Frame{}, fmt.Errorf("a frame of %d bytes", len(b))
	}
	if size := FrameSize(b); uint64(size) != uint64(len(b)) {
		return Frame{}, fmt.Errorf("a frame of %d bytes says it has %d", len(b), size)
	}
	offset := 4 * int(b[4])
	if offset < FrameHeader || offset > len(b) {
		return Frame{}, fmt.Errorf("a frame of %d bytes has its body at %d", len(b), offset)
	}
	f := Frame{SASL: b[5] == frameSASL}
	switch b[5] {
	case frameAMQP:
		f.Channel = binary.BigEndian.Uint16(b[6:])
		if offset == len(b) {
			return f, nil
		}
	case frameSASL:
	default:
		return Frame{}, fmt.Errorf("a frame of type %d", b[5])
	}
	body, rest, err := decodePerformative(b[offset:])
	if err != nil {
		return Frame{}, err
	}
	f.Body = body
	switch body.(type) {
	case *Transfer:
		f.Payload = rest
		rest = nil
		if f.SASL {
			return Frame{}, errWrongFrame
		}
	case *SASLMechanisms, *SASLInit, *SASLChallenge, *SASLResponse, *SASLOutcome:
		if !f.SASL {
			return Frame{}, errWrongFrame
		}
	default:
		if f.SASL {
			return Frame{}, errWrongFrame
		}
	}
	if len(rest) > 0 {
		return Frame{}, fmt.Errorf("a frame has %d bytes behind its performative", len(rest))
	}
	return f, nil
}

var errWrongFrame = errors.New("a performative is in a frame of the wrong type")

// AppendFrame appends a frame with a performative and what is behind it. A nil
// body is an empty frame.
func AppendFrame(b []byte, channel uint16, body Performative, payload []byte) []byte {
	return appendFrame(b, frameAMQP, channel, body, payload)
}

// AppendSASL appends a SASL frame.
func AppendSASL(b []byte, body Performative) []byte {
	return appendFrame(b, frameSASL, 0, body, nil)
}

func appendFrame(b []byte, kind byte, channel uint16, body Performative, payload []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0, FrameHeader/4, kind, byte(channel>>8), byte(channel))
	if body != nil {
		b = appendPerformative(b, body)
	}
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}
