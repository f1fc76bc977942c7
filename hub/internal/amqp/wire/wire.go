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

import "time"

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

// A Described is a value with a descriptor, a Symbol or a uint64, that is none
// of this package's own.
type Described struct{ Descriptor, Value any }

// Get returns the value of a key that is the string or the symbol name, or nil.
func (m Map) Get(name string) any { panic("TODO wire") }

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

func (e *Error) Error() string { panic("TODO wire") }

// A Performative is the body of an AMQP frame: one of *Open, *Begin, *Attach,
// *Flow, *Transfer, *Disposition, *Detach, *End, *Close, and of a SASL frame
// *SASLMechanisms, *SASLInit, *SASLChallenge, *SASLResponse, *SASLOutcome.
type Performative interface{ performative() }

// The performatives have the fields of the specification. A pointer is nil
// where the field is null and that is not the same as its default.
type (
	Open struct {
		ContainerID         string
		Hostname            string
		MaxFrameSize        uint32 // absent is 4294967295
		ChannelMax          uint16 // absent is 65535
		IdleTimeout         time.Duration
		OutgoingLocales     []Symbol
		IncomingLocales     []Symbol
		OfferedCapabilities []Symbol
		DesiredCapabilities []Symbol
		Properties          Fields
	}

	Begin struct {
		RemoteChannel  *uint16
		NextOutgoingID uint32
		IncomingWindow uint32
		OutgoingWindow uint32
		HandleMax      uint32 // absent is 4294967295
		Properties     Fields // capabilities are passed over
	}

	Attach struct {
		Name                 string
		Handle               uint32
		Role                 Role // of who sends the attach
		SndSettleMode        *uint8
		RcvSettleMode        *uint8
		Source               *Source
		Target               *Target
		InitialDeliveryCount *uint32
		MaxMessageSize       *uint64
		OfferedCapabilities  []Symbol
		DesiredCapabilities  []Symbol
		Properties           Fields // the unsettled map is passed over, and incomplete-unsettled
	}

	Flow struct {
		NextIncomingID *uint32
		IncomingWindow uint32
		NextOutgoingID uint32
		OutgoingWindow uint32
		Handle         *uint32
		DeliveryCount  *uint32
		LinkCredit     *uint32
		Available      *uint32
		Drain          bool
		Echo           bool
		Properties     Fields
	}

	Transfer struct {
		Handle        uint32
		DeliveryID    *uint32
		DeliveryTag   []byte
		MessageFormat *uint32
		Settled       *bool
		More          bool
		RcvSettleMode *uint8
		State         State
		Resume        bool
		Aborted       bool
		Batchable     bool
	}

	Disposition struct {
		Role      Role
		First     uint32
		Last      *uint32
		Settled   bool
		State     State
		Batchable bool
	}

	Detach struct {
		Handle uint32
		Closed bool
		Error  *Error
	}

	End   struct{ Error *Error }
	Close struct{ Error *Error }

	SASLMechanisms struct{ Mechanisms []Symbol }
	SASLInit       struct {
		Mechanism       Symbol
		InitialResponse []byte // nil is absent
		Hostname        string
	}
	SASLChallenge struct{ Challenge []byte }
	SASLResponse  struct{ Response []byte }
	SASLOutcome   struct {
		Code           uint8 // 0 ok, 1 auth, 2 sys, 3 sys-perm, 4 sys-temp
		AdditionalData []byte
	}
)

// A Role is which end of a link somebody is. On the wire it is a boolean.
type Role bool

// The roles.
const (
	Sender   Role = false
	Receiver Role = true
)

// Settle modes of attach.
const (
	SndUnsettled, SndSettled, SndMixed uint8 = 0, 1, 2
	RcvFirst, RcvSecond                uint8 = 0, 1
)

// A Source is where the messages of a link come from.
type Source struct {
	Address               any // nil, string, or what else the peer sent
	Durable               uint32
	ExpiryPolicy          Symbol
	Timeout               uint32
	Dynamic               bool
	DynamicNodeProperties Fields
	DistributionMode      Symbol
	Filter                Map
	DefaultOutcome        any
	Outcomes              []Symbol
	Capabilities          []Symbol
}

// A Target is where they go to.
type Target struct {
	Address               any
	Durable               uint32
	ExpiryPolicy          Symbol
	Timeout               uint32
	Dynamic               bool
	DynamicNodeProperties Fields
	Capabilities          []Symbol
}

// A State is what became of a delivery, or has so far: Accepted, Released,
// *Rejected, *Modified, *Received, or *OtherState.
type State interface{ state() }

// The delivery states.
type (
	Accepted struct{}
	Released struct{}
	Rejected struct{ Error *Error }
	Modified struct {
		DeliveryFailed, UndeliverableHere bool
		MessageAnnotations                Map
	}
	Received struct {
		SectionNumber uint32
		SectionOffset uint64
	}
	OtherState struct{ Described }
)

// A Frame is one frame as it came.
type Frame struct {
	SASL    bool
	Channel uint16
	Body    Performative // nil is an empty frame
	Payload []byte       // of a transfer: what is behind the performative; a slice of what was decoded
}

// The protocol headers of 8 bytes.
const (
	HeaderAMQP = "AMQP\x00\x01\x00\x00"
	HeaderTLS  = "AMQP\x02\x01\x00\x00"
	HeaderSASL = "AMQP\x03\x01\x00\x00"
)

// FrameHeader is the size of the header that each frame begins with.
const FrameHeader = 8

// FrameSize reads the size of a frame, including itself, from its first 4 bytes.
func FrameSize(b []byte) uint32 { panic("TODO wire") }

// DecodeFrame reads a whole frame.
func DecodeFrame(b []byte) (Frame, error) { panic("TODO wire") }

// AppendFrame appends a frame with a performative and what is behind it. A nil
// body is an empty frame.
func AppendFrame(b []byte, channel uint16, body Performative, payload []byte) []byte {
	panic("TODO wire")
}

// AppendSASL appends a SASL frame.
func AppendSASL(b []byte, body Performative) []byte { panic("TODO wire") }

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

// DecodeMessage reads a message. Its byte slices are slices of b.
func DecodeMessage(b []byte) (*Message, error) { panic("TODO wire") }

// AppendMessage appends a message. Sections that are empty are left out; one
// without any body is written with an empty data section... of HasValue with the
// value, nil included.
func AppendMessage(b []byte, m *Message) []byte { panic("TODO wire") }

// AppendValue appends a value of the Go types above, and []string, []Symbol and
// []uint32 as arrays. It panics on others: that is the caller's mistake.
func AppendValue(b []byte, v any) []byte { panic("TODO wire") }

// DecodeValue reads one value and returns what is behind it.
func DecodeValue(b []byte) (v any, rest []byte, err error) { panic("TODO wire") }

func (*Open) performative()           {}
func (*Begin) performative()          {}
func (*Attach) performative()         {}
func (*Flow) performative()           {}
func (*Transfer) performative()       {}
func (*Disposition) performative()    {}
func (*Detach) performative()         {}
func (*End) performative()            {}
func (*Close) performative()          {}
func (*SASLMechanisms) performative() {}
func (*SASLInit) performative()       {}
func (*SASLChallenge) performative()  {}
func (*SASLResponse) performative()   {}
func (*SASLOutcome) performative()    {}

func (Accepted) state()    {}
func (Released) state()    {}
func (*Rejected) state()   {}
func (*Modified) state()   {}
func (*Received) state()   {}
func (*OtherState) state() {}
