package wire

import (
	"errors"
	"fmt"
	"math"
	"time"
)

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

// appendPerformative appends a performative. It is a switch and no method of the
// interface, so that what a caller passes stays on its stack.
func appendPerformative(b []byte, body Performative) []byte {
	switch p := body.(type) {
	case *Open:
		b, at := openDescribed(b, descOpen)
		b = appendString(b, p.ContainerID)
		b = appendOptionalString(b, p.Hostname)
		b = appendUint(b, p.MaxFrameSize)
		b = appendUshort(b, p.ChannelMax)
		b = appendIdleTimeout(b, p.IdleTimeout)
		b = appendSymbols(b, p.OutgoingLocales)
		b = appendSymbols(b, p.IncomingLocales)
		b = appendSymbols(b, p.OfferedCapabilities)
		b = appendSymbols(b, p.DesiredCapabilities)
		b = appendFields(b, p.Properties)
		return closeCompound(b, at, 10)
	case *Begin:
		b, at := openDescribed(b, descBegin)
		if p.RemoteChannel == nil {
			b = append(b, codeNull)
		} else {
			b = appendUshort(b, *p.RemoteChannel)
		}
		b = appendUint(b, p.NextOutgoingID)
		b = appendUint(b, p.IncomingWindow)
		b = appendUint(b, p.OutgoingWindow)
		b = appendUint(b, p.HandleMax)
		b = append(b, codeNull, codeNull)
		b = appendFields(b, p.Properties)
		return closeCompound(b, at, 8)
	case *Attach:
		b, at := openDescribed(b, descAttach)
		b = appendString(b, p.Name)
		b = appendUint(b, p.Handle)
		b = appendBool(b, bool(p.Role))
		b = appendUbytePointer(b, p.SndSettleMode)
		b = appendUbytePointer(b, p.RcvSettleMode)
		b = appendSource(b, p.Source)
		b = appendTarget(b, p.Target)
		b = append(b, codeNull, codeNull)
		b = appendUintPointer(b, p.InitialDeliveryCount)
		b = appendUlongPointer(b, p.MaxMessageSize)
		b = appendSymbols(b, p.OfferedCapabilities)
		b = appendSymbols(b, p.DesiredCapabilities)
		b = appendFields(b, p.Properties)
		return closeCompound(b, at, 14)
	case *Flow:
		b, at := openDescribed(b, descFlow)
		b = appendUintPointer(b, p.NextIncomingID)
		b = appendUint(b, p.IncomingWindow)
		b = appendUint(b, p.NextOutgoingID)
		b = appendUint(b, p.OutgoingWindow)
		b = appendUintPointer(b, p.Handle)
		b = appendUintPointer(b, p.DeliveryCount)
		b = appendUintPointer(b, p.LinkCredit)
		b = appendUintPointer(b, p.Available)
		b = appendBool(b, p.Drain)
		b = appendBool(b, p.Echo)
		b = appendFields(b, p.Properties)
		return closeCompound(b, at, 11)
	case *Transfer:
		b, at := openDescribed(b, descTransfer)
		b = appendUint(b, p.Handle)
		b = appendUintPointer(b, p.DeliveryID)
		b = appendOptionalBinary(b, p.DeliveryTag)
		b = appendUintPointer(b, p.MessageFormat)
		if p.Settled == nil {
			b = append(b, codeNull)
		} else {
			b = appendBool(b, *p.Settled)
		}
		b = appendBool(b, p.More)
		b = appendUbytePointer(b, p.RcvSettleMode)
		b = appendState(b, p.State)
		b = appendBool(b, p.Resume)
		b = appendBool(b, p.Aborted)
		b = appendBool(b, p.Batchable)
		return closeCompound(b, at, 11)
	case *Disposition:
		b, at := openDescribed(b, descDisposition)
		b = appendBool(b, bool(p.Role))
		b = appendUint(b, p.First)
		b = appendUintPointer(b, p.Last)
		b = appendBool(b, p.Settled)
		b = appendState(b, p.State)
		b = appendBool(b, p.Batchable)
		return closeCompound(b, at, 6)
	case *Detach:
		b, at := openDescribed(b, descDetach)
		b = appendUint(b, p.Handle)
		b = appendBool(b, p.Closed)
		b = appendError(b, p.Error)
		return closeCompound(b, at, 3)
	case *End:
		b, at := openDescribed(b, descEnd)
		return closeCompound(appendError(b, p.Error), at, 1)
	case *Close:
		b, at := openDescribed(b, descClose)
		return closeCompound(appendError(b, p.Error), at, 1)
	case *SASLMechanisms:
		b, at := openDescribed(b, descSASLMechanisms)
		return closeCompound(appendTexts(b, codeSymbol8, p.Mechanisms), at, 1)
	case *SASLInit:
		b, at := openDescribed(b, descSASLInit)
		b = appendSymbol(b, p.Mechanism)
		b = appendOptionalBinary(b, p.InitialResponse)
		b = appendOptionalString(b, p.Hostname)
		return closeCompound(b, at, 3)
	case *SASLChallenge:
		b, at := openDescribed(b, descSASLChallenge)
		return closeCompound(appendBinary(b, p.Challenge), at, 1)
	case *SASLResponse:
		b, at := openDescribed(b, descSASLResponse)
		return closeCompound(appendBinary(b, p.Response), at, 1)
	case *SASLOutcome:
		b, at := openDescribed(b, descSASLOutcome)
		b = append(b, codeUbyte, p.Code)
		b = appendOptionalBinary(b, p.AdditionalData)
		return closeCompound(b, at, 2)
	}
	panic("wire: a performative of no kind")
}

