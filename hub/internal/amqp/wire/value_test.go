package wire_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// everyType has a value of every type, at the edges of their encodings.
func everyType() wire.List {
	long := strings.Repeat("ä", 200)
	return wire.List{
		nil, true, false, uint8(0), uint8(255), uint16(256), uint32(0), uint32(255), uint32(256), uint32(math.MaxUint32),
		uint64(0), uint64(255), uint64(256), uint64(math.MaxUint64), int8(-1), int16(-2), int32(-128), int32(127), int32(128), int32(-129),
		int64(-128), int64(127), int64(math.MinInt64), float32(1.5), math.Pi, wire.Char('€'), wire.Decimal{1, 2, 3, 4},
		wire.Decimal(make([]byte, 8)), wire.Decimal(make([]byte, 16)), time.UnixMilli(-1).UTC(), time.UnixMilli(1764374400123).UTC(),
		uuid, []byte{}, []byte(long), "", long, wire.Symbol(""), wire.Symbol(long),
		wire.List(nil), wire.List{wire.List{nil}}, wire.Map(nil), wire.Map{{Key: "a", Value: wire.Symbol("b")}, {Key: uint64(1), Value: nil}},
		wire.Array(nil), wire.Array{"a", "b"}, wire.Array{nil, nil}, wire.Array{wire.Array{true, false}, wire.Array{uint32(1)}},
		wire.Array{wire.List{"a", nil}, wire.List(nil)}, wire.Array{wire.Map{{Key: "k", Value: int32(1)}}}, wire.Array{[]byte("b"), []byte{}},
		wire.Array{wire.Described{Descriptor: uint64(5), Value: "a"}, wire.Described{Descriptor: uint64(5), Value: "b"}},
		wire.Array{uuid}, wire.Array{time.UnixMilli(5).UTC()}, wire.Array{wire.Char('a')}, wire.Array{float32(2)}, wire.Array{2.5},
		wire.Array{int8(1), int8(-1)}, wire.Array{int16(1)}, wire.Array{int32(1)}, wire.Array{int64(1)}, wire.Array{uint8(1)}, wire.Array{uint16(1)},
		wire.Array{uint64(0)}, wire.Array{wire.Symbol("s")}, wire.Array{wire.Decimal{0, 0, 0, 0}},
		wire.Described{Descriptor: wire.Symbol("apache.org:selector-filter:string"), Value: "x > 'y'"},
		wire.Described{Descriptor: uint64(0x0000468C00000004), Value: wire.Described{Descriptor: uint64(1), Value: nil}},
	}
}

func TestValuesComeBackAsTheyWent(t *testing.T) {
	all := everyType()
	for _, want := range append(all, all) {
		b := wire.AppendValue([]byte{0xff}, want)[1:]
		got, rest, err := wire.DecodeValue(append(b, "rest"...))
		if err != nil {
			t.Errorf("DecodeValue(%x), encoded of %#v: %v", b, want, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("DecodeValue(%x) (-want +got):\n%s", b, diff)
		}
		if string(rest) != "rest" {
			t.Errorf("DecodeValue(%x) leaves %q", b, rest)
		}
	}
}

func TestGoSlicesAreWrittenAsArrays(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		value any
		want  wire.Array
		head  string
	}{
		{[]string{"0", "1"}, wire.Array{"0", "1"}, "e006 02 a1 0130 0131"},
		{[]string{long}, wire.Array{long}, "f0 00000109 00000001 b1 00000100"},
		{[]wire.Symbol{"PLAIN"}, wire.Array{wire.Symbol("PLAIN")}, "e008 01 a3 05 504c41494e"},
		{[]uint32{1, 2}, wire.Array{uint32(1), uint32(2)}, "e00a 02 70 00000001 00000002"},
		{[]string(nil), nil, "e002 00 a1"},
	} {
		b := wire.AppendValue(nil, tt.value)
		if want := unhex(t, tt.head); !bytes.HasPrefix(b, want) {
			t.Errorf("AppendValue(%v) = %x, want %x first", tt.value, b, want)
		}
		got, _, err := wire.DecodeValue(b)
		if diff := cmp.Diff(any(tt.want), got); err != nil || diff != "" {
			t.Errorf("DecodeValue(%x): %v (-want +got):\n%s", b, err, diff)
		}
	}
}

