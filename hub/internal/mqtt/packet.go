package mqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
)

// Limits of what a peer may send in one packet: before it has shown who it is,
// and after. A message of 256 KiB has to fit with its topic.
const (
	maxConnectPacket = 64 << 10
	maxPacket        = hub.MaxMessageSize + 65535 + 16

	// The few filters that an identity may have are far shorter; a SUBSCRIBE of
	// the largest size could hold 80,000.
	maxFilterPacket = 16 << 10
)

// A packetBuffer cuts a byte stream into MQTT packets. While it is empty it
// holds nothing but its own few bytes: a large buffer is borrowed when a packet
// needs it, and grows as bytes arrive, whatever length the peer announces.
type packetBuffer struct {
	small      [64]byte
	large      []byte // nil, or what small was too small for
	start, end int    // what was read and not yet taken
}

const pooledBuffer = 4 << 10

var buffers = sync.Pool{New: func() any { return new([pooledBuffer]byte) }}

func (b *packetBuffer) bytes() []byte {
	if b.large != nil {
		return b.large
	}
	return b.small[:]
}

// take returns the next packet: the first byte of its header and its body,
// which is valid until the next fill. It is not ok if more has to be read
// first, and an error if the packet would be longer than limit.
func (b *packetBuffer) take(limit int) (header byte, body []byte, ok bool, err error) {
	data := b.bytes()[b.start:b.end]
	length, n, err := packetLength(data)
	if err != nil || n == 0 {
		return 0, nil, false, err
	}
	if length > limit {
		return 0, nil, false, fmt.Errorf("a packet of %d bytes is too long", length)
	}
	if len(data) < n+length {
		return 0, nil, false, nil
	}
	b.start += n + length
	return data[0], data[n : n+length], true, nil
}

// peek returns the first byte of the next packet, if it has come.
func (b *packetBuffer) peek() (header byte, ok bool) {
	if b.start == b.end {
		return 0, false
	}
	return b.bytes()[b.start], true
}

// packetLength reads a fixed header: the length of the body, and the length of
// the header itself, which is 0 while data is too short to tell.
func packetLength(data []byte) (length, header int, err error) {
	for i := 1; i < len(data); i++ {
		length |= int(data[i]&0x7f) << (7 * (i - 1))
		if data[i] < 0x80 {
			return length, i + 1, nil
		}
		if i == 4 {
			return 0, 0, errors.New("the packet's length takes more than four bytes")
		}
	}
	return 0, 0, nil
}

// fill reads once from r, waiting if nothing has come.
func (b *packetBuffer) fill(r io.Reader) error {
	if b.start == b.end {
		b.release()
	} else if b.end == len(b.bytes()) {
		b.makeRoom()
	}
	n, err := r.Read(b.bytes()[b.end:])
	b.end += n
	if n > 0 {
		return nil
	}
	return err
}

// release gives back the large buffer of an empty b.
func (b *packetBuffer) release() {
	if len(b.large) == pooledBuffer {
		buffers.Put((*[pooledBuffer]byte)(b.large))
	}
	b.large, b.start, b.end = nil, 0, 0
}

// makeRoom moves the packet that has begun to the front of a buffer in which
// it fits, or in which eight times what has arrived of it does.
func (b *packetBuffer) makeRoom() {
	old := b.bytes()[b.start:b.end]
	length, n, _ := packetLength(old)
	need := min(n+length, max(8*len(old), pooledBuffer))
	if n == 0 {
		need = pooledBuffer
	}
	var next []byte
	if need <= pooledBuffer {
		if len(b.large) == pooledBuffer {
			next = b.large // old and next overlap, which copy allows
		} else {
			next = buffers.Get().(*[pooledBuffer]byte)[:]
		}
	} else {
		next = make([]byte, need)
	}
	kept := copy(next, old)
	if len(b.large) == pooledBuffer && need > pooledBuffer {
		buffers.Put((*[pooledBuffer]byte)(b.large))
	}
	b.large, b.start, b.end = next, 0, kept
}