func appendIdleTimeout(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(b, codeNull)
	}
	return appendUint(b, uint32(min(d.Milliseconds(), math.MaxUint32)))
}

// decodePerformative reads the performative that a frame's body begins with.
func decodePerformative(b []byte) (body Performative, rest []byte, err error) {
	if len(b) == 0 || b[0] != codeDescribed {
		return nil, nil, errors.New("a frame does not begin with a performative")
	}
	desc, symbol, rest, err := descriptor(b[1:])
	if err != nil {
		return nil, nil, err
	}
	if symbol != nil {
		return nil, nil, fmt.Errorf("there is no performative %.40q", symbol)
	}
	code, list, rest, err := split(rest)
	if err != nil {
		return nil, nil, fmt.Errorf("performative 0x%02x: %w", desc, err)
	}
	d := newDecoder(true)
	f, err := d.fields(code, list, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("performative 0x%02x: %w", desc, err)
	}
	body, name := f.performative(desc)
	if body == nil {
		return nil, nil, fmt.Errorf("there is no performative 0x%02x", desc)
	}
	if err := f.end(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return body, rest, nil
}

func (f *fields) performative(desc uint64) (body Performative, name string) {
	switch desc {
	case descOpen:
		return f.open(), "open"
	case descBegin:
		return f.begin(), "begin"
	case descAttach:
		return f.attach(), "attach"
	case descFlow:
		return f.flow(), "flow"
	case descTransfer:
		return f.transfer(), "transfer"
	case descDisposition:
		return f.disposition(), "disposition"
	case descDetach:
		return &Detach{Handle: f.must().uint(), Closed: f.bool(), Error: f.error()}, "detach"
	case descEnd:
		return &End{f.error()}, "end"
	case descClose:
		return &Close{f.error()}, "close"
	case descSASLMechanisms:
		return &SASLMechanisms{f.must().symbols()}, "sasl-mechanisms"
	case descSASLInit:
		return &SASLInit{
			Mechanism:       Symbol(f.must().text()),
			InitialResponse: f.bytes(),
			Hostname:        f.text(),
		}, "sasl-init"
	case descSASLChallenge:
		return &SASLChallenge{f.must().bytes()}, "sasl-challenge"
	case descSASLResponse:
		return &SASLResponse{f.must().bytes()}, "sasl-response"
	case descSASLOutcome:
		return &SASLOutcome{Code: f.must().ubyte(), AdditionalData: f.bytes()}, "sasl-outcome"
	}
	return nil, ""
}

func (f *fields) open() *Open {
	p := &Open{MaxFrameSize: math.MaxUint32, ChannelMax: math.MaxUint16}
	p.ContainerID = f.text()
	p.Hostname = f.text()
	if n, ok := f.number(math.MaxUint32, "a uint"); ok {
		p.MaxFrameSize = uint32(n)
	}
	if n, ok := f.number(math.MaxUint16, "a ushort"); ok {
		p.ChannelMax = uint16(n)
	}
	p.IdleTimeout = time.Duration(f.uint()) * time.Millisecond
	p.OutgoingLocales = f.symbols()
	p.IncomingLocales = f.symbols()
	p.OfferedCapabilities = f.symbols()
	p.DesiredCapabilities = f.symbols()
	p.Properties = f.mapping()
	return p
}

func (f *fields) begin() *Begin {
	p := &Begin{HandleMax: math.MaxUint32}
	p.RemoteChannel = f.ushortPointer()
	p.NextOutgoingID = f.must().uint()
	p.IncomingWindow = f.must().uint()
	p.OutgoingWindow = f.must().uint()
	if n, ok := f.number(math.MaxUint32, "a uint"); ok {
		p.HandleMax = uint32(n)
	}
	f.skip()
	f.skip()
	p.Properties = f.mapping()
	return p
}

func (f *fields) attach() *Attach {
	p := new(Attach)
	p.Name = f.must().text()
	p.Handle = f.must().uint()
	p.Role = Role(f.must().bool())
	p.SndSettleMode = f.ubytePointer()
	p.RcvSettleMode = f.ubytePointer()
	p.Source = f.source()
	p.Target = f.target()
	f.skip()
	f.skip()
	p.InitialDeliveryCount = f.uintPointer()
	p.MaxMessageSize = f.ulongPointer()
	p.OfferedCapabilities = f.symbols()
	p.DesiredCapabilities = f.symbols()
	p.Properties = f.mapping()
	return p
}

func (f *fields) flow() *Flow {
	// One allocation with room for what the pointers point to.
	p := new(struct {
		Flow
		nextIncomingID, handle, deliveryCount, linkCredit, available uint32
	})
	p.NextIncomingID = f.uintAt(&p.nextIncomingID)
	p.IncomingWindow = f.must().uint()
	p.NextOutgoingID = f.must().uint()
	p.OutgoingWindow = f.must().uint()
	p.Handle = f.uintAt(&p.handle)
	p.DeliveryCount = f.uintAt(&p.deliveryCount)
	p.LinkCredit = f.uintAt(&p.linkCredit)
	p.Available = f.uintAt(&p.available)
	p.Drain = f.bool()
	p.Echo = f.bool()
	p.Properties = f.mapping()
	return &p.Flow
}

func (f *fields) transfer() *Transfer {
	p := new(struct {
		Transfer
		deliveryID, messageFormat uint32
		settled                   bool
		tag                       [32]byte // the longest that the specification allows
	})
	p.Handle = f.must().uint()
	p.DeliveryID = f.uintAt(&p.deliveryID)
	if code, body, ok := f.next(); ok {
		if code != codeBinary8 && code != codeBinary32 {
			f.mismatch(code, "a binary")
		}
		p.DeliveryTag = append(p.tag[:0], body...)
	}
	p.MessageFormat = f.uintAt(&p.messageFormat)
	if v, ok := f.optionalBool(); ok {
		p.settled = v
		p.Settled = &p.settled
	}
	p.More = f.bool()
	p.RcvSettleMode = f.ubytePointer()
	p.State = f.state()
	p.Resume = f.bool()
	p.Aborted = f.bool()
	p.Batchable = f.bool()
	return &p.Transfer
}

func (f *fields) disposition() *Disposition {
	p := new(struct {
		Disposition
		last uint32
	})
	p.Role = Role(f.must().bool())
	p.First = f.must().uint()
	p.Last = f.uintAt(&p.last)
	p.Settled = f.bool()
	p.State = f.state()
	p.Batchable = f.bool()
	return &p.Disposition
}
