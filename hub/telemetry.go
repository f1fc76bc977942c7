package hub

import "unicode/utf8"

// A Property is one name and value of a message.
type Property struct {
	Name  string
	Value string
	Null  bool // without a value, which is not the same as an empty one
}

// Telemetry is a message from a device or module.
type Telemetry struct {
	Body       []byte
	System     []Property // what the sender set, under the names that events carry
	Properties []Property // the application's
}

// Size is the size of the message as the service counts it: the body, the
// values of system properties, and the names and values of the application's.
func (m Telemetry) Size() int {
	n := len(m.Body)
	for _, p := range m.System {
		n += len(p.Value)
	}
	for _, p := range m.Properties {
		n += len(p.Name) + len(p.Value)
	}
	return n
}

// checkText refuses properties that are not UTF-8. A header of HTTP may hold
// them, an event and the topic of a device may not; that the service refuses
// them, too, is assumed.
func checkText(properties []Property) error {
	for _, p := range properties {
		if !utf8.ValidString(p.Name) || !utf8.ValidString(p.Value) {
			return ErrArgumentInvalid.With("a property of the message is not UTF-8")
		}
	}
	return nil
}
