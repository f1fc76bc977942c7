package hub

import (
	"encoding/binary"
	"regexp"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// An Ack says which feedback the sender of a cloud-to-device message wants.
type Ack string

// The kinds of feedback, from "Understand cloud-to-device messaging from an IoT
// hub". The empty Ack is that of a sender who said nothing: the device is not
// told of any.
const (
	AckNone     Ack = "none"
	AckPositive Ack = "positive" // when the device completed it
	AckNegative Ack = "negative" // when it did not
	AckFull     Ack = "full"     // in both cases
)

func (a Ack) wants(o outcome) bool {
	switch a {
	case AckPositive:
		return o == completed
	case AckNegative:
		return o != completed
	default:
		return a == AckFull
	}
}

// A Message is a cloud-to-device message.
type Message struct {
	MessageID       string // the hub makes one if feedback is wanted
	CorrelationID   string
	UserID          string
	ContentType     string
	ContentEncoding string
	Ack             Ack
	Expires         time.Time // two days from now is the latest; zero is in one hour, of which the device is not told
	Properties      []Property
	Body            []byte // up to 64 KiB with the properties
}

// Limits of cloud-to-device messages, from "Understand cloud-to-device
// messaging from an IoT hub" and "IoT Hub quotas and throttling".
const (
	maxQueueDepth     = 50
	MaxDeviceMessage  = 64 << 10
	maxDeliveries     = 10 // that end with abandon
	defaultMessageTTL = time.Hour
	maxMessageTTL     = 48 * time.Hour
	messageLock       = time.Minute
)

// messageIDPattern is what "Create and read IoT Hub messages" allows.
var messageIDPattern = regexp.MustCompile(`^[A-Za-z0-9\-:.+%_#*?!(),=@;$']{0,128}$`)

// prepare checks m and fills in what the hub decides. It returns when m expires.
func (m *Message) prepare(now time.Time) (expires time.Time, err error) {
	switch m.Ack {
	case "", AckNone, AckPositive, AckNegative, AckFull:
	default:
		return expires, ErrArgumentInvalid.With("iothub-ack must be none, positive, negative or full")
	}
	if !messageIDPattern.MatchString(m.MessageID) {
		return expires, ErrArgumentInvalid.With("the message id must be up to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ '")
	}
	for _, p := range m.Properties {
		// They stand among the system properties where a device reads them.
		if p.Name == "" || strings.HasPrefix(p.Name, "$") || strings.HasPrefix(p.Name, "iothub-") {
			return expires, ErrArgumentInvalid.With("'%s' cannot be the name of an application property", words.Clip(p.Name))
		}
	}
	if m.size() > MaxDeviceMessage {
		return expires, ErrMessageTooLarge.With("a cloud-to-device message must be at most %d bytes", MaxDeviceMessage)
	}
	if m.MessageID == "" && m.Ack != "" && m.Ack != AckNone {
		m.MessageID = words.NewRequestID().String()
	}
	if m.Expires.IsZero() {
		return now.Add(defaultMessageTTL), nil
	}
	if latest := now.Add(maxMessageTTL); m.Expires.After(latest) {
		m.Expires = latest
	}
	if earliest := time.Unix(0, 1); m.Expires.Before(earliest) { // 0 is stored for none
		m.Expires = earliest
	}
	return m.Expires, nil
}

// size is the size of the message as the service counts it.
func (m *Message) size() int {
	n := len(m.Body)
	for _, text := range m.texts() {
		n += len(*text)
	}
	for _, p := range m.Properties {
		n += len(p.Name) + len(p.Value)
	}
	return n
}

func (m *Message) texts() []*string {
	return []*string{&m.MessageID, &m.CorrelationID, &m.UserID, &m.ContentType, &m.ContentEncoding}
}

// A ReceivedMessage is a cloud-to-device message that a device has received
// and has to settle.
type ReceivedMessage struct {
	Message
	LockToken  string // settles it
	Sequence   uint64 // numbers the messages of the device
	Deliveries int    // how often it has been abandoned
	Enqueued   time.Time
}

// MessageTo is the destination of a message, as the service writes it.
func MessageTo(device string) string { return "/devices/" + device + "/messages/deviceBound" }

// messageFormat is the first byte of a stored message. The times follow, the
// texts with their length in front, and the body last. When it expires is what
// its sender said: 0 if that is nothing.
const messageFormat = 1

func (m *Message) encode(enqueued time.Time) []byte {
	b := make([]byte, 0, 64+m.size())
	b = append(b, messageFormat)
	b = binary.AppendUvarint(b, uint64(enqueued.UnixNano()))
	expires := uint64(0)
	if !m.Expires.IsZero() {
		expires = uint64(m.Expires.UnixNano())
	}
	b = binary.AppendUvarint(b, expires)
	for _, text := range m.texts() {
		b = disk.AppendText(b, *text)
	}
	b = disk.AppendText(b, string(m.Ack))
	b = appendProperties(b, m.Properties)
	return append(b, m.Body...)
}

// decodeMessage reads what encode wrote. The body is a slice of data.
func decodeMessage(data []byte) (ReceivedMessage, error) {
	r := disk.Read("message", data, messageFormat)
	m := ReceivedMessage{Enqueued: time.Unix(0, int64(r.Number()))}
	if expires := r.Number(); expires != 0 {
		m.Expires = time.Unix(0, int64(expires))
	}
	for _, text := range m.texts() {
		*text = string(r.Text())
	}
	m.Ack = Ack(r.Text())
	m.Properties = readProperties(&r)
	m.Body = r.Rest()
	return m, r.Err()
}
