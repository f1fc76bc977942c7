package wire

import (
	"errors"
	"fmt"
	"math"
)

// Fields of a list are read in order. One that is null and one that is not there
// any more read alike, as zero. The first thing wrong is kept in err, and what is
// read behind it is zero too, so that readers look once, at the end.
type fields struct {
	decoder // a copy, since a pointer would put it on the heap
	depth   int
	rest    []byte
	left    int // how many fields there are in rest
	index   int // of the field that was read last, from 1
	err     error
}

// next takes the next field. It is not ok if it is null, absent, or broken.
func (f *fields) next() (code byte, body []byte, ok bool) {
	f.index++
	if f.left == 0 || f.err != nil {
		return codeNull, nil, false
	}
	f.left--
	code, body, rest, err := split(f.rest)
	if err != nil {
		f.fail(err)
		return codeNull, nil, false
	}
	f.rest = rest
	return code, body, code != codeNull
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = fmt.Errorf("field %d: %w", f.index, err)
	}
}

func (f *fields) mismatch(code byte, want string) {
	f.fail(fmt.Errorf("%s instead of %s", codeName(code), want))
}

var errMissing = errors.New("missing")

// must says that the field that comes is mandatory.
func (f *fields) must() *fields {
	if f.err == nil && (f.left == 0 || len(f.rest) > 0 && f.rest[0] == codeNull) {
		f.index++
		f.fail(errMissing)
	}
	return f
}

// skip passes over a field.
func (f *fields) skip() { f.next() }

// end looks at what is left. Fields that this package doesn't know are passed over.
func (f *fields) end() error {
	for f.left > 0 && f.err == nil {
		f.next()
	}
	if f.err == nil && len(f.rest) > 0 {
		f.err = fmt.Errorf("%d bytes behind its fields", len(f.rest))
	}
	return f.err
}

// close ends the fields of a field.
func (f *fields) close(in fields, name string) {
	f.weightless = in.weightless
	if err := in.end(); err != nil {
		f.fail(fmt.Errorf("%s: %w", name, err))
	}
}

// fields begins to read the fields of a list.
func (d *decoder) fields(code byte, body []byte, depth int) (fields, error) {
	if code != codeList0 && code != codeList8 && code != codeList32 {
		return fields{}, fmt.Errorf("%s instead of a list", codeName(code))
	}
	n, rest, err := count(code, body)
	if err != nil {
		return fields{}, err
	}
	return fields{decoder: *d, depth: depth, rest: rest, left: n}, nil
}

// composite begins to read a field that is a described list, if it is one with
// the descriptor.
func (f *fields) composite(code byte, body []byte, desc uint64) (fields, bool) {
	if code != codeDescribed {
		return fields{}, false
	}
	number, symbol, rest, err := descriptor(body)
	if err != nil || symbol != nil || number != desc {
		return fields{}, false
	}
	code, body, _, err = split(rest)
	if err != nil {
		return fields{}, false
	}
	in, err := f.decoder.fields(code, body, f.depth+1)
	if err != nil {
		f.fail(err)
	}
	return in, true
}

// value reads a field of any type that next has taken.
func (f *fields) value(code byte, body []byte) any {
	v, err := f.decoder.value(code, body, f.depth+1)
	if err != nil {
		f.fail(err)
		return nil
	}
	return v
}

func (f *fields) any() any {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	return f.value(code, body)
}

// number reads an unsigned integer, of whatever width it was sent in.
func (f *fields) number(limit uint64, want string) (n uint64, ok bool) {
	code, body, ok := f.next()
	if !ok {
		return 0, false
	}
	if n, ok = unsigned(code, body); !ok {
		f.mismatch(code, want)
		return 0, false
	}
	if n > limit {
		f.fail(fmt.Errorf("%d is larger than %s", n, want))
		return 0, false
	}
	return n, true
}

func (f *fields) ubyte() uint8 {
	n, _ := f.number(math.MaxUint8, "a ubyte")
	return uint8(n)
}

func (f *fields) uint() uint32 {
	n, _ := f.number(math.MaxUint32, "a uint")
	return uint32(n)
}

func (f *fields) ulong() uint64 {
	n, _ := f.number(math.MaxUint64, "a ulong")
	return n
}

func (f *fields) ubytePointer() *uint8 {
	if n, ok := f.number(math.MaxUint8, "a ubyte"); ok {
		return new(uint8(n))
	}
	return nil
}

func (f *fields) ushortPointer() *uint16 {
	if n, ok := f.number(math.MaxUint16, "a ushort"); ok {
		return new(uint16(n))
	}
	return nil
}

