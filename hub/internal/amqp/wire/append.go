package wire

import (
	"encoding/binary"
	"math"
	"reflect"
	"time"
)

// AppendValue appends a value of the Go types above, and []string, []Symbol and
// []uint32 as arrays. It panics on others: that is the caller's mistake.
func AppendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, codeNull)
	case bool:
		return appendBool(b, v)
	case uint8:
		return append(b, codeUbyte, v)
	case uint16:
		return appendUshort(b, v)
	case uint32:
		return appendUint(b, v)
	case uint64:
		return appendUlong(b, v)
	case int8:
		return append(b, codeByte, byte(v))
	case int16:
		return binary.BigEndian.AppendUint16(append(b, codeShort), uint16(v))
	case int32:
		if v == int32(int8(v)) {
			return append(b, codeSmallInt, byte(v))
		}
		return binary.BigEndian.AppendUint32(append(b, codeInt), uint32(v))
	case int64:
		if v == int64(int8(v)) {
			return append(b, codeSmallLong, byte(v))
		}
		return binary.BigEndian.AppendUint64(append(b, codeLong), uint64(v))
	case string:
		return appendString(b, v)
	case Symbol:
		return appendSymbol(b, v)
	case []byte:
		return appendBinary(b, v)
	case time.Time:
		return appendTimestamp(b, v)
	case UUID:
		return append(append(b, codeUUID), v[:]...)
	case Map:
		return appendMap(b, v)
	case List:
		return appendList(b, v)
	case Array:
		return appendArray(b, v)
	case []string:
		return appendTexts(b, codeString8, v)
	case []Symbol:
		return appendTexts(b, codeSymbol8, v)
	case []uint32:
		b, at := openCompound(b, codeArray8)
		b = append(b, codeUint)
		for _, n := range v {
			b = binary.BigEndian.AppendUint32(b, n)
		}
		return closeCompound(b, at, len(v))
	case Described:
		b = AppendValue(append(b, codeDescribed), v.Descriptor)
		return AppendValue(b, v.Value)
	case float32, float64, Char, Decimal:
		code := widest(v)
		return appendElement(append(b, code), code, v)
	}
	panic("wire: no AMQP type is like " + reflect.TypeOf(v).String())
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, codeTrue)
	}
	return append(b, codeFalse)
}

func appendUshort(b []byte, n uint16) []byte {
	return binary.BigEndian.AppendUint16(append(b, codeUshort), n)
}

func appendUint(b []byte, n uint32) []byte {
	switch {
	case n == 0:
		return append(b, codeUint0)
	case n <= math.MaxUint8:
		return append(b, codeSmallUint, byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, codeUint), n)
}

func appendUlong(b []byte, n uint64) []byte {
	switch {
	case n == 0:
		return append(b, codeUlong0)
	case n <= math.MaxUint8:
		return append(b, codeSmallUlong, byte(n))
	}
	return binary.BigEndian.AppendUint64(append(b, codeUlong), n)
}

func appendTimestamp(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(append(b, codeTimestamp), uint64(t.UnixMilli()))
}

// appendSized appends a constructor that has a small and a large form, and a
// size. The large form is 0x10 above.
func appendSized(b []byte, small byte, n int) []byte {
	if n <= math.MaxUint8 {
		return append(b, small, byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, small+0x10), uint32(n))
}

func appendString(b []byte, s string) []byte {
	return append(appendSized(b, codeString8, len(s)), s...)
}

func appendSymbol(b []byte, s Symbol) []byte {
	return append(appendSized(b, codeSymbol8, len(s)), s...)
}

func appendBinary(b, v []byte) []byte {
	return append(appendSized(b, codeBinary8, len(v)), v...)
}

// openCompound appends the head of a compound or an array, of which
// closeCompound writes the size and the count when they are known.
func openCompound(b []byte, small byte) (next []byte, at int) {
	return append(b, small, 0, 0), len(b)
}

func closeCompound(b []byte, at, count int) []byte {
	const small, large = 3, 9
	size := len(b) - at - small
	if size < math.MaxUint8 && count <= math.MaxUint8 {
		b[at+1], b[at+2] = byte(size+1), byte(count)
		return b
	}
	b = append(b, make([]byte, large-small)...)
	copy(b[at+large:], b[at+small:at+small+size])
	b[at] += 0x10
	binary.BigEndian.PutUint32(b[at+1:], uint32(size+4))
	binary.BigEndian.PutUint32(b[at+5:], uint32(count))
	return b
}

func appendMap(b []byte, m Map) []byte {
	b, at := openCompound(b, codeMap8)
	for i := range m {
		b = AppendValue(b, m[i].Key)
		b = AppendValue(b, m[i].Value)
	}
	return closeCompound(b, at, 2*len(m))
}

