// Package wire is the encoding of AMQP 1.0: types, performatives, frames,
// delivery states and message sections, as "OASIS Advanced Message Queuing
// Protocol Version 1.0" writes them. It does no I/O and knows nothing of
// connections.
//
// What is read may be hostile: it is bounded before it is allocated, an error
// says what is wrong, and nothing panics. What is written is padded as real
// clients need it: every performative is a list with all its fields, trailing
// nulls included, behind a descriptor of one byte.
package wire

// Values of AMQP's types are these in Go:
//
//	null      nil             timestamp  time.Time (UTC, of milliseconds)
//	boolean   bool            uuid       UUID
//	ubyte     uint8           binary     []byte
//	ushort    uint16          string     string
//	uint      uint32          symbol     Symbol
//	ulong     uint64          list       List
//	byte      int8            map        Map
//	short     int16           array      Array
//	int       int32           float      float32
//	long      int64           double     float64
//	char      Char            described  Described
//
// decimal32, 64 and 128 are read as Decimal and written back as they were.
type (
	Symbol  string
	UUID    [16]byte
	Char    rune
	Decimal []byte
	List    []any
	Map     []Entry // in the order of the wire; a key may come twice
	Array   []any   // elements of one type
)

// An Entry is one key and its value in a Map.
type Entry struct{ Key, Value any }

// A Described is a value with a descriptor, a Symbol or a uint64.
type Described struct{ Descriptor, Value any }

// Get returns the value of a key that is the string or the symbol name, or nil.
func (m Map) Get(name string) any {
	for i := range m {
		switch key := m[i].Key.(type) {
		case Symbol:
			if string(key) == name {
				return m[i].Value
			}
		case string:
			if key == name {
				return m[i].Value
			}
		}
	}
	return nil
}

// Fields are a map whose keys are symbols, as in attach properties and error
// infos. Keys that are strings are read as well.
type Fields = Map

// An Error is AMQP's error: a condition with a description. It is an error in
// Go too.
type Error struct {
	Condition   Symbol
	Description string
	Info        Fields
}

func (e *Error) Error() string {
	if e.Description == "" {
		return string(e.Condition)
	}
	return string(e.Condition) + ": " + e.Description
}
