// Package query is the query language of IoT Hub: it parses queries and evaluates them on the documents of devices,
// modules and jobs. It follows "IoT Hub query language for device and module twins, jobs, and message routing".
//
//	q, err := query.Parse("SELECT deviceId FROM devices WHERE tags.building = 43")
//	...
//	if q.Match(doc) {
//		row, err = q.Project(row, doc)
//	}
//
// A document is whatever implements [Doc]: a query asks for the fields it needs and no others, so that a hub can answer
// from the parts it stores. [Text] is a document in one piece. Evaluating works on the JSON text and builds nothing.
//
// The package does no input or output. A [Query] is immutable and may be used concurrently.
package query

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLength is the number of characters that a query may have; see "IoT Hub quotas and throttling".
const MaxLength = 8192

// MaxRow is how many bytes a row of a result may have, about: a whole twin is well below it, but a query can name a part of
// one more than a hundred times.
const MaxRow = 4 << 20

// ErrRowTooLarge is returned for a row that would have more than MaxRow bytes.
var ErrRowTooLarge = errors.New("a row of the result would have more than 4 MiB, which takes more than whole twins: select fewer properties")

// A Collection is what a query selects from.
type Collection int

// The collections.
const (
	Devices Collection = iota // device twins
	Modules                   // module twins
	Jobs                      // what each device did for each job
)

// String returns the name of the collection in FROM.
func (c Collection) String() string {
	return [...]string{"devices", "devices.modules", "devices.jobs"}[c]
}

// A Query is a parsed query.
type Query struct {
	from  Collection
	top   int // 0: all
	star  bool
	items []item
	where expr // nil: every row
	group *path
}

// An item is a column of the result.
type item struct {
	aggregate aggregate
	path      *path  // nil for COUNT
	alias     string // empty: none
	key       string // the member of the result that holds the value
	hidden    bool   // a later item has the same key
}

// Parse parses a query. All errors are of type *[Error].
func Parse(text string) (*Query, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{Class: ArgumentNull, Message: "the query is empty"}
	}
	p, err := newParser(text)
	if err != nil {
		return nil, err
	}
	return p.query()
}

// ParseCondition parses the queryCondition of a job, or the targetCondition of a configuration for devices: what stands
// behind WHERE in a query on devices, or "*" for all devices. It returns the query
// "SELECT * FROM devices WHERE condition". All errors are of type *[Error]; their places are those of the condition.
func ParseCondition(text string) (*Query, error) {
	switch strings.TrimSpace(text) {
	case "":
		return nil, &Error{Class: ArgumentNull, Message: "the condition is empty"}
	case "*":
		return &Query{from: Devices, star: true}, nil
	}
	p, err := newParser(text)
	if err != nil {
		return nil, err
	}
	where, err := p.condition()
	if err != nil {
		return nil, err
	}
	if !p.at("") {
		return nil, p.unexpected("an operator or the end of the condition")
	}
	return &Query{from: Devices, star: true, where: where}, nil
}

func newParser(text string) (*parser, error) {
	if n := utf8.RuneCountInString(text); n > MaxLength {
		return nil, &Error{Class: QueryTooLong, Message: fmt.Sprintf("the query has %d characters, the most are %d", n, MaxLength)}
	}
	if !utf8.ValidString(text) {
		return nil, &Error{Class: ParseError, Message: "the query is not UTF-8"}
	}
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	return &parser{text: text, tokens: tokens}, nil
}

// From returns the collection.
func (q *Query) From() Collection { return q.from }

// Top returns the number of rows that TOP limits the result to, or 0.
func (q *Query) Top() int { return q.top }

// ItemType returns the kind of the result's rows, as the header x-ms-item-type has it: Twin, DeviceJob or Raw.
func (q *Query) ItemType() string {
	switch {
	case !q.star:
		return "Raw"
	case q.from == Jobs:
		return "DeviceJob"
	}
	return "Twin"
}

// Columns returns the members of the result's rows in their order, or nil for "SELECT *".
func (q *Query) Columns() []string {
	var columns []string
	for _, it := range q.items {
		if !it.hidden {
			columns = append(columns, it.key)
		}
	}
	return columns
}

// Aggregates reports whether the result's rows are made by [Groups] and not by [Query.Project].
func (q *Query) Aggregates() bool {
	if q.group != nil {
		return true
	}
	for i := range q.items {
		if q.items[i].aggregate != noAggregate {
			return true
		}
	}
	return false
}

// ConditionFields returns the fields that Match looks at.
func (q *Query) ConditionFields() FieldSet {
	if q.where == nil {
		return 0
	}
	return fieldsOf(q.where)
}

// ResultFields returns the fields that Project looks at, or [Groups.Add].
func (q *Query) ResultFields() (s FieldSet) {
	if q.star {
		s |= 1 << Document
	}
	for i := range q.items {
		if it := &q.items[i]; it.aggregate != count {
			s |= fieldsOf(it.path)
		}
	}
	if q.group != nil {
		s |= fieldsOf(q.group)
	}
	return s
}

// Match reports whether the condition of the query is true for a row: not merely not false.
func (q *Query) Match(d Doc) bool { return q.where == nil || q.where.eval(d).IsTrue() }

// Project appends the result's row for a row that matches. Members whose value is undefined are left out. It must not be
// called if the query aggregates. The only error is [ErrRowTooLarge].
func (q *Query) Project(dst []byte, d Doc) ([]byte, error) {
	if q.star {
		return d.Field(Document).appendTo(dst), nil
	}
	return q.appendRow(dst, func(i int) Value { return q.items[i].path.eval(d) })
}

// appendRow appends a row of the values that the items have.
func (q *Query) appendRow(dst []byte, value func(i int) Value) ([]byte, error) {
	begin := len(dst)
	dst = append(dst, '{')
	for i := range q.items {
		if q.items[i].hidden {
			continue
		}
		if dst = appendMember(dst, q.items[i].key, value(i)); len(dst)-begin > MaxRow {
			return dst, ErrRowTooLarge
		}
	}
	return append(dst, '}'), nil
}

// appendMember appends a member to an object that is being printed, unless its value is undefined.
func appendMember(dst []byte, key string, v Value) []byte {
	if v.kind == undefined {
		return dst
	}
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(appendString(dst, key), ':')
	return v.appendTo(dst)
}
