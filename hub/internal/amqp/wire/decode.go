package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// Bounds of what is read. Everything else takes bytes on the wire, and about
// fifty times as many here at most.
const (
	maxDepth = 32

	// maxWeightless is how many array elements without a byte of their own, such
	// as null or true, one value may have.
	maxWeightless = 1024
)

var (
	errShort = errors.New("a value is cut short")
	errDeep  = fmt.Errorf("values are nested more than %d deep", maxDepth)
)

// DecodeValue reads one value and returns what is behind it. Its byte slices are
// slices of b.
func DecodeValue(b []byte) (v any, rest []byte, err error) {
	d := newDecoder(false)
	return d.decode(b, 0)
}

// A decoder reads values.
type decoder struct {
	copies     bool // binaries are copied, not slices of what is decoded
	weightless int  // how many more elements without bytes there may be
}

func newDecoder(copies bool) decoder {
	return decoder{copies: copies, weightless: maxWeightless}
}

// split takes the first value off b: its constructor and what is behind that,
// without its size. Of a described value that is the descriptor and the value.
func split(b []byte) (code byte, body, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, nil, errShort
	}
	code = b[0]
	if code != codeDescribed {
		body, rest, err = splitBody(code, b[1:])
		return code, body, rest, err
	}
	rest = b[1:]
	for range maxDepth {
		if _, _, rest, err = descriptor(rest); err != nil {
			return 0, nil, nil, err
		}
		if len(rest) == 0 {
			return 0, nil, nil, errShort
		}
		inner := rest[0]
		if inner == codeDescribed {
			rest = rest[1:]
			continue
		}
		if _, rest, err = splitBody(inner, rest[1:]); err != nil {
			return 0, nil, nil, err
		}
		return codeDescribed, b[1 : len(b)-len(rest)], rest, nil
	}
	return 0, nil, nil, errDeep
}

// splitBody takes what is behind a constructor off b. The constructor's upper
// half tells how long it is, also of types that nobody has defined yet.
func splitBody(code byte, b []byte) (body, rest []byte, err error) {
	var size int
	switch code >> 4 {
	case 0x4:
	case 0x5:
		size = 1
	case 0x6:
		size = 2
	case 0x7:
		size = 4
	case 0x8:
		size = 8
	case 0x9:
		size = 16
	case 0xa, 0xc, 0xe:
		if len(b) < 1 {
			return nil, nil, errShort
		}
		size, b = int(b[0]), b[1:]
	case 0xb, 0xd, 0xf:
		if len(b) < 4 {
			return nil, nil, errShort
		}
		n := binary.BigEndian.Uint32(b)
		if b = b[4:]; uint64(n) > uint64(len(b)) {
			return nil, nil, errShort
		}
		size = int(n)
	default:
		return nil, nil, errors.New(codeName(code))
	}
	if size > len(b) {
		return nil, nil, errShort
	}
	return b[:size:size], b[size:], nil
}

// descriptor reads the descriptor of a described value: a number, or a symbol.
// One of this package's symbols comes as the number.
func descriptor(b []byte) (number uint64, symbol []byte, rest []byte, err error) {
	if len(b) >= 2 && b[0] == codeSmallUlong {
		return uint64(b[1]), nil, b[2:], nil
	}
	if len(b) == 0 {
		return 0, nil, nil, errShort
	}
	code := b[0]
	if code == codeDescribed {
		return 0, nil, nil, errors.New("a descriptor is described")
	}
	body, rest, err := splitBody(code, b[1:])
	if err != nil {
		return 0, nil, nil, err
	}
	switch code {
	case codeUlong0, codeUlong, codeSmallUlong:
		number, _ = unsigned(code, body)
		return number, nil, rest, nil
	case codeSymbol8, codeSymbol32:
		if number, ok := symbolicDescriptors[string(body)]; ok {
			return number, nil, rest, nil
		}
		return 0, body, rest, checkText(body)
	}
	return 0, nil, nil, fmt.Errorf("a descriptor is %s", codeName(code))
}

// decode reads the first value of b.
func (d *decoder) decode(b []byte, depth int) (v any, rest []byte, err error) {
	code, body, rest, err := split(b)
	if err != nil {
		return nil, nil, err
	}
	v, err = d.value(code, body, depth)
	return v, rest, err
}