func TestEveryConstructorIsRead(t *testing.T) {
	for _, tt := range []struct {
		bytes string
		want  any
	}{
		{"40", nil},
		{"41", true}, {"42", false}, {"5600", false}, {"5601", true},
		{"5007", uint8(7)}, {"51ff", int8(-1)}, {"600102", uint16(258)}, {"61fffe", int16(-2)},
		{"43", uint32(0)}, {"5207", uint32(7)}, {"7000000007", uint32(7)},
		{"44", uint64(0)}, {"5307", uint64(7)}, {"800000000000000007", uint64(7)},
		{"54fe", int32(-2)}, {"71fffffffe", int32(-2)}, {"55fe", int64(-2)}, {"81fffffffffffffffe", int64(-2)},
		{"723fc00000", float32(1.5)}, {"823ff8000000000000", 1.5}, {"7300000061", wire.Char('a')},
		{"7401020304", wire.Decimal{1, 2, 3, 4}},
		{"830000000000000001", time.UnixMilli(1).UTC()},
		{"98010000000000000000000000000000ff", uuid},
		{"a00101", []byte{1}}, {"b00000000101", []byte{1}},
		{"a10161", "a"}, {"b10000000161", "a"},
		{"a30161", wire.Symbol("a")}, {"b30000000161", wire.Symbol("a")},
		{"45", wire.List(nil)}, {"c00100", wire.List(nil)}, {"d00000000400000000", wire.List(nil)},
		{"c0020140", wire.List{nil}}, {"d0000000050000000141", wire.List{true}},
		{"c10100", wire.Map(nil)}, {"c1030 240 41", wire.Map{{Key: nil, Value: true}}}, {"d100000006 00000002 4041", wire.Map{{Key: nil, Value: true}}},
		{"e0020040", wire.Array(nil)}, {"e00100", wire.Array(nil)}, {"f00000000400000000", wire.Array(nil)},
		{"e003025601", nil}, // an error, below
		{"e00402560100", wire.Array{true, false}}, {"e0020241", wire.Array{true, true}}, {"f0000000070000000256 0001", wire.Array{false, true}},
		{"e0 06 02 a1 0161 0162", wire.Array{"a", "b"}},
		{"e0 0b 02 e0 03 02 50 01 02 02 01 41", nil}, // an error, below
		{"e0 09 02 e0 03 01 50 01 02 01 41", wire.Array{wire.Array{uint8(1)}, wire.Array{true}}},
		{"e0 05 02 00 53 05 41", wire.Array{wire.Described{uint64(5), true}, wire.Described{uint64(5), true}}},
		{"e0 08 02 00 a3 01 78 50 01 02", wire.Array{wire.Described{wire.Symbol("x"), uint8(1)}, wire.Described{wire.Symbol("x"), uint8(2)}}},
		{"00 44 40", wire.Described{uint64(0), nil}},
		{"00 80 0000468c00000004 a10161", wire.Described{uint64(0x468c00000004), "a"}},
		{"00 a3 13 616d71703a61636365707465643a6c697374 45", nil}, // a length that is wrong
		{"00 a3 12 616d71703a61636365707465643a6c697374 45", wire.Described{uint64(0x24), wire.List(nil)}},
	} {
		got, rest, err := wire.DecodeValue(unhex(t, tt.bytes))
		if tt.want == nil && tt.bytes != "40" {
			if err == nil {
				t.Errorf("DecodeValue(%s) = %v, want an error", tt.bytes, got)
			}
			continue
		}
		if err != nil || len(rest) > 0 {
			t.Errorf("DecodeValue(%s): %v, and %x is left", tt.bytes, err, rest)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("DecodeValue(%s) (-want +got):\n%s", tt.bytes, diff)
		}
	}
}

