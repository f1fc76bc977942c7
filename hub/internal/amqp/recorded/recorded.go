// Package recorded has sessions of real AMQP 1.0 clients, as they were recorded
// with a peer that satisfied them. It is for tests: what a client sent has to be
// understood, and what it was answered is what it is used to.
package recorded

import (
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A Session is what one program did.
type Session struct {
	ID, What    string
	Connections []Connection
}

// A Connection is one of its connections.
type Connection struct {
	Transport   string // "tls", "websocket" or "tcp"
	URL         string // of a WebSocket: the request target
	Certificate string // the common name of the client's certificate, if it had one
	Frames      []Frame
}

// A Frame is a protocol header or a frame that one side sent.
type Frame struct {
	FromPeer bool   // and not from the client
	Header   string // one of wire's, if this is a protocol header
	SASL     bool
	Channel  uint16
	Body     wire.Performative
	Message  *wire.Message // of a transfer, all of which have one frame
}

//go:embed sessions.json
var sessions []byte

// Sessions returns all sessions, which are the caller's to change.
func Sessions() ([]Session, error) {
	var file struct {
		Sessions []struct {
			ID, What    string
			Connections []struct {
				Listener, URL, ClientCert string
				Frames                    []object
			}
		}
	}
	if err := json.Unmarshal(sessions, &file); err != nil {
		return nil, err
	}
	var all []Session
	for _, s := range file.Sessions {
		session := Session{ID: s.ID, What: s.What}
		for _, c := range s.Connections {
			transport := map[string]string{"tls5671": "tls", "ws443": "websocket", "plain5672": "tcp"}[c.Listener]
			connection := Connection{Transport: transport, URL: c.URL, Certificate: c.ClientCert}
			for i, o := range c.Frames {
				f, err := o.frame()
				if err != nil {
					return nil, fmt.Errorf("%s: frame %d: %w", s.ID, i, err)
				}
				connection.Frames = append(connection.Frames, f)
			}
			session.Connections = append(session.Connections, connection)
		}
		all = append(all, session)
	}
	return all, nil
}

// An object is a composite, by the names of its fields. What doesn't read as it
// should panics with an error, which frame returns.
type object map[string]any

func (o object) frame() (f Frame, err error) {
	defer func() {
		if broken, ok := recover().(error); ok {
			err = broken
		}
	}()
	f = Frame{FromPeer: o["d"] == "s", SASL: strings.HasPrefix(o["f"].(string), "sasl-")}
	channel, _ := o["ch"].(float64)
	f.Channel = uint16(channel)
	switch o["f"] {
	case "header":
		f.Header = map[float64]string{0: wire.HeaderAMQP, 3: wire.HeaderSASL}[o["proto"].(float64)]
	case "sasl-mechanisms":
		f.Body = &wire.SASLMechanisms{Mechanisms: o.symbols("mechanisms")}
	case "sasl-init":
		f.Body = &wire.SASLInit{Mechanism: o.symbol("mechanism"), InitialResponse: response(o["initial-response"]), Hostname: o.text("hostname")}
	case "sasl-outcome":
		f.Body = &wire.SASLOutcome{Code: *o.ubyte("code")}
	case "open":
		f.Body = &wire.Open{
			ContainerID: o.text("container-id"), Hostname: o.text("hostname"), MaxFrameSize: or(o.uint("max-frame-size"), 1<<32-1),
			ChannelMax: or(pointer[uint16](o, "channel-max"), 1<<16-1), IdleTimeout: time.Duration(or(o.uint("idle-time-out"), 0)) * time.Millisecond,
			Properties: symbolMap(o["properties"]),
		}
	case "begin":
		f.Body = &wire.Begin{
			RemoteChannel: pointer[uint16](o, "remote-channel"), NextOutgoingID: or(o.uint("next-outgoing-id"), 0),
			IncomingWindow: or(o.uint("incoming-window"), 0), OutgoingWindow: or(o.uint("outgoing-window"), 0), HandleMax: or(o.uint("handle-max"), 1<<32-1),
		}
	case "attach":
		f.Body = o.attach()
	case "flow":
		f.Body = &wire.Flow{
			IncomingWindow: or(o.uint("incoming-window"), 0), Handle: o.uint("handle"), DeliveryCount: o.uint("delivery-count"), LinkCredit: o.uint("link-credit"),
		}
	case "transfer":
		f.Body = o.transfer()
		f.Message = o.message()
	case "disposition":
		f.Body = &wire.Disposition{
			Role: wire.Role(o.bool("role")), First: *o.uint("first"), Last: o.uint("last"), Settled: o.bool("settled"), State: state(o["state"]),
		}
	case "detach":
		f.Body = &wire.Detach{Handle: *o.uint("handle"), Closed: o.bool("closed"), Error: errorOf(o["error"])}
	case "end":
		f.Body = &wire.End{}
	case "close":
		f.Body = &wire.Close{}
	default:
		return f, fmt.Errorf("there is no frame %v", o["f"])
	}
	return f, nil
}

func (o object) attach() *wire.Attach {
	a := &wire.Attach{
		Name: o.text("name"), Handle: *o.uint("handle"), Role: wire.Role(o.bool("role")), SndSettleMode: o.ubyte("snd-settle-mode"),
		RcvSettleMode: o.ubyte("rcv-settle-mode"), InitialDeliveryCount: o.uint("initial-delivery-count"),
		MaxMessageSize: pointer[uint64](o, "max-message-size"), DesiredCapabilities: o.symbols("desired-capabilities"), Properties: symbolMap(o["properties"]),
	}
	if s, ok := o["source"].(map[string]any); ok {
		a.Source = &wire.Source{Address: value(s["address"]), Filter: symbolMap(s["filter"])}
	}
	if t, ok := o["target"].(map[string]any); ok {
		a.Target = &wire.Target{Address: value(t["address"])}
	}
	return a
}

func (o object) transfer() *wire.Transfer {
	t := &wire.Transfer{Handle: *o.uint("handle"), DeliveryID: o.uint("delivery-id"), MessageFormat: o.uint("message-format"), More: o.bool("more")}
	t.DeliveryTag, _ = value(o["delivery-tag"]).([]byte)
	if t.MessageFormat == nil {
		t.MessageFormat = new(uint32(0))
	}
	if _, ok := o["settled"]; ok {
		t.Settled = new(o.bool("settled"))
	}
	return t
}

func (o object) message() *wire.Message {
	o, _ = o["message"].(map[string]any)
	m := &wire.Message{Annotations: symbolMap(o["message-annotations"]), ApplicationProperties: stringMap(o["application-properties"])}
	if o["header"] != nil {
		m.Header = &wire.Header{Priority: 4}
	}
	if properties, ok := o["properties"].(map[string]any); ok {
		p := object(properties)
		m.Properties = &wire.Properties{
			MessageID: value(p["message-id"]), To: p.text("to"), ReplyTo: p.text("reply-to"), CorrelationID: value(p["correlation-id"]),
			ContentType: string(p.symbol("content-type")), ContentEncoding: string(p.symbol("content-encoding")),
		}
		m.Properties.UserID, _ = value(p["user-id"]).([]byte)
		m.Properties.CreationTime, _ = value(p["creation-time"]).(time.Time)
		m.Properties.AbsoluteExpiryTime, _ = value(p["absolute-expiry-time"]).(time.Time)
	}
	if data, ok := o["data"].(string); ok {
		m.Data = [][]byte{[]byte(data)}
	}
	if v, ok := o["value"]; ok {
		m.HasValue = true
		if fields, ok := v.(map[string]any); ok {
			m.Value = stringMap(fields)
		} else {
			m.Value = value(v)
		}
	}
	return m
}

func (o object) text(name string) string {
	s, _ := value(o[name]).(string)
	return s
}

func (o object) symbol(name string) wire.Symbol {
	s, _ := value(o[name]).(wire.Symbol)
	return s
}

func (o object) symbols(name string) (symbols []wire.Symbol) {
	a, _ := value(o[name]).(wire.Array)
	for _, s := range a {
		symbols = append(symbols, s.(wire.Symbol))
	}
	return symbols
}

// bool takes numbers too: one client writes booleans of two bytes.
func (o object) bool(name string) bool {
	return o[name] == true || o[name] == float64(1)
}

func (o object) uint(name string) *uint32 { return pointer[uint32](o, name) }
func (o object) ubyte(name string) *uint8 { return pointer[uint8](o, name) }

func pointer[T any](o object, name string) *T {
	if o[name] == nil {
		return nil
	}
	return new(value(o[name]).(T))
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func state(v any) wire.State {
	switch v := v.(type) {
	case string:
		return map[string]wire.State{"accepted": wire.Accepted{}, "released": wire.Released{}}[v]
	case map[string]any:
		return &wire.Rejected{Error: errorOf(v["rejected"])}
	}
	return nil
}

func errorOf(v any) *wire.Error {
	fields, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	o := object(fields)
	return &wire.Error{Condition: o.symbol("condition"), Description: o.text("description"), Info: symbolMap(o["info"])}
}

// response reads an initial response: bytes, or the three parts of PLAIN.
func response(v any) []byte {
	switch v := v.(type) {
	case string:
		return bytesOf(v)
	case []any:
		return fmt.Appendf(nil, "%s\x00%s\x00%s", v...)
	}
	return nil
}

func symbolMap(v any) wire.Map {
	fields, _ := v.(map[string]any)
	return mapOf(fields, func(name string) any { return wire.Symbol(name) })
}

func stringMap(v any) wire.Map {
	fields, _ := v.(map[string]any)
	return mapOf(fields, func(name string) any { return name })
}

func mapOf(fields map[string]any, key func(string) any) (m wire.Map) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		m = append(m, wire.Entry{Key: key(name), Value: value(fields[name])})
	}
	return m
}

