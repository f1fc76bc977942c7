package query

import (
	"slices"
	"strings"
)

// A Range is a range of strings: from From, included, to To, excluded. An empty To is no end.
type Range struct{ From, To string }

// Exact returns the only string of the range, if there is only one.
func (r Range) Exact() (s string, ok bool) { return r.From, r.To == r.From+"\x00" }

// Contains reports whether the range has s.
func (r Range) Contains(s string) bool { return s >= r.From && (r.To == "" || s < r.To) }

// Ranges returns ranges of which one has the value of a field in every row that matches. They are in order and do not
// overlap. A query that says nothing of the field has one range without bounds, and one that matches nothing has none.
//
// It understands comparisons of the field with strings, IN and STARTSWITH, combined by AND and OR.
func (q *Query) Ranges(f Field) []Range {
	b := bounds{about: func(p *path) bool { return p.field == f && len(p.steps) == 0 }}
	return slices.Clone(b.of(q.where))
}

// UpdatedFrom returns a time before which a twin whose desired and reported properties were both written last does not
// match, or "" if the query does not say. It is compared as a string with "$lastUpdated", and may be only the beginning
// of a time.
func (q *Query) UpdatedFrom() string {
	// No part of a section is newer than the section. Of the later of two sections a lower bound alone can be said.
	b := bounds{lower: true, about: func(p *path) bool {
		return (p.field == DesiredMetadata || p.field == ReportedMetadata) && p.last() == "$lastUpdated"
	}}
	if ranges := b.of(q.where); len(ranges) > 0 {
		return ranges[0].From
	}
	return ""
}

// bounds finds where a value is in the rows for which a condition is true.
type bounds struct {
	about func(*path) bool // whether a path leads to the value
	lower bool             // ignore upper bounds
}

var everything = []Range{{}}

func (b bounds) of(e expr) []Range {
	switch e := e.(type) {
	case *logic:
		l, r := b.of(e.l), b.of(e.r)
		if e.or {
			return union(append(slices.Clone(l), r...))
		}
		return intersection(l, r)
	case *comparison:
		if s, ok := stringOf(e.r); ok && b.is(e.l) {
			return b.compared(e.op, s)
		}
		if s, ok := stringOf(e.l); ok && b.is(e.r) {
			return b.compared(mirrored[e.op], s)
		}
	case *in:
		if !b.is(e.x) || e.not {
			return everything
		}
		var list []Range
		for _, el := range e.list.elements {
			s, ok := stringOf(el)
			if !ok {
				return everything
			}
			list = append(list, b.compared("=", s)...)
		}
		return union(list)
	case *call:
		if s, ok := stringOf(e.args[len(e.args)-1]); ok && e.name == "STARTSWITH" && b.is(e.args[0]) {
			return b.ranges(s, prefixEnd(s))
		}
	}
	return everything
}

func (b bounds) is(e expr) bool {
	p, ok := e.(*path)
	return ok && b.about(p)
}

func (b bounds) ranges(from, to string) []Range {
	if b.lower {
		to = ""
	}
	return []Range{{from, to}}
}

// compared returns the strings x for which "x op s" holds. The string next to s is s with a zero byte behind it.
func (b bounds) compared(op, s string) []Range {
	switch op {
	case "=":
		return b.ranges(s, s+"\x00")
	case "<":
		if s == "" {
			return nil
		}
		return b.ranges("", s)
	case "<=":
		return b.ranges("", s+"\x00")
	case ">":
		return b.ranges(s+"\x00", "")
	case ">=":
		return b.ranges(s, "")
	}
	return everything
}

func stringOf(e expr) (string, bool) {
	l, ok := e.(literal)
	return string(l.raw), ok && l.kind == text
}

var mirrored = map[string]string{"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}

// prefixEnd returns the first string behind all that begin with prefix, or "" if there is none. No byte of UTF-8 is the
// last one there is.
func prefixEnd(prefix string) string {
	if prefix == "" {
		return ""
	}
	last := len(prefix) - 1
	return prefix[:last] + string([]byte{prefix[last] + 1})
}

// union returns the strings that are in one of the ranges.
func union(list []Range) []Range {
	slices.SortFunc(list, func(a, b Range) int { return strings.Compare(a.From, b.From) })
	merged := list[:0]
	for _, r := range list {
		if n := len(merged); n > 0 && (merged[n-1].To == "" || r.From <= merged[n-1].To) {
			if merged[n-1].To != "" && (r.To == "" || r.To > merged[n-1].To) {
				merged[n-1].To = r.To
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// intersection returns the strings that are in a range of both lists, each of which is in order.
func intersection(a, b []Range) []Range {
	var both []Range
	for i, j := 0, 0; i < len(a) && j < len(b); {
		r := Range{max(a[i].From, b[j].From), a[i].To}
		if r.To == "" || b[j].To != "" && b[j].To < r.To {
			r.To = b[j].To
			j++
		} else {
			i++
		}
		if r.To == "" || r.From < r.To {
			both = append(both, r)
		}
	}
	return both
}