func appendList(b []byte, l List) []byte {
	if len(l) == 0 {
		return append(b, codeList0)
	}
	b, at := openCompound(b, codeList8)
	for _, v := range l {
		b = AppendValue(b, v)
	}
	return closeCompound(b, at, len(l))
}

// appendTexts appends an array of strings or symbols.
func appendTexts[T ~string](b []byte, small byte, texts []T) []byte {
	b, at := openCompound(b, codeArray8)
	code := small
	for _, s := range texts {
		if len(s) > math.MaxUint8 {
			code = small + 0x10
		}
	}
	b = append(b, code)
	for _, s := range texts {
		b = appendElementSize(b, code, len(s))
		b = append(b, s...)
	}
	return closeCompound(b, at, len(texts))
}

// appendArray appends an array with the constructor that all elements fit in.
func appendArray(b []byte, a Array) []byte {
	b, at := openCompound(b, codeArray8)
	if len(a) == 0 {
		return closeCompound(append(b, codeNull), at, 0)
	}
	first, ok := a[0].(Described)
	if ok {
		b = AppendValue(append(b, codeDescribed), first.Descriptor)
		values := make(Array, len(a))
		for i, v := range a {
			e := v.(Described)
			if e.Descriptor != first.Descriptor {
				panic("wire: an array's elements have different descriptors")
			}
			values[i] = e.Value
		}
		a = values
	}
	code := widest(a[0])
	b = append(b, code)
	for _, v := range a {
		if widest(v) != code {
			panic("wire: an array's elements are of different types")
		}
		b = appendElement(b, code, v)
	}
	return closeCompound(b, at, len(a))
}

// widest is the constructor that takes every value of a type.
func widest(v any) byte {
	switch v := v.(type) {
	case nil:
		return codeNull
	case bool:
		return codeBoolean
	case uint8:
		return codeUbyte
	case uint16:
		return codeUshort
	case uint32:
		return codeUint
	case uint64:
		return codeUlong
	case int8:
		return codeByte
	case int16:
		return codeShort
	case int32:
		return codeInt
	case int64:
		return codeLong
	case float32:
		return codeFloat
	case float64:
		return codeDouble
	case Char:
		return codeChar
	case time.Time:
		return codeTimestamp
	case UUID:
		return codeUUID
	case []byte:
		return codeBinary32
	case string:
		return codeString32
	case Symbol:
		return codeSymbol32
	case List:
		return codeList32
	case Map:
		return codeMap32
	case Array, []string, []Symbol, []uint32:
		return codeArray32
	case Decimal:
		switch len(v) {
		case 4:
			return codeDecimal32
		case 8:
			return codeDecimal64
		case 16:
			return codeDecimal128
		}
	}
	panic("wire: no element of an array is like " + reflect.TypeOf(v).String())
}

// appendElement appends what is behind the constructor that widest gave.
func appendElement(b []byte, code byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return b
	case bool:
		if v {
			return append(b, 1)
		}
		return append(b, 0)
	case uint8:
		return append(b, v)
	case uint16:
		return binary.BigEndian.AppendUint16(b, v)
	case uint32:
		return binary.BigEndian.AppendUint32(b, v)
	case uint64:
		return binary.BigEndian.AppendUint64(b, v)
	case int8:
		return append(b, byte(v))
	case int16:
		return binary.BigEndian.AppendUint16(b, uint16(v))
	case int32:
		return binary.BigEndian.AppendUint32(b, uint32(v))
	case int64:
		return binary.BigEndian.AppendUint64(b, uint64(v))
	case float32:
		return binary.BigEndian.AppendUint32(b, math.Float32bits(v))
	case float64:
		return binary.BigEndian.AppendUint64(b, math.Float64bits(v))
	case Char:
		return binary.BigEndian.AppendUint32(b, uint32(v))
	case time.Time:
		return binary.BigEndian.AppendUint64(b, uint64(v.UnixMilli()))
	case UUID:
		return append(b, v[:]...)
	case Decimal:
		return append(b, v...)
	case []byte:
		return append(appendElementSize(b, code, len(v)), v...)
	case string:
		return append(appendElementSize(b, code, len(v)), v...)
	case Symbol:
		return append(appendElementSize(b, code, len(v)), v...)
	}
	// Compounds and arrays: written whole, and then without their constructor
	// and with the size of the large form.
	whole := AppendValue(nil, v)
	_, body, _, err := split(whole)
	if err != nil {
		panic(err)
	}
	n, body, err := count(whole[0], body)
	if err != nil {
		panic(err)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(body)))
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return append(b, body...)
}

func appendElementSize(b []byte, code byte, n int) []byte {
	if code>>4 == 0xa {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}