func TestHostileValuesAreRefusedInOneLine(t *testing.T) {
	nested := func(open string, n int) string { return strings.Repeat(open, n) + "40" }
	for _, tt := range []struct{ name, bytes, want string }{
		{"nothing", "", "a value is cut short"},
		{"a constructor that is none", "01", "the unknown constructor 0x01"},
		{"another", "3f", "the unknown constructor 0x3f"},
		{"a type of one byte that nobody defined", "5f00", "the unknown constructor 0x5f"},
		{"a type of a list's size nobody defined", "c40100", "the unknown constructor 0xc4"},
		{"a uint cut short", "700000", "a value is cut short"},
		{"a string cut short", "a10561", "a value is cut short"},
		{"a string without its size", "b1000000", "a value is cut short"},
		{"a string of 4 GiB", "b1ffffffff61", "a value is cut short"},
		{"a list without its count", "c000", "a value is cut short"},
		{"a list of 255 elements in one byte", "c002ff40", "a list has 255 elements in 1 bytes"},
		{"a list of 4 billion elements", "d000000005ffffffff40", "a list has 4294967295 elements"},
		{"a list of 2 billion elements", "d0000000057fffffff40", "a list has 2147483647 elements in 1 bytes"},
		{"a list with something behind it", "c0030140 40", "a list has 1 bytes behind its elements"},
		{"a list in which a value is cut short", "c0020170", "a value is cut short"},
		{"a map with an odd count", "c1020140", "a map has a key without a value"},
		{"a map of 4 billion elements", "d100000005ffffffff40", "a map has 4294967295 elements"},
		{"an array of 4 billion nulls", "f000000005ffffffff40", "an array has 4294967295 elements"},
		{"an array of 2 billion nulls", "f0000000057fffffff40", "an array has 2147483647 elements without a byte"},
		{"an array of 2 billion trues", "f0000000057fffffff41", "an array has 2147483647 elements without a byte"},
		{"an array of a million empty lists", "f000000005000fffff45", "an array has 1048575 elements without a byte"},
		{"an array of 2 billion bytes", "f0000000067fffffff5000", "an array has 2147483647 elements in 1 bytes"},
		{"an array of 2 billion described nulls", "f0000000087fffffff00531040", "an array has 2147483647 elements without a byte"},
		{"an array without a constructor", "e00101", "a value is cut short"},
		{"an array of elements with two decriptor", "e007010053010053 0240", "an array's elements have two descriptors"},
		{"an array of arrays that are cut short", "e00502e0 ff 00 40", "a value is cut short"},
		{"an array with something behind it", "e00401500102", "an array has 1 bytes behind its elements"},
		{"arrays of nulls, which add up", "c0ff 20" + strings.Repeat("e002ff40", 32) + strings.Repeat("40", 126), "an array has 255 elements without a byte"},
		{"a boolean of 2", "5602", "a boolean of 2"},
		{"text that is not UTF-8", "a101ff", "a text is not UTF-8"},
		{"a symbol that is not UTF-8", "a301ff", "a text is not UTF-8"},
		{"a descriptor without a value", "005310", "a value is cut short"},
		{"a descriptor that is a string", "00a1016140", "a descriptor is a string"},
		{"a descriptor that is described", "0000531040 40", "a descriptor is described"},
		{"a descriptor that is not UTF-8", "00a301ff40", "a text is not UTF-8"},
		{"descriptors without an end", strings.Repeat("005310", 10000), "values are nested more than 32 deep"},
		{"described zeros", strings.Repeat("00", 10000), "a descriptor is described"},
		{"descriptors, too many", nested("005310", 100), "values are nested more than 32 deep"},
		{"an array of described described", "e00a01" + nested("005310", 3), "an array's elements have two descriptors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, _, err := wire.DecodeValue(unhex(t, tt.bytes))
			if err == nil {
				t.Fatalf("DecodeValue(%.80s) = %v, want an error", tt.bytes, v)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("the error of DecodeValue(%.80s) (-want +got):\n%s", tt.bytes, diff)
			}
		})
	}
}

// nest returns n lists in one another.
func nest(n int) any {
	var v any
	for range n {
		v = wire.List{v}
	}
	return v
}

func TestNestingHasABound(t *testing.T) {
	if _, _, err := wire.DecodeValue(wire.AppendValue(nil, nest(32))); err != nil {
		t.Errorf("32 lists in one another: %v", err)
	}
	for _, n := range []int{33, 1000} {
		_, _, err := wire.DecodeValue(wire.AppendValue(nil, nest(n)))
		if err == nil || !strings.Contains(err.Error(), "deep") {
			t.Errorf("%d lists in one another: the error is %v", n, err)
		}
	}
}

// A megabyte takes no more than tens of them, whatever it says it is.
func TestHostileValuesTakeLittleMemory(t *testing.T) {
	const size = 1 << 20
	for name, b := range map[string][]byte{
		"nulls": wire.AppendValue(nil, make(wire.List, size)),
		"counts that lie, in one another": func() []byte {
			var b []byte
			for range 32 {
				b = append(append([]byte{0xd0, 0, 0x0f, 0xff, 0xff, 0, 0x0f, 0, 0}, b...), make([]byte, 16)...)
			}
			return append(b, make([]byte, size)...)
		}(),
		"an array of described bytes": func() []byte {
			head := []byte{0xf0, 0, 0x0f, 0xff, 0xf8, 0, 0x0f, 0xff, 0xf0, 0x00, 0x53, 0x05, 0x50}
			return append(head, make([]byte, size-16)...)
		}(),
		"small arrays of nulls": func() []byte {
			b := []byte{0xd0, 0, 0x0f, 0xff, 0xff, 0, 0x01, 0, 0}
			return append(b, bytes.Repeat([]byte{0xe0, 2, 0xff, 0x40}, size/4)...)
		}(),
	} {
		allocated := allocatedBy(func() { wire.DecodeValue(b) })
		if allocated > maxExpansion*size {
			t.Errorf("%s: %d bytes are allocated for %d", name, allocated, len(b))
		}
	}
}