// value reads a value that split has taken off.
func (d *decoder) value(code byte, body []byte, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	switch code {
	case codeNull:
		return nil, nil
	case codeTrue, codeFalse, codeBoolean:
		return boolean(code, body)
	case codeUbyte:
		return body[0], nil
	case codeByte:
		return int8(body[0]), nil
	case codeUshort:
		return binary.BigEndian.Uint16(body), nil
	case codeShort:
		return int16(binary.BigEndian.Uint16(body)), nil
	case codeUint0, codeSmallUint, codeUint:
		n, _ := unsigned(code, body)
		return uint32(n), nil
	case codeUlong0, codeSmallUlong, codeUlong:
		n, _ := unsigned(code, body)
		return n, nil
	case codeSmallInt:
		return int32(int8(body[0])), nil
	case codeInt:
		return int32(binary.BigEndian.Uint32(body)), nil
	case codeSmallLong:
		return int64(int8(body[0])), nil
	case codeLong:
		return int64(binary.BigEndian.Uint64(body)), nil
	case codeFloat:
		return math.Float32frombits(binary.BigEndian.Uint32(body)), nil
	case codeDouble:
		return math.Float64frombits(binary.BigEndian.Uint64(body)), nil
	case codeChar:
		return Char(binary.BigEndian.Uint32(body)), nil
	case codeDecimal32, codeDecimal64, codeDecimal128:
		return Decimal(d.binary(body)), nil
	case codeTimestamp:
		return timestamp(body), nil
	case codeUUID:
		return UUID(body), nil
	case codeBinary8, codeBinary32:
		return d.binary(body), nil
	case codeString8, codeString32:
		return string(body), checkText(body)
	case codeSymbol8, codeSymbol32:
		return Symbol(body), checkText(body)
	case codeList0, codeList8, codeList32:
		return d.list(code, body, depth)
	case codeMap8, codeMap32:
		return d.mapping(code, body, depth)
	case codeArray8, codeArray32:
		return d.array(code, body, depth)
	case codeDescribed:
		return d.described(body, depth)
	}
	return nil, errors.New(codeName(code))
}

func (d *decoder) binary(body []byte) []byte {
	if d.copies {
		return append(make([]byte, 0, len(body)), body...)
	}
	return body
}

func boolean(code byte, body []byte) (bool, error) {
	if code == codeBoolean {
		if body[0] > 1 {
			return false, fmt.Errorf("a boolean of %d", body[0])
		}
		return body[0] == 1, nil
	}
	return code == codeTrue, nil
}

// unsigned reads a number of any of the unsigned types.
func unsigned(code byte, body []byte) (n uint64, ok bool) {
	switch code {
	case codeUint0, codeUlong0:
		return 0, true
	case codeUbyte, codeSmallUint, codeSmallUlong:
		return uint64(body[0]), true
	case codeUshort:
		return uint64(binary.BigEndian.Uint16(body)), true
	case codeUint:
		return uint64(binary.BigEndian.Uint32(body)), true
	case codeUlong:
		return binary.BigEndian.Uint64(body), true
	}
	return 0, false
}

func timestamp(body []byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(body))).UTC()
}

func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("a text is not UTF-8")
	}
	return nil
}

// count reads how many elements a compound or an array has. Each of a compound
// takes a byte at least; of an array its constructor decides.
func count(code byte, body []byte) (n int, rest []byte, err error) {
	switch code >> 4 {
	case 0x4:
		return 0, nil, nil
	case 0xc, 0xe:
		if len(body) < 1 {
			return 0, nil, errShort
		}
		n, rest = int(body[0]), body[1:]
	default:
		if len(body) < 4 {
			return 0, nil, errShort
		}
		large := binary.BigEndian.Uint32(body)
		if large > math.MaxInt32 {
			return 0, nil, fmt.Errorf("%s has %d elements", codeName(code), large)
		}
		n, rest = int(large), body[4:]
	}
	if code>>4 < 0xe && n > len(rest) {
		return 0, nil, fmt.Errorf("%s has %d elements in %d bytes", codeName(code), n, len(rest))
	}
	return n, rest, nil
}