// value reads "type:value", a boolean, null, or a described value.
func value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return described(v)
	case string:
		kind, text, _ := strings.Cut(v, ":")
		return parse(kind, text)
	}
	return v
}

func described(v map[string]any) wire.Described {
	if n, ok := v["desc"].(float64); ok {
		return wire.Described{Descriptor: uint64(n), Value: v["v"]}
	}
	return wire.Described{Descriptor: wire.Symbol(v["desc"].(string)), Value: v["v"]}
}

func parse(kind, text string) any {
	switch kind {
	case "string":
		return text
	case "sym":
		return wire.Symbol(text)
	case "ubyte":
		return uint8(unsigned(text, 8))
	case "ushort":
		return uint16(unsigned(text, 16))
	case "uint":
		return uint32(unsigned(text, 32))
	case "ulong":
		return unsigned(text, 64)
	case "int":
		return int32(signed(text, 32))
	case "long":
		return signed(text, 64)
	case "ts":
		t, err := time.Parse(time.RFC3339, text)
		must(err)
		return t
	case "uuid":
		return wire.UUID(bytesOf(text))
	case "bin":
		return bytesOf(text)
	case "array":
		var a wire.Array
		for element := range strings.SplitSeq(text, ",") {
			a = append(a, value(element))
		}
		return a
	}
	panic(fmt.Errorf("there is no type %q of %q", kind, text))
}

// bytesOf reads 0x and digits, behind which may be the same as text.
func bytesOf(s string) []byte {
	digits, _, _ := strings.Cut(strings.TrimPrefix(s, "0x"), " ")
	b, err := hex.DecodeString(digits)
	must(err)
	return b
}

func unsigned(text string, bits int) uint64 {
	n, err := strconv.ParseUint(text, 10, bits)
	must(err)
	return n
}

func signed(text string, bits int) int64 {
	n, err := strconv.ParseInt(text, 10, bits)
	must(err)
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