// decodePacket decodes a packet of a device. The codec alone would read past
// the end of a field as zeros.
func decodePacket(header byte, body []byte) (packets.ControlPacket, error) {
	h := packets.FixedHeader{
		MessageType:     header >> 4,
		Dup:             header&8 != 0,
		Qos:             header >> 1 & 3,
		Retain:          header&1 != 0,
		RemainingLength: len(body),
	}
	if err := checkHeader(h, header&15); err != nil {
		return nil, err
	}
	p, err := packets.NewControlPacketWithHeader(h)
	if err != nil {
		return nil, err
	}
	r := &exactReader{body}
	if err := p.Unpack(r); err != nil {
		return nil, fmt.Errorf("malformed %s: %w", packets.PacketNames[h.MessageType], err)
	}
	if len(r.rest) > 0 {
		return nil, fmt.Errorf("malformed %s: %d bytes too many", packets.PacketNames[h.MessageType], len(r.rest))
	}
	return p, checkTexts(p)
}

// checkHeader lets pass what a device may send: no packets of a server, and
// none of QoS 2. The low bits of the first byte are those of section 2.2.2 of
// MQTT 3.1.1.
func checkHeader(h packets.FixedHeader, flags byte) error {
	var want byte
	switch h.MessageType {
	case packets.Publish:
		if h.Qos > 1 {
			return fmt.Errorf("a PUBLISH with QoS %d", h.Qos)
		}
		return nil
	case packets.Subscribe, packets.Unsubscribe:
		if h.RemainingLength > maxFilterPacket {
			return fmt.Errorf("a packet of %d bytes with topic filters is too long", h.RemainingLength)
		}
		want = 2
	case packets.Connect, packets.Puback, packets.Pingreq, packets.Disconnect:
	default:
		return fmt.Errorf("a device may not send packet type %d", h.MessageType)
	}
	if flags != want {
		return fmt.Errorf("packet type %d with flags %04b", h.MessageType, flags)
	}
	return nil
}

// checkTexts holds what is to be text against section 1.5.3 of MQTT 3.1.1, and
// packet identifiers against 2.3.1.
func checkTexts(p packets.ControlPacket) error {
	var texts []string
	switch p := p.(type) {
	case *packets.ConnectPacket:
		texts = []string{p.ProtocolName, p.ClientIdentifier, p.WillTopic, p.Username}
	case *packets.PublishPacket:
		if p.Qos > 0 && p.MessageID == 0 {
			return errors.New("a PUBLISH with packet identifier 0")
		}
		texts = []string{p.TopicName}
	case *packets.SubscribePacket:
		if p.MessageID == 0 || len(p.Topics) == 0 {
			return errors.New("a SUBSCRIBE without packet identifier or filter")
		}
		texts = p.Topics
	case *packets.UnsubscribePacket:
		if p.MessageID == 0 || len(p.Topics) == 0 {
			return errors.New("an UNSUBSCRIBE without packet identifier or filter")
		}
		texts = p.Topics
	}
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return errors.New("a text that is not UTF-8")
		}
	}
	return nil
}

// An exactReader reads all that is asked for or fails.
type exactReader struct{ rest []byte }

func (r *exactReader) Read(p []byte) (int, error) {
	if len(p) > len(r.rest) {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// appendPublish appends a PUBLISH; id is left out at QoS 0.
func appendPublish(b []byte, qos byte, id uint16, topic string, payload []byte) []byte {
	length := 2 + len(topic) + len(payload)
	if qos > 0 {
		length += 2
	}
	b = append(b, packets.Publish<<4|qos<<1)
	b = binary.AppendUvarint(b, uint64(length)) // MQTT's form of a length is a varint
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return append(b, payload...)
}

func appendConnack(b []byte, sessionPresent bool, code byte) []byte {
	var flags byte
	if sessionPresent {
		flags = 1
	}
	return append(b, packets.Connack<<4, 2, flags, code)
}

// appendAck appends a PUBACK, SUBACK or UNSUBACK. Only a SUBACK has granted
// QoS.
func appendAck(b []byte, kind byte, id uint16, granted ...byte) []byte {
	b = append(b, kind<<4, byte(2+len(granted)))
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, granted...)
}
