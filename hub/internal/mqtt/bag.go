package mqtt

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub"
)

// parseBag reads the property bag of a topic: name=value pairs with "&"
// between them, percent-encoded. "+" is no space. A "?" in front and a "/"
// behind are what some SDKs add. Of a repeated name the last value counts.
func parseBag(bag string) ([]hub.Property, error) {
	bag = strings.TrimSuffix(strings.TrimPrefix(bag, "?"), "/")
	if bag == "" {
		return nil, nil
	}
	list := make([]hub.Property, 0, 1+strings.Count(bag, "&"))
	at := make(map[string]int, cap(list))
	for pair := range strings.SplitSeq(bag, "&") {
		if pair == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		p := hub.Property{Null: !found}
		var err error
		if p.Name, err = unescape(name); err != nil {
			return nil, err
		}
		if p.Value, err = unescape(value); err != nil {
			return nil, err
		}
		if i, ok := at[p.Name]; ok {
			list[i] = p
			continue
		}
		at[p.Name] = len(list)
		list = append(list, p)
	}
	return list, nil
}

// appendBag appends properties as a topic carries them. Everything but letters,
// digits and "-._~" is percent-encoded: SDKs split the topic at "/" and look
// for "%24." at the beginning of a system property.
func appendBag(b []byte, properties []hub.Property) []byte {
	for i, p := range properties {
		if i > 0 {
			b = append(b, '&')
		}
		b = appendEscaped(b, p.Name)
		if !p.Null {
			b = appendEscaped(append(b, '='), p.Value)
		}
	}
	return b
}

func appendEscaped(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

// unescape decodes percent-encoded UTF-8.
func unescape(s string) (string, error) {
	text, ok := decodePercent(s)
	if !ok || !utf8.ValidString(text) {
		return "", errors.New("the topic's property bag is not percent-encoded UTF-8")
	}
	return text, nil
}

// unescapeLeniently decodes percent-encoding and leaves alone what is none.
func unescapeLeniently(s string) string {
	text, _ := decodePercent(s)
	return text
}

// decodePercent decodes percent-encoding. A "%" without two hexadecimal digits
// stays as it is, and ok is false.
func decodePercent(s string) (text string, ok bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	ok = true
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i+2 < len(s) {
				if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
					b = append(b, byte(n))
					i += 2
					continue
				}
			}
			ok = false
		}
		b = append(b, s[i])
	}
	return string(b), ok
}

// systemProperties gives the wire's names of system properties the names that
// they have in an event; see "Create and read IoT Hub messages". An empty name
// is a property that a device's message cannot carry.
var systemProperties = map[string]string{
	"$.mid":            "message-id",
	"$.cid":            "correlation-id",
	"$.uid":            "user-id",
	"$.to":             "to",
	"$.ct":             "content-type",
	"$.ce":             "content-encoding",
	"$.ctime":          "iothub-creation-time-utc",
	"$.on":             "iothub-outputname",
	"$.sub":            "dt-subject",
	"$.ifid":           "iothub-interface-id",
	"$.schema":         "iothub-message-schema",
	"iothub-operation": "iothub-operation",
	"$.exp":            "",
	"$.cdid":           "",
	"$.cmid":           "",
}

// newTelemetry makes a message of a PUBLISH. IoT Hub doesn't retain messages
// and doesn't drop duplicates: it marks them with application properties.
func newTelemetry(bag string, body []byte, retain, dup bool) (hub.Telemetry, error) {
	list, err := parseBag(bag)
	if err != nil {
		return hub.Telemetry{}, err
	}
	m := hub.Telemetry{Body: body}
	for _, p := range list {
		name, system := systemProperties[p.Name]
		switch {
		case !system:
			m.Properties = append(m.Properties, p)
		case name != "":
			m.System = append(m.System, hub.Property{Name: name, Value: p.Value})
		}
	}
	if retain {
		m.Properties = append(m.Properties, hub.Property{Name: "mqtt-retain", Value: "true"})
	}
	if dup {
		m.Properties = append(m.Properties, hub.Property{Name: "mqtt-dup", Value: "true"})
	}
	return m, nil
}

// messageBag returns the property bag with which a message goes to the device over
// MQTT: what its sender set, and no more. Parsers of the SDKs depend on the form:
// a system property first and always, with "%24"; an ack only in lower case; an
// expiry with seven digits.
func messageBag(m *hub.Message, device string) string {
	list := make([]hub.Property, 0, 8+len(m.Properties))
	add := func(name, value string) {
		if value != "" {
			list = append(list, hub.Property{Name: name, Value: value})
		}
	}
	add("$.mid", m.MessageID)
	add("$.to", hub.MessageTo(device))
	add("$.cid", m.CorrelationID)
	add("$.uid", m.UserID)
	add("$.ct", m.ContentType)
	add("$.ce", m.ContentEncoding)
	if !m.Expires.IsZero() {
		add("$.exp", m.Expires.UTC().Format("2006-01-02T15:04:05.0000000Z"))
	}
	add("iothub-ack", string(m.Ack))
	return string(appendBag(nil, append(list, m.Properties...)))
}
