package wire

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

func (Accepted) state()    {}
func (Released) state()    {}
func (*Rejected) state()   {}
func (*Modified) state()   {}
func (*Received) state()   {}
func (*OtherState) state() {}

func appendState(b []byte, s State) []byte {
	switch s := s.(type) {
	case nil:
		return append(b, codeNull)
	case Accepted:
		return append(b, codeDescribed, codeSmallUlong, descAccepted, codeList0)
	case Released:
		return append(b, codeDescribed, codeSmallUlong, descReleased, codeList0)
	case *Rejected:
		b, at := openDescribed(b, descRejected)
		return closeCompound(appendError(b, s.Error), at, 1)
	case *Modified:
		b, at := openDescribed(b, descModified)
		b = appendBool(b, s.DeliveryFailed)
		b = appendBool(b, s.UndeliverableHere)
		b = appendFields(b, s.MessageAnnotations)
		return closeCompound(b, at, 3)
	case *Received:
		b, at := openDescribed(b, descReceived)
		b = appendUint(b, s.SectionNumber)
		b = appendUlong(b, s.SectionOffset)
		return closeCompound(b, at, 2)
	case *OtherState:
		b = AppendValue(append(b, codeDescribed), s.Descriptor)
		return AppendValue(b, s.Value)
	}
	panic("wire: a delivery state of no kind")
}

// state reads a delivery state.
func (f *fields) state() State {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	if code != codeDescribed {
		f.mismatch(code, "a delivery state")
		return nil
	}
	if _, ok := f.composite(code, body, descAccepted); ok {
		return Accepted{}
	}
	if _, ok := f.composite(code, body, descReleased); ok {
		return Released{}
	}
	if in, ok := f.composite(code, body, descRejected); ok {
		s := &Rejected{Error: in.error()}
		f.close(in, "rejected")
		return s
	}
	if in, ok := f.composite(code, body, descModified); ok {
		s := &Modified{
			DeliveryFailed:     in.bool(),
			UndeliverableHere:  in.bool(),
			MessageAnnotations: in.mapping(),
		}
		f.close(in, "modified")
		return s
	}
	if in, ok := f.composite(code, body, descReceived); ok {
		s := &Received{SectionNumber: in.uint(), SectionOffset: in.ulong()}
		f.close(in, "received")
		return s
	}
	other, _ := f.value(code, body).(Described)
	return &OtherState{other}
}

func appendError(b []byte, e *Error) []byte {
	if e == nil {
		return append(b, codeNull)
	}
	b, at := openDescribed(b, descError)
	b = appendSymbol(b, e.Condition)
	b = appendOptionalString(b, e.Description)
	b = appendFields(b, e.Info)
	return closeCompound(b, at, 3)
}

// error reads an error.
func (f *fields) error() *Error {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	in, ok := f.composite(code, body, descError)
	if !ok {
		f.mismatch(code, "an error")
		return nil
	}
	e := &Error{
		Condition:   Symbol(in.text()),
		Description: in.text(),
		Info:        in.mapping(),
	}
	f.close(in, "error")
	return e
}
