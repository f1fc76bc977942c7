package query

import (
	"bytes"
	"math"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// An expr is a part of a condition.
type expr interface {
	// eval returns the value for a row. Logic has three values: true, false and undefined.
	eval(Doc) Value

	// print appends the text of the expression.
	print(dst []byte) []byte

	// level is how tightly the expression binds.
	level() int

	// each calls f with the direct parts.
	each(f func(expr))
}

// Levels of binding, loosest first.
const (
	levelOr = iota
	levelAnd
	levelNot
	levelCompare
	levelSum
	levelProduct
	levelNegate
	levelPrimary
)

// A literal is a constant.
type literal struct{ Value }

func (l literal) eval(Doc) Value { return l.Value }

// A logic is "l AND r" or "l OR r".
type logic struct {
	or   bool
	l, r expr
}

// eval gives false AND x, and true OR x, whatever x is. What is not a boolean counts as undefined.
func (e *logic) eval(d Doc) Value {
	l := e.l.eval(d)
	if l.kind == boolean && l.IsTrue() == e.or {
		return l
	}
	r := e.r.eval(d)
	if r.kind == boolean && (r.IsTrue() == e.or || l.kind == boolean) {
		return r
	}
	return Value{}
}

// A not is "NOT x".
type not struct{ x expr }

func (e *not) eval(d Doc) Value {
	v := e.x.eval(d)
	if v.kind != boolean {
		return Value{}
	}
	return Bool(!v.IsTrue())
}

// A comparison is "l op r".
type comparison struct {
	op   string // =, !=, <, >, <= or >=
	l, r expr
}

func (e *comparison) eval(d Doc) Value {
	return compare(e.op, e.l.eval(d), e.r.eval(d))
}

func compare(op string, l, r Value) Value {
	switch op {
	case "=":
		if eq, ok := equal(l, r); ok {
			return Bool(eq)
		}
		return Value{}
	case "!=":
		if eq, ok := equal(l, r); ok {
			return Bool(!eq)
		}
		return Value{}
	}
	o, ok := order(l, r)
	if !ok {
		return Value{}
	}
	switch op {
	case "<":
		return Bool(o < 0)
	case ">":
		return Bool(o > 0)
	case "<=":
		return Bool(o <= 0)
	}
	return Bool(o >= 0)
}

// An in is "x IN list" or "x NIN list".
type in struct {
	x    expr
	not  bool
	list *list
}

func (e *in) eval(d Doc) Value {
	x := e.x.eval(d)
	if !x.primitive() {
		return Value{}
	}
	return Bool(e.list.contains(d, x) != e.not)
}

// A list is "[a, b]". As a value it is an array that nothing can be asked about but its elements.
type list struct {
	elements  []expr
	constants *set   // the constants among many elements
	others    []expr // the elements that are not in constants
}

// hashFrom is from how many elements on a list is searched by hash.
const hashFrom = 8

func newList(elements []expr) *list {
	l := &list{elements: elements, others: elements}
	if len(elements) < hashFrom {
		return l
	}
	l.constants, l.others = newSet(), nil
	for _, el := range elements {
		if c, ok := el.(literal); ok {
			l.constants.add(c.Value)
		} else {
			l.others = append(l.others, el)
		}
	}
	return l
}

func (e *list) eval(Doc) Value { return Value{kind: array, raw: []byte("[]")} }

func (e *list) contains(d Doc, x Value) bool {
	if e.constants != nil && e.constants.has(x) {
		return true
	}
	for _, el := range e.others {
		if eq, _ := equal(el.eval(d), x); eq {
			return true
		}
	}
	return false
}

// An arithmetic is "l op r" on numbers.
type arithmetic struct {
	op   byte // + - * / %
	l, r expr
}

// eval is undefined unless both sides are numbers and the result is one: not for a division by zero.
func (e *arithmetic) eval(d Doc) Value {
	l, r := e.l.eval(d), e.r.eval(d)
	if l.kind != number || r.kind != number {
		return Value{}
	}
	x, y := l.float(), r.float()
	switch e.op {
	case '+':
		x += y
	case '-':
		x -= y
	case '*':
		x *= y
	case '/':
		x /= y
	case '%':
		x = math.Mod(x, y)
	}
	if !finite(x) {
		return Value{}
	}
	return Number(x)
}

// A negative is "-x".
type negative struct{ x expr }

func (e *negative) eval(d Doc) Value {
	v := e.x.eval(d)
	if v.kind != number {
		return Value{}
	}
	return Number(-v.float())
}

// A call is a function with its arguments.
type call struct {
	*function
	args []expr
}

func (e *call) eval(d Doc) Value { return e.function.eval(d, e.args) }

// A function is one that twins and jobs can be asked with.
type function struct {
	name string
	args int
	eval func(d Doc, args []expr) Value
}

// functions are the functions by name. "Query language for device and module twins" names IS_DEFINED alone; the others
// are what the service's tools and samples rely on, and the type checks of message routes.
var functions = map[string]*function{
	"IS_DEFINED":     {"IS_DEFINED", 1, is(func(v Value) bool { return v.kind != undefined })},
	"IS_NULL":        {"IS_NULL", 1, is(func(v Value) bool { return v.kind == null })},
	"IS_BOOL":        {"IS_BOOL", 1, is(func(v Value) bool { return v.kind == boolean })},
	"IS_NUMBER":      {"IS_NUMBER", 1, is(func(v Value) bool { return v.kind == number })},
	"IS_STRING":      {"IS_STRING", 1, is(func(v Value) bool { return v.kind == text })},
	"IS_OBJECT":      {"IS_OBJECT", 1, is(func(v Value) bool { return v.kind == object })},
	"IS_ARRAY":       {"IS_ARRAY", 1, is(func(v Value) bool { return v.kind == array })},
	"IS_PRIMITIVE":   {"IS_PRIMITIVE", 1, is(Value.primitive)},
	"STARTSWITH":     {"STARTSWITH", 2, ofStrings(bytes.HasPrefix)},
	"ENDSWITH":       {"ENDSWITH", 2, ofStrings(bytes.HasSuffix)},
	"ARRAY_CONTAINS": {"ARRAY_CONTAINS", 2, arrayContains},
}

func is(test func(Value) bool) func(Doc, []expr) Value {
	return func(d Doc, args []expr) Value { return Bool(test(args[0].eval(d))) }
}

func ofStrings(test func(a, b []byte) bool) func(Doc, []expr) Value {
	return func(d Doc, args []expr) Value {
		a, b := args[0].eval(d), args[1].eval(d)
		if a.kind != text || b.kind != text {
			return Value{}
		}
		return Bool(test(a.chars(), b.chars()))
	}
}

func arrayContains(d Doc, args []expr) Value {
	x := args[1].eval(d)
	if !x.primitive() {
		return Value{}
	}
	if l, ok := args[0].(*list); ok {
		return Bool(l.contains(d, x))
	}
	a := args[0].eval(d)
	if a.kind != array {
		return Value{}
	}
	for c := jsontext.Walk(a.raw); c.Element(); {
		if eq, _ := equal(valueAt(c.Value()), x); eq {
			return isTrue
		}
	}
	return isFalse
}

// fieldsOf returns the fields that an expression reads.
func fieldsOf(e expr) (s FieldSet) {
	if p, ok := e.(*path); ok {
		return 1 << p.field &^ (1 << Unknown)
	}
	e.each(func(part expr) { s |= fieldsOf(part) })
	return s
}
