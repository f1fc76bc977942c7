package query

import (
	"strconv"
	"strings"
)

// String returns the query in its canonical form: keywords in capitals, names as the documents spell them, and no more
// parentheses than needed. Parsing it gives the same query.
func (q *Query) String() string {
	b := append([]byte(nil), "SELECT "...)
	if q.top > 0 {
		b = append(b, "TOP "...)
		b = strconv.AppendInt(b, int64(q.top), 10)
		b = append(b, ' ')
	}
	if q.star {
		b = append(b, '*')
	}
	for i := range q.items {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = q.items[i].print(b)
	}
	b = append(append(b, " FROM "...), q.from.String()...)
	if q.where != nil {
		b = q.where.print(append(b, " WHERE "...))
	}
	if q.group != nil {
		b = q.group.print(append(b, " GROUP BY "...))
	}
	return string(b)
}

func (it *item) print(b []byte) []byte {
	if it.aggregate == noAggregate {
		b = it.path.print(b)
	} else {
		b = append(append(b, it.aggregate.String()...), '(')
		if it.aggregate != count {
			b = it.path.print(b)
		}
		b = append(b, ')')
	}
	if it.alias != "" {
		b = printName(append(b, " AS "...), it.alias)
	}
	return b
}

// printName appends a name, in [[ ]] if it needs them.
func printName(b []byte, name string) []byte {
	plain := !reserved[strings.ToUpper(name)] && !strings.EqualFold(name, "undefined") && !isDigit(name[0])
	for i := 0; i < len(name) && plain; i++ {
		plain = isLetter(name[i]) || isDigit(name[i])
	}
	if plain {
		return append(b, name...)
	}
	return append(append(append(b, "[["...), name...), "]]"...)
}

func (p *path) level() int      { return levelPrimary }
func (p *path) each(func(expr)) {}
func (p *path) print(b []byte) []byte {
	for i, key := range p.keys() {
		if i > 0 {
			b = append(b, '.')
		}
		b = printName(b, key)
	}
	for _, s := range p.steps {
		if s.key != "" {
			b = printName(append(b, '.'), s.key)
			continue
		}
		b = append(b, '[')
		b = strconv.AppendInt(b, int64(s.index), 10)
		b = append(b, ']')
	}
	return b
}

func (l literal) level() int      { return levelPrimary }
func (l literal) each(func(expr)) {}
func (l literal) print(b []byte) []byte {
	switch l.kind {
	case undefined:
		return append(b, "undefined"...)
	case text:
		return printString(b, l.raw)
	}
	return l.appendTo(b)
}

// printString appends a string literal, of which the language knows fewer escapes than JSON.
func printString(b, s []byte) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '\'')
	for _, c := range s {
		switch {
		case c == '\'' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '\'')
}

// printPart appends a part of an expression, in parentheses if it binds less tightly than level.
func printPart(b []byte, e expr, level int) []byte {
	if e.level() >= level {
		return e.print(b)
	}
	return append(e.print(append(b, '(')), ')')
}

func printPair(b []byte, l expr, leftLevel int, op string, r expr, rightLevel int) []byte {
	b = printPart(b, l, leftLevel)
	b = append(append(append(b, ' '), op...), ' ')
	return printPart(b, r, rightLevel)
}

func (e *logic) level() int {
	if e.or {
		return levelOr
	}
	return levelAnd
}
func (e *logic) each(f func(expr)) { f(e.l); f(e.r) }
func (e *logic) print(b []byte) []byte {
	op := "AND"
	if e.or {
		op = "OR"
	}
	return printPair(b, e.l, e.level(), op, e.r, e.level()+1)
}

func (e *not) level() int        { return levelNot }
func (e *not) each(f func(expr)) { f(e.x) }
func (e *not) print(b []byte) []byte {
	return printPart(append(b, "NOT "...), e.x, levelNot)
}

func (e *comparison) level() int        { return levelCompare }
func (e *comparison) each(f func(expr)) { f(e.l); f(e.r) }
func (e *comparison) print(b []byte) []byte {
	return printPair(b, e.l, levelSum, e.op, e.r, levelSum)
}

func (e *in) level() int        { return levelCompare }
func (e *in) each(f func(expr)) { f(e.x); f(e.list) }
func (e *in) print(b []byte) []byte {
	op := "IN"
	if e.not {
		op = "NIN"
	}
	return printPair(b, e.x, levelSum, op, e.list, levelPrimary)
}

func (e *list) level() int { return levelPrimary }
func (e *list) each(f func(expr)) {
	for _, el := range e.elements {
		f(el)
	}
}
func (e *list) print(b []byte) []byte {
	b = append(b, '[')
	for i, el := range e.elements {
		if i > 0 {
			b = append(b, ", "...)
		}
		next := len(b)
		b = printPart(b, el, levelSum)
		if i == 0 && b[next] == '[' { // a list in a list, or a name, must not join into "[["
			b = append(b, 0)
			copy(b[next+1:], b[next:])
			b[next] = ' '
		}
	}
	return append(b, ']')
}

func (e *arithmetic) level() int {
	if e.op == '+' || e.op == '-' {
		return levelSum
	}
	return levelProduct
}
func (e *arithmetic) each(f func(expr)) { f(e.l); f(e.r) }
func (e *arithmetic) print(b []byte) []byte {
	return printPair(b, e.l, e.level(), string(e.op), e.r, e.level()+1)
}

func (e *negative) level() int        { return levelNegate }
func (e *negative) each(f func(expr)) { f(e.x) }
func (e *negative) print(b []byte) []byte {
	return printPart(append(b, '-'), e.x, levelPrimary)
}

func (e *call) level() int { return levelPrimary }
func (e *call) each(f func(expr)) {
	for _, a := range e.args {
		f(a)
	}
}
func (e *call) print(b []byte) []byte {
	b = append(append(b, e.name...), '(')
	for i, a := range e.args {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = printPart(b, a, levelSum)
	}
	return append(b, ')')
}
