package amqp

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// selectorFilter names the filter that says where a reader begins. Its value is
// described by that name or by selectorCode.
const (
	selectorFilter = "apache.org:selector-filter:string"
	selectorCode   = uint64(0x468C00000004)
)

// A selector is what the filter of a reader says, such as
// "amqp.annotation.x-opt-offset > '17'".
type selector struct {
	by        string // one of the annotations below
	inclusive bool   // ">=" for ">"
	latest    bool   // '@latest' instead of a number
	number    int64
}

// What a reader may select by. The first spelling of a time is that of the SDKs,
// the second an older one.
const (
	byOffset    = "x-opt-offset"
	bySequence  = "x-opt-sequence-number"
	byTime      = "x-opt-enqueued-time"
	byTimeOlder = "x-opt-enqueuedtimeutc"
)

const selectorPrefix = "amqp.annotation."

// parseSelector reads a selector. Quotes are optional.
func parseSelector(text string) (selector, error) {
	bad := func(why string) (selector, error) {
		return selector{}, fmt.Errorf("the selector %q %s; it must be such as %s", words.Clip(text), why, selector{by: byOffset, latest: true})
	}
	name, value, ok := strings.Cut(text, ">")
	if !ok {
		return bad("has no > or >=")
	}
	var s selector
	if s.by, ok = strings.CutPrefix(strings.TrimSpace(name), selectorPrefix); !ok {
		return bad("names no " + selectorPrefix)
	}
	switch s.by {
	case byOffset, bySequence, byTime:
	case byTimeOlder:
		s.by = byTime
	default:
		return bad("names what nothing is selected by")
	}
	value, s.inclusive = strings.CutPrefix(value, "=")
	value = strings.TrimSpace(value)
	if quoted, ok := strings.CutPrefix(value, "'"); ok {
		if value, ok = strings.CutSuffix(quoted, "'"); !ok {
			return bad("has one quote")
		}
	}
	if value == "@latest" && s.by == byOffset {
		s.latest = true
		return s, nil
	}
	var err error
	if s.number, err = strconv.ParseInt(value, 10, 64); err != nil {
		return bad("has no number")
	}
	return s, nil
}

// String prints s as the SDKs do.
func (s selector) String() string {
	op, value := ">", strconv.FormatInt(s.number, 10)
	if s.inclusive {
		op = ">="
	}
	if s.latest {
		value = "@latest"
	}
	return fmt.Sprintf("%s%s %s '%s'", selectorPrefix, s.by, op, value)
}

// query returns where s begins. Before the first event, which is 0 by any
// number, is the first.
func (s selector) query() hub.EventQuery {
	if s.latest {
		return hub.EventQuery{Latest: true}
	}
	n := s.number
	if !s.inclusive && n < math.MaxInt64 {
		n++
	}
	switch s.by {
	case bySequence:
		return hub.EventQuery{Sequence: max(n, 0)}
	case byTime:
		return hub.EventQuery{Since: time.UnixMilli(n)}
	}
	return hub.EventQuery{Offset: max(n, 0)}
}

// startOf returns where a reader with the source begins, and leaves in its
// filter what is heeded, as the protocol has a filter answered. Without a
// selector it begins with the oldest event.
func startOf(source *wire.Source) (hub.EventQuery, error) {
	value := source.Filter.Get(selectorFilter)
	source.Filter = nil
	if value == nil {
		return hub.EventQuery{}, nil
	}
	source.Filter = wire.Map{{Key: wire.Symbol(selectorFilter), Value: value}}
	if described, ok := value.(wire.Described); ok {
		if d := described.Descriptor; d != wire.Symbol(selectorFilter) && d != selectorCode {
			return hub.EventQuery{}, fmt.Errorf("the filter %s is described by something else", selectorFilter)
		}
		value = described.Value
	}
	text, ok := value.(string)
	if !ok {
		return hub.EventQuery{}, fmt.Errorf("the filter %s is no text", selectorFilter)
	}
	s, err := parseSelector(text)
	return s.query(), err
}