// room makes room for one element more in s, which is to have n. What is
// allocated follows the elements that have been seen, not the count: lists in
// one another that all lie about it would add up.
func room[S ~[]E, E any](s S, n int) S {
	if len(s) < cap(s) {
		return s
	}
	return slices.Grow(s, min(n-len(s), max(16, 7*len(s))))
}

func tooLong(code byte, rest []byte) error {
	return fmt.Errorf("%s has %d bytes behind its elements", codeName(code), len(rest))
}

func (d *decoder) list(code byte, body []byte, depth int) (List, error) {
	n, rest, err := count(code, body)
	if err != nil {
		return nil, err
	}
	var l List
	for range n {
		var v any
		if v, rest, err = d.decode(rest, depth+1); err != nil {
			return nil, err
		}
		l = append(room(l, n), v)
	}
	if len(rest) > 0 {
		return nil, tooLong(code, rest)
	}
	return l, nil
}

func (d *decoder) mapping(code byte, body []byte, depth int) (Map, error) {
	n, rest, err := count(code, body)
	if err != nil {
		return nil, err
	}
	if n%2 != 0 {
		return nil, errors.New("a map has a key without a value")
	}
	var m Map
	for range n / 2 {
		var e Entry
		if e.Key, rest, err = d.decode(rest, depth+1); err != nil {
			return nil, err
		}
		if e.Value, rest, err = d.decode(rest, depth+1); err != nil {
			return nil, err
		}
		m = append(room(m, n/2), e)
	}
	if len(rest) > 0 {
		return nil, tooLong(code, rest)
	}
	return m, nil
}

// array reads an array, whose elements have one constructor together. Of
// descriptors it may have one.
func (d *decoder) array(code byte, body []byte, depth int) (Array, error) {
	e, err := d.elements(code, body)
	if err != nil {
		return nil, err
	}
	var a Array
	for range e.count {
		var v any
		if body, err = e.next(); err == nil {
			v, err = d.value(e.code, body, depth+1)
		}
		if err != nil {
			return nil, err
		}
		if e.desc != nil {
			v = Described{e.desc, v}
		}
		a = append(room(a, e.count), v)
	}
	return a, e.end()
}

// elements are those of an array.
type elements struct {
	count int
	code  byte // of each
	desc  any  // of each, if there is one
	rest  []byte
}

func (d *decoder) elements(code byte, body []byte) (elements, error) {
	n, rest, err := count(code, body)
	if err != nil || n == 0 {
		return elements{}, err
	}
	if len(rest) == 0 {
		return elements{}, errShort
	}
	e := elements{count: n, code: rest[0], rest: rest[1:]}
	if e.code == codeDescribed {
		if e.desc, rest, err = descriptorValue(e.rest); err != nil {
			return elements{}, err
		}
		if len(rest) == 0 {
			return elements{}, errShort
		}
		if e.code, e.rest = rest[0], rest[1:]; e.code == codeDescribed {
			return elements{}, errors.New("an array's elements have two descriptors")
		}
	}
	if e.code>>4 == 0x4 {
		if n > d.weightless {
			return elements{}, fmt.Errorf("an array has %d elements without a byte", n)
		}
		d.weightless -= n
	} else if n > len(e.rest) {
		return elements{}, fmt.Errorf("an array has %d elements in %d bytes", n, len(e.rest))
	}
	return e, nil
}

// next takes off the next element, of those that count tells.
func (e *elements) next() (body []byte, err error) {
	body, e.rest, err = splitBody(e.code, e.rest)
	return body, err
}

func (e *elements) end() error {
	if len(e.rest) > 0 {
		return tooLong(codeArray8, e.rest)
	}
	return nil
}

func descriptorValue(b []byte) (desc any, rest []byte, err error) {
	number, symbol, rest, err := descriptor(b)
	if err != nil {
		return nil, nil, err
	}
	if symbol != nil {
		return Symbol(symbol), rest, nil
	}
	return number, rest, nil
}

func (d *decoder) described(body []byte, depth int) (any, error) {
	desc, rest, err := descriptorValue(body)
	if err != nil {
		return nil, err
	}
	v, _, err := d.decode(rest, depth+1)
	if err != nil {
		return nil, err
	}
	return Described{desc, v}, nil
}
