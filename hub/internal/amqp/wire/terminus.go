package wire

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

func appendSource(b []byte, s *Source) []byte {
	if s == nil {
		return append(b, codeNull)
	}
	b, at := openDescribed(b, descSource)
	b = AppendValue(b, s.Address)
	b = appendUint(b, s.Durable)
	b = appendOptional(b, s.ExpiryPolicy)
	b = appendUint(b, s.Timeout)
	b = appendBool(b, s.Dynamic)
	b = appendFields(b, s.DynamicNodeProperties)
	b = appendOptional(b, s.DistributionMode)
	b = appendFields(b, s.Filter)
	b = AppendValue(b, s.DefaultOutcome)
	b = appendSymbols(b, s.Outcomes)
	b = appendSymbols(b, s.Capabilities)
	return closeCompound(b, at, 11)
}

func appendTarget(b []byte, t *Target) []byte {
	if t == nil {
		return append(b, codeNull)
	}
	b, at := openDescribed(b, descTarget)
	b = AppendValue(b, t.Address)
	b = appendUint(b, t.Durable)
	b = appendOptional(b, t.ExpiryPolicy)
	b = appendUint(b, t.Timeout)
	b = appendBool(b, t.Dynamic)
	b = appendFields(b, t.DynamicNodeProperties)
	b = appendSymbols(b, t.Capabilities)
	return closeCompound(b, at, 7)
}

// source reads a source. Whatever else stands in its place is its address.
func (f *fields) source() *Source {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	s := new(Source)
	in, ok := f.composite(code, body, descSource)
	if !ok {
		s.Address = f.value(code, body)
		return s
	}
	s.Address = in.any()
	s.Durable = in.uint()
	s.ExpiryPolicy = Symbol(in.text())
	s.Timeout = in.uint()
	s.Dynamic = in.bool()
	s.DynamicNodeProperties = in.mapping()
	s.DistributionMode = Symbol(in.text())
	s.Filter = in.mapping()
	s.DefaultOutcome = in.any()
	s.Outcomes = in.symbols()
	s.Capabilities = in.symbols()
	f.close(in, "source")
	return s
}

// target reads a target. Whatever else stands in its place, such as the
// coordinator of transactions, is its address.
func (f *fields) target() *Target {
	code, body, ok := f.next()
	if !ok {
		return nil
	}
	t := new(Target)
	in, ok := f.composite(code, body, descTarget)
	if !ok {
		t.Address = f.value(code, body)
		return t
	}
	t.Address = in.any()
	t.Durable = in.uint()
	t.ExpiryPolicy = Symbol(in.text())
	t.Timeout = in.uint()
	t.Dynamic = in.bool()
	t.DynamicNodeProperties = in.mapping()
	t.Capabilities = in.symbols()
	f.close(in, "target")
	return t
}
