package amqp

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

func TestStartOf(t *testing.T) {
	selector := func(text string) wire.Map {
		return wire.Map{{Key: wire.Symbol(selectorFilter), Value: wire.Described{Descriptor: selectorCode, Value: text}}}
	}
	for _, tt := range []struct {
		name   string
		filter wire.Map
		want   hub.EventQuery
		fails  string
	}{
		{"no filter", nil, hub.EventQuery{}, ""},
		{"another filter", wire.Map{{Key: wire.Symbol("x"), Value: "y"}}, hub.EventQuery{}, ""},
		{"described by the name", wire.Map{{Key: wire.Symbol(selectorFilter),
			Value: wire.Described{Descriptor: wire.Symbol(selectorFilter), Value: "amqp.annotation.x-opt-offset > '17'"}}}, hub.EventQuery{Offset: 18}, ""},
		{"not described", wire.Map{{Key: selectorFilter, Value: "amqp.annotation.x-opt-offset > '17'"}}, hub.EventQuery{Offset: 18}, ""},
		{"the oldest", selector("amqp.annotation.x-opt-offset > '-1'"), hub.EventQuery{}, ""},
		{"the oldest, inclusive", selector("amqp.annotation.x-opt-offset >= '-1'"), hub.EventQuery{}, ""},
		{"the latest", selector("amqp.annotation.x-opt-offset > '@latest'"), hub.EventQuery{Latest: true}, ""},
		{"the latest, inclusive", selector("amqp.annotation.x-opt-offset >= '@latest'"), hub.EventQuery{Latest: true}, ""},
		{"at an offset", selector("amqp.annotation.x-opt-offset >= '17'"), hub.EventQuery{Offset: 17}, ""},
		{"behind a number", selector("amqp.annotation.x-opt-sequence-number > '17'"), hub.EventQuery{Sequence: 18}, ""},
		{"at a number", selector("amqp.annotation.x-opt-sequence-number >= '17'"), hub.EventQuery{Sequence: 17}, ""},
		{"the first number", selector("amqp.annotation.x-opt-sequence-number > '-1'"), hub.EventQuery{}, ""},
		{"without quotes and blanks", selector("amqp.annotation.x-opt-sequence-number>17"), hub.EventQuery{Sequence: 18}, ""},
		{"the highest number", selector("amqp.annotation.x-opt-sequence-number > '9223372036854775807'"), hub.EventQuery{Sequence: math.MaxInt64}, ""},
		{"behind a time", selector("amqp.annotation.x-opt-enqueued-time > '1700000000123'"), hub.EventQuery{Since: time.UnixMilli(1700000000124)}, ""},
		{"at a time, spelt as of old", selector("amqp.annotation.x-opt-enqueuedtimeutc >= '1700000000123'"), hub.EventQuery{Since: time.UnixMilli(1700000000123)}, ""},
		{"no operator", selector("amqp.annotation.x-opt-offset = '17'"), hub.EventQuery{}, "has no > or >="},
		{"no annotation", selector("x-opt-offset > '17'"), hub.EventQuery{}, "names no amqp.annotation."},
		{"an unknown annotation", selector("amqp.annotation.x-opt-colour > '17'"), hub.EventQuery{}, "names what nothing is selected by"},
		{"one quote", selector("amqp.annotation.x-opt-offset > '17"), hub.EventQuery{}, "has one quote"},
		{"no number", selector("amqp.annotation.x-opt-offset > 'x'"), hub.EventQuery{}, "has no number"},
		{"the latest number", selector("amqp.annotation.x-opt-sequence-number > '@latest'"), hub.EventQuery{}, "has no number"},
		{"nothing", selector(""), hub.EventQuery{}, "has no > or >="},
		{"a number", wire.Map{{Key: wire.Symbol(selectorFilter), Value: int64(17)}}, hub.EventQuery{}, "is no text"},
		{"described by something else", wire.Map{{Key: wire.Symbol(selectorFilter),
			Value: wire.Described{Descriptor: uint64(1), Value: "amqp.annotation.x-opt-offset > '17'"}}}, hub.EventQuery{}, "is described by something else"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := &wire.Source{Filter: append(tt.filter, wire.Entry{Key: wire.Symbol("not-known"), Value: true})}
			got, err := startOf(source)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("error %v, want one that %s", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("query (-want +got):\n%s", diff)
			}
			var echo wire.Map
			if tt.filter.Get(selectorFilter) != nil {
				echo = wire.Map{{Key: wire.Symbol(selectorFilter), Value: tt.filter.Get(selectorFilter)}}
			}
			if diff := cmp.Diff(echo, source.Filter); diff != "" {
				t.Errorf("filter that is answered (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzSelector states the law that what a selector is read as prints as a
// selector that is read as the same, and begins at no negative place.
func FuzzSelector(f *testing.F) {
	f.Add("amqp.annotation.x-opt-offset > '@latest'")
	f.Add("amqp.annotation.x-opt-sequence-number >= 17")
	f.Add("amqp.annotation.x-opt-enqueuedtimeutc > '-9223372036854775808'")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSelector(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if again, err := parseSelector(s.String()); err != nil || again != s {
			t.Errorf("%q is read as %+v, and %q as %+v, %v", text, s, s, again, err)
		}
		if q := s.query(); q.Offset < 0 || q.Sequence < 0 {
			t.Errorf("%q begins at %+v", text, q)
		}
	})
}