func (f *fields) uintPointer() *uint32 {
	if n, ok := f.number(math.MaxUint32, "a uint"); ok {
		return new(uint32(n))
	}
	return nil
}

func (f *fields) ulongPointer() *uint64 {
	if n, ok := f.number(math.MaxUint64, "a ulong"); ok {
		return &n
	}
	return nil
}

// uintAt reads into room and returns it, or nil: room is part of what is
// allocated anyway.
func (f *fields) uintAt(room *uint32) *uint32 {
	n, ok := f.number(math.MaxUint32, "a uint")
	if !ok {
		return nil
	}
	*room = uint32(n)
	return room
}

func (f *fields) bool() bool {
	v, _ := f.optionalBool()
	return v
}

func (f *fields) optionalBool() (v, ok bool) {
	code, body, ok := f.next()
	if !ok {
		return false, false
	}
	if code != codeTrue && code != codeFalse && code != codeBoolean {
		f.mismatch(code, "a boolean")
		return false, false
	}
	v, err := boolean(code, body)
	if err != nil {
		f.fail(err)
	}
	return v, true
}

// text reads a string or a symbol: what is written as the other is meant.
func (f *fields) text() string {
	code, body, ok := f.next()
	if !ok {
		return ""
	}
	switch code {
	case codeString8, codeString32, codeSymbol8, codeSymbol32:
		if err := checkText(body); err != nil {
			f.fail(err)
			return ""
		}
		return string(body)
	}
	f.mismatch(code, "a string")
	return ""
}

// bytes reads a binary, which may have been written as a string. It is nil if
// it is absent.
func (f *fields) bytes() []byte {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	switch code {
	case codeBinary8, codeBinary32, codeString8, codeString32:
		return f.binary(body)
	}
	f.mismatch(code, "a binary")
	return nil
}

func (f *fields) mapping() Map {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	if code != codeMap8 && code != codeMap32 {
		f.mismatch(code, "a map")
		return nil
	}
	m, err := f.decoder.mapping(code, body, f.depth+1)
	if err != nil {
		f.fail(err)
	}
	return m
}

// symbols reads a field that may have several symbols: one, or an array.
func (f *fields) symbols() []Symbol {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	if code != codeArray8 && code != codeArray32 {
		symbol, err := symbolOf(code, body)
		if err != nil {
			f.fail(err)
			return nil
		}
		return []Symbol{symbol}
	}
	e, err := f.elements(code, body)
	var symbols []Symbol
	for range e.count {
		var symbol Symbol
		if body, err = e.next(); err == nil {
			symbol, err = symbolOf(e.code, body)
		}
		if err != nil {
			break
		}
		symbols = append(room(symbols, e.count), symbol)
	}
	if err == nil {
		err = e.end()
	}
	if err != nil {
		f.fail(err)
		return nil
	}
	return symbols
}

func symbolOf(code byte, body []byte) (Symbol, error) {
	switch code {
	case codeSymbol8, codeSymbol32, codeString8, codeString32:
		return Symbol(body), checkText(body)
	}
	return "", fmt.Errorf("%s instead of a symbol", codeName(code))
}

// The other way, for fields that are null when they are zero.

func openDescribed(b []byte, desc byte) (next []byte, at int) {
	return openCompound(append(b, codeDescribed, codeSmallUlong, desc), codeList8)
}

func appendOptional(b []byte, s Symbol) []byte {
	if s == "" {
		return append(b, codeNull)
	}
	return appendSymbol(b, s)
}

func appendOptionalString(b []byte, s string) []byte {
	if s == "" {
		return append(b, codeNull)
	}
	return appendString(b, s)
}

func appendOptionalBinary(b, v []byte) []byte {
	if v == nil {
		return append(b, codeNull)
	}
	return appendBinary(b, v)
}

func appendFields(b []byte, m Map) []byte {
	if len(m) == 0 {
		return append(b, codeNull)
	}
	return appendMap(b, m)
}

func appendSymbols(b []byte, symbols []Symbol) []byte {
	if len(symbols) == 0 {
		return append(b, codeNull)
	}
	return appendTexts(b, codeSymbol8, symbols)
}

func appendUbytePointer(b []byte, n *uint8) []byte {
	if n == nil {
		return append(b, codeNull)
	}
	return append(b, codeUbyte, *n)
}

func appendUintPointer(b []byte, n *uint32) []byte {
	if n == nil {
		return append(b, codeNull)
	}
	return appendUint(b, *n)
}

func appendUlongPointer(b []byte, n *uint64) []byte {
	if n == nil {
		return append(b, codeNull)
	}
	return appendUlong(b, *n)
}
