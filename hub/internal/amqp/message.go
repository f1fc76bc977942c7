package amqp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// A message is what a client sent, taken apart: telemetry or cloud-to-device.
type message struct {
	properties  wire.Properties
	annotations wire.Map
	application []hub.Property // without those of the system, which are in system
	system      []hub.Property // iothub-ack and the like, as they came
	body        []byte         // may be a slice of what was read
}

// systemPrefix begins the names of application properties that are the system's
// own, in disguise.
const systemPrefix = "iothub-"

// readMessage reads a delivery of message format 0. The error is a *wire.Error
// to reject it with.
func readMessage(payload []byte) (message, error) {
	m, err := wire.DecodeMessage(payload)
	if err != nil {
		return message{}, refuse(condDecode, "%v", err)
	}
	r := message{annotations: m.Annotations}
	if m.Properties != nil {
		r.properties = *m.Properties
	}
	for _, entry := range m.ApplicationProperties {
		name, ok := textOf(entry.Key)
		value, simple := textOf(entry.Value)
		if !ok || !simple && entry.Value != nil {
			return message{}, refuse(condArgument, "the application property %q is neither text, nor a number or the like", words.Clip(name))
		}
		p := hub.Property{Name: name, Value: value, Null: entry.Value == nil}
		if strings.HasPrefix(name, systemPrefix) {
			r.system = append(r.system, p)
		} else {
			r.application = append(r.application, p)
		}
	}
	switch m.Value.(type) {
	case nil, []byte, string:
	default:
		return message{}, refuse(condArgument, "the body is a value that is neither binary nor text")
	}
	if len(m.Sequence) > 0 {
		return message{}, refuse(condArgument, "the body is a sequence, and not data")
	}
	r.body = bodyOf(m)
	return r, nil
}

// bodyOf returns the data sections of a message behind each other, or the value
// that stands in their place if that is binary or text.
func bodyOf(m *wire.Message) []byte {
	switch v := m.Value.(type) {
	case []byte:
		return v
	case string:
		return []byte(v)
	}
	if len(m.Data) == 1 {
		return m.Data[0]
	}
	return bytes.Join(m.Data, nil)
}

// textOf prints a simple value as text, and reports whether it is one. Binary is
// text if it reads as such, since some clients write text so, and base64 if not.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case wire.Symbol:
		return string(v), true
	case wire.Char:
		return string(rune(v)), true
	case []byte:
		if utf8.Valid(v) {
			return string(v), true
		}
		return base64.StdEncoding.EncodeToString(v), true
	case wire.UUID:
		return words.RequestID(v).String(), true
	case time.Time:
		return v.UTC().Format("2006-01-02T15:04:05.000Z"), true
	case bool, uint8, uint16, uint32, uint64, int8, int16, int32, int64:
		return fmt.Sprint(v), true
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", false
}

// deliveryTag makes the tag of a delivery from a lock token, which is a GUID. It
// is the token's bytes in the order of .NET's: its clients settle by what they
// read there.
func deliveryTag(lockToken string) []byte {
	tag, err := hex.DecodeString(strings.ReplaceAll(lockToken, "-", ""))
	if err != nil || len(tag) != 16 {
		return nil // the engine makes one
	}
	tag[0], tag[1], tag[2], tag[3] = tag[3], tag[2], tag[1], tag[0]
	tag[4], tag[5] = tag[5], tag[4]
	tag[6], tag[7] = tag[7], tag[6]
	return tag
}
