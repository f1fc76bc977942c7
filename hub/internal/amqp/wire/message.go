package wire

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// A Message is what one delivery carries, in sections.
type Message struct {
	Header                *Header
	DeliveryAnnotations   Map
	Annotations           Map
	Properties            *Properties
	ApplicationProperties Map
	Footer                Map

	// The body is one or more data sections, a value, or sequences.
	Data     [][]byte
	Value    any
	HasValue bool
	Sequence []List
}

// A Header is a message's header section.
type Header struct {
	Durable       bool
	Priority      uint8 // absent is 4
	TTL           *time.Duration
	FirstAcquirer bool
	DeliveryCount uint32
}

// Properties are the properties section. A zero value is absent.
type Properties struct {
	MessageID          any // nil, uint64, UUID, []byte or string
	UserID             []byte
	To                 string // addresses may be of any type; those that are no string are passed over
	Subject            string
	ReplyTo            string
	CorrelationID      any // as MessageID
	ContentType        string
	ContentEncoding    string
	AbsoluteExpiryTime time.Time
	CreationTime       time.Time
	GroupID            string
	GroupSequence      *uint32
	ReplyToGroupID     string
}

// DecodeMessage reads a message. Its byte slices are slices of b. Sections may
// come in any order, but each once, and of the body's one kind.
func DecodeMessage(b []byte) (*Message, error) {
	m := new(Message)
	d := newDecoder(false)
	var seen uint16 // a bit for each section, from 0x70
	for len(b) > 0 {
		if b[0] != codeDescribed {
			return nil, fmt.Errorf("%s instead of a message's section", codeName(b[0]))
		}
		desc, symbol, rest, err := descriptor(b[1:])
		if err != nil {
			return nil, err
		}
		if symbol != nil {
			return nil, fmt.Errorf("a message has no section %.40q", symbol)
		}
		if desc < descHeader || desc > descFooter {
			return nil, fmt.Errorf("a message has no section 0x%02x", desc)
		}
		if err := checkSection(seen, desc); err != nil {
			return nil, err
		}
		seen |= 1 << (desc - descHeader)
		code, body, rest, err := split(rest)
		if err == nil {
			err = m.section(&d, desc, code, body)
		}
		if err != nil {
			return nil, fmt.Errorf("section 0x%02x: %w", desc, err)
		}
		b = rest
	}
	return m, nil
}

// checkSection looks whether a section may stand behind others.
func checkSection(seen uint16, desc uint64) error {
	const bodies = 1<<(descData-descHeader) | 1<<(descSequence-descHeader) | 1<<(descValue-descHeader)
	bit := uint16(1) << (desc - descHeader)
	if bit&bodies != 0 && seen&bodies&^bit != 0 {
		return errors.New("a message has bodies of two kinds")
	}
	if seen&bit != 0 && desc != descData && desc != descSequence {
		return fmt.Errorf("a message has section 0x%02x twice", desc)
	}
	return nil
}

func (m *Message) section(d *decoder, desc uint64, code byte, body []byte) (err error) {
	switch desc {
	case descHeader:
		m.Header, err = d.header(code, body)
	case descDeliveryAnnotations:
		m.DeliveryAnnotations, err = d.sectionMap(code, body)
	case descAnnotations:
		m.Annotations, err = d.sectionMap(code, body)
	case descProperties:
		m.Properties, err = d.properties(code, body)
	case descApplicationProperties:
		m.ApplicationProperties, err = d.sectionMap(code, body)
	case descFooter:
		m.Footer, err = d.sectionMap(code, body)
	case descData:
		if code != codeBinary8 && code != codeBinary32 {
			return fmt.Errorf("%s instead of a binary", codeName(code))
		}
		m.Data = append(m.Data, body)
	case descSequence:
		if code != codeList0 && code != codeList8 && code != codeList32 {
			return fmt.Errorf("%s instead of a list", codeName(code))
		}
		var l List
		l, err = d.list(code, body, 0)
		m.Sequence = append(m.Sequence, l)
	case descValue:
		m.HasValue = true
		m.Value, err = d.value(code, body, 0)
	}
	return err
}

func (d *decoder) sectionMap(code byte, body []byte) (Map, error) {
	switch code {
	case codeNull:
		return nil, nil
	case codeMap8, codeMap32:
		return d.mapping(code, body, 0)
	}
	return nil, fmt.Errorf("%s instead of a map", codeName(code))
}

func (d *decoder) header(code byte, body []byte) (*Header, error) {
	f, err := d.fields(code, body, 0)
	if err != nil {
		return nil, err
	}
	h := &Header{Priority: defaultPriority}
	h.Durable = f.bool()
	if n, ok := f.number(math.MaxUint8, "a ubyte"); ok {
		h.Priority = uint8(n)
	}
	if n, ok := f.number(math.MaxUint32, "a uint"); ok {
		h.TTL = new(time.Duration(n) * time.Millisecond)
	}
	h.FirstAcquirer = f.bool()
	h.DeliveryCount = f.uint()
	return h, f.end()
}

const defaultPriority = 4

func (d *decoder) properties(code byte, body []byte) (*Properties, error) {
	f, err := d.fields(code, body, 0)
	if err != nil {
		return nil, err
	}
	p := new(Properties)
	p.MessageID = f.messageID()
	p.UserID = f.bytes()
	p.To = f.address()
	p.Subject = f.text()
	p.ReplyTo = f.address()
	p.CorrelationID = f.messageID()
	p.ContentType = f.text()
	p.ContentEncoding = f.text()
	p.AbsoluteExpiryTime = f.timestamp()
	p.CreationTime = f.timestamp()
	p.GroupID = f.text()
	p.GroupSequence = f.uintPointer()
	p.ReplyToGroupID = f.text()
	return p, f.end()
}

func (f *fields) messageID() any {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	switch v := f.value(code, body).(type) {
	case nil, uint64, UUID, []byte, string:
		return v
	}
	f.mismatch(code, "a message id")
	return nil
}

// address reads an address. One that is no string is as good as none.
func (f *fields) address() string {
	s, _ := f.any().(string)
	return s
}

func (f *fields) timestamp() time.Time {
	code, body, ok := f.next()
	if !ok {
		return time.Time{}
	}
	if code != codeTimestamp {
		f.mismatch(code, "a timestamp")
		return time.Time{}
	}
	return timestamp(body)
}

// AppendMessage appends a message. Sections that are empty are left out. A
// message without a body gets an empty data section, unless HasValue says that
// its value is nil.
func AppendMessage(b []byte, m *Message) []byte {
	if h := m.Header; h != nil {
		var at int
		b, at = openDescribed(b, descHeader)
		b = appendBool(b, h.Durable)
		b = append(b, codeUbyte, h.Priority)
		if h.TTL == nil {
			b = append(b, codeNull)
		} else {
			b = appendUint(b, uint32(min(max(h.TTL.Milliseconds(), 0), math.MaxUint32)))
		}
		b = appendBool(b, h.FirstAcquirer)
		b = appendUint(b, h.DeliveryCount)
		b = closeCompound(b, at, 5)
	}
	b = appendSectionMap(b, descDeliveryAnnotations, m.DeliveryAnnotations)
	b = appendSectionMap(b, descAnnotations, m.Annotations)
	if m.Properties != nil {
		b = appendProperties(b, m.Properties)
	}
	b = appendSectionMap(b, descApplicationProperties, m.ApplicationProperties)
	b = appendBody(b, m)
	return appendSectionMap(b, descFooter, m.Footer)
}

func appendSectionMap(b []byte, desc byte, m Map) []byte {
	if len(m) == 0 {
		return b
	}
	return appendMap(append(b, codeDescribed, codeSmallUlong, desc), m)
}

func appendProperties(b []byte, p *Properties) []byte {
	b, at := openDescribed(b, descProperties)
	b = AppendValue(b, p.MessageID)
	b = appendOptionalBinary(b, p.UserID)
	b = appendOptionalString(b, p.To)
	b = appendOptionalString(b, p.Subject)
	b = appendOptionalString(b, p.ReplyTo)
	b = AppendValue(b, p.CorrelationID)
	b = appendOptional(b, Symbol(p.ContentType))
	b = appendOptional(b, Symbol(p.ContentEncoding))
	b = appendOptionalTimestamp(b, p.AbsoluteExpiryTime)
	b = appendOptionalTimestamp(b, p.CreationTime)
	b = appendOptionalString(b, p.GroupID)
	b = appendUintPointer(b, p.GroupSequence)
	b = appendOptionalString(b, p.ReplyToGroupID)
	return closeCompound(b, at, 13)
}

func appendOptionalTimestamp(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, codeNull)
	}
	return appendTimestamp(b, t)
}

func appendBody(b []byte, m *Message) []byte {
	switch {
	case m.HasValue:
		return AppendValue(append(b, codeDescribed, codeSmallUlong, descValue), m.Value)
	case len(m.Sequence) > 0:
		for _, l := range m.Sequence {
			b = appendList(append(b, codeDescribed, codeSmallUlong, descSequence), l)
		}
		return b
	case len(m.Data) == 0:
		return append(b, codeDescribed, codeSmallUlong, descData, codeBinary8, 0)
	}
	for _, data := range m.Data {
		b = appendBinary(append(b, codeDescribed, codeSmallUlong, descData), data)
	}
	return b
}
