package query

import (
	"strconv"
	"strings"
)

// reserved are the words that are names only in [[ ]], in capitals.
var reserved = map[string]bool{
	"ALL": true, "AND": true, "AS": true, "ASC": true, "AVG": true, "BY": true, "COUNT": true, "DESC": true,
	"DEVICES": true, "FALSE": true, "FROM": true, "GROUP": true, "IN": true, "MAX": true, "MIN": true, "NIN": true,
	"NOT": true, "NULL": true, "OR": true, "ORDER": true, "SELECT": true, "SUM": true, "TOP": true, "TRUE": true,
	"WHERE": true, "IS_ARRAY": true, "IS_BOOL": true, "IS_DEFINED": true, "IS_NULL": true, "IS_NUMBER": true,
	"IS_OBJECT": true, "IS_PRIMITIVE": true, "IS_STRING": true,
}

// otherSQL are words of SQL that people try.
var otherSQL = map[string]bool{
	"ASC": true, "BETWEEN": true, "CASE": true, "DESC": true, "DISTINCT": true, "HAVING": true, "JOIN": true,
	"LIKE": true, "LIMIT": true, "OFFSET": true, "ORDER": true, "UNION": true,
}

// maxDepth bounds how deep parentheses, brackets, NOT and minus may be nested.
const maxDepth = 250

// A parser reads the tokens of a query by recursive descent: a method for each rule of the grammar.
type parser struct {
	text   string
	tokens []token
	next   int
	from   Collection
	items  []token // where the items of the list begin
	depth  int
}

func (p *parser) peek() token { return p.tokens[p.next] }

// at reports whether the next token is this symbol or keyword; "" is the end.
func (p *parser) at(text string) bool {
	t := p.peek()
	return t.is(text) || text == "" && t.kind == tokenEnd
}

// accept moves behind the next token if it is this symbol or keyword.
func (p *parser) accept(text string) bool {
	if !p.at(text) {
		return false
	}
	p.next++
	return true
}

func (p *parser) expect(text string) error {
	if !p.accept(text) {
		return p.unexpected(quote(text))
	}
	return nil
}

// isCall reports whether the next two tokens begin a function call.
func (p *parser) isCall() bool {
	return p.peek().kind == tokenWord && p.tokens[p.next+1].is("(")
}

func (p *parser) fail(at token, class Class, format string, args ...any) error {
	return errorAt(p.text, at.pos, class, format, args...)
}

// unexpected returns the error for the next token.
func (p *parser) unexpected(expected string) error {
	t := p.peek()
	if word := strings.ToUpper(t.text); t.kind == tokenWord && otherSQL[word] {
		return p.fail(t, ParseError, "unexpected %v, the language has no %s", t, word)
	}
	return p.fail(t, ParseError, "unexpected %v, expected %s", t, expected)
}

// enter goes one level deeper, until leave.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(p.peek(), ParseError, "the query is nested too deeply")
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// query = "SELECT" [ "TOP" integer ] list "FROM" collection [ "WHERE" condition ] [ "GROUP" "BY" path ].
func (p *parser) query() (*Query, error) {
	q := &Query{}
	if err := p.expect("SELECT"); err != nil {
		return nil, err
	}
	var err error
	if p.accept("TOP") {
		if q.top, err = p.top(); err != nil {
			return nil, err
		}
	}
	// Which names a path may have depends on the collection: come back for the list when that is known.
	list := p.next
	if err := p.collection(list); err != nil {
		return nil, err
	}
	q.from = p.from
	behind := p.next
	p.next = list
	if err := p.list(q); err != nil {
		return nil, err
	}
	if !p.at("FROM") {
		return nil, p.unexpected("',' or 'FROM'")
	}
	p.next = behind
	if p.accept("WHERE") {
		if q.where, err = p.condition(); err != nil {
			return nil, err
		}
	}
	group := p.peek()
	if p.accept("GROUP") {
		if err := p.expect("BY"); err != nil {
			return nil, err
		}
		by, err := p.path("a property")
		if err != nil {
			return nil, err
		}
		q.group = by
	}
	if !p.at("") {
		return nil, p.unexpectedEnd(q)
	}
	return q, p.check(q, p.tokens[list], group)
}

// unexpectedEnd returns the error for a token behind the last clause.
func (p *parser) unexpectedEnd(q *Query) error {
	t := p.peek()
	switch {
	case q.group != nil && t.is(","):
		return p.fail(t, UnsupportedClause, "GROUP BY takes one property")
	case q.group != nil:
		return p.unexpected("the end of the query")
	case q.where != nil:
		return p.unexpected("an operator, 'GROUP BY' or the end of the query")
	}
	return p.unexpected("'WHERE', 'GROUP BY' or the end of the query")
}

func (p *parser) top() (int, error) {
	t := p.peek()
	n, err := strconv.ParseUint(t.text, 10, 31)
	if t.kind != tokenNumber || err != nil || n == 0 {
		return 0, p.fail(t, ParseError, "TOP must be followed by a positive integer")
	}
	p.next++
	return int(n), nil
}

// collection finds FROM behind the list that begins at a token, and reads the collection.
func (p *parser) collection(list int) error {
	for p.next = list; !p.at("FROM"); p.next++ {
		if p.at("") {
			// What is wrong with the list is worth more than the lack of FROM.
			p.next = list
			if err := p.list(&Query{}); err != nil {
				return err
			}
			return p.unexpected("',' or 'FROM'")
		}
	}
	p.next++
	name := p.peek()
	if name.kind != tokenWord {
		return p.unexpected("a collection")
	}
	p.next++
	text := name.text
	for p.at(".") && p.tokens[p.next+1].kind == tokenWord {
		text += "." + p.tokens[p.next+1].text
		p.next += 2
	}
	for _, c := range []Collection{Devices, Modules, Jobs} {
		if strings.EqualFold(text, c.String()) {
			p.from = c
			return nil
		}
	}
	return p.fail(name, UnknownCollection, "there is no collection %s, expected devices, devices.modules or devices.jobs", quote(text))
}

// list = "*" | item { "," item }.
func (p *parser) list(q *Query) error {
	if p.accept("*") {
		q.star = true
		if p.at(",") {
			return p.fail(p.peek(), UnsupportedClause, "'*' selects everything and goes with nothing else")
		}
		return nil
	}
	keys := map[string]int{}
	for {
		if p.at("*") && len(q.items) > 0 {
			return p.fail(p.peek(), UnsupportedClause, "'*' selects everything and goes with nothing else")
		}
		p.items = append(p.items, p.peek())
		it, err := p.item()
		if err != nil {
			return err
		}
		if it.key == "" {
			it.key = "$" + strconv.Itoa(len(q.items)+1)
		}
		if before, ok := keys[it.key]; ok {
			q.items[before].hidden = true
		}
		keys[it.key] = len(q.items)
		q.items = append(q.items, it)
		if !p.accept(",") {
			return nil
		}
	}
}

// item = ( path | aggregate ) [ "AS" alias ].
func (p *parser) item() (it item, err error) {
	if p.isCall() {
		it.aggregate, it.path, err = p.aggregate()
	} else if it.path, err = p.path("a property"); err == nil {
		it.key = it.path.last()
	}
	if err != nil || !p.accept("AS") {
		return it, err
	}
	it.alias, err = p.name("an alias")
	it.key = it.alias
	return it, err
}

// aggregate = "COUNT" "(" ")" | ( "AVG" | "SUM" | "MIN" | "MAX" ) "(" path ")".
func (p *parser) aggregate() (a aggregate, of *path, err error) {
	name := p.peek()
	a = aggregates[strings.ToUpper(name.text)]
	if a == noAggregate {
		if _, err := p.function(name); err != nil {
			return a, of, err
		}
		return a, of, p.fail(name, UnsupportedClause, "SELECT takes properties and aggregates, %s is neither", quote(name.text))
	}
	p.next += 2
	if a == count {
		if !p.at(")") {
			return a, nil, p.fail(p.peek(), ParseError, "COUNT takes nothing in its parentheses")
		}
	} else {
		if of, err = p.path("a property"); err != nil {
			return a, of, err
		}
	}
	return a, of, p.expect(")")
}

// check refuses clauses that do not go together.
func (p *parser) check(q *Query, list, group token) error {
	switch {
	case q.from == Jobs && !q.star:
		return p.fail(list, UnsupportedClause, "devices.jobs is selected from with '*' only")
	case q.from == Jobs && q.group != nil:
		return p.fail(group, UnsupportedClause, "devices.jobs has no GROUP BY")
	case q.star && q.group != nil:
		return p.fail(group, UnsupportedClause, "GROUP BY does not go with 'SELECT *'")
	case !q.Aggregates():
		return nil
	}
	for i := range q.items {
		it := &q.items[i]
		if it.aggregate != noAggregate || q.group != nil && q.group.equal(it.path) {
			continue
		}
		return p.fail(p.items[i], UnsupportedClause, "this property must be aggregated, or be what GROUP BY names")
	}
	return nil
}

// path = segment { "." segment }, where a segment is a name and perhaps indexes. The first name may be the collection's.
func (p *parser) path(expected string) (*path, error) {
	begin := p.peek()
	if p.at("devices") {
		p.next++
		kind := map[Collection]string{Modules: "modules", Jobs: "jobs"}[p.from]
		if p.at(".") && kind != "" && p.tokens[p.next+1].is(kind) {
			p.next += 2
		}
		if !p.accept(".") {
			return nil, p.fail(begin, ParseError, "a collection is not a property")
		}
	}
	var steps []step
	for {
		name, err := p.name(expected)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step{key: name})
		for p.accept("[") {
			t := p.peek()
			index, err := strconv.ParseUint(t.text, 10, 31)
			if t.kind != tokenNumber || err != nil {
				return nil, p.unexpected("the index of an element")
			}
			p.next++
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			steps = append(steps, step{index: int(index)})
		}
		if !p.accept(".") {
			return newPath(p.from, steps), nil
		}
	}
}

// name reads a name, in [[ ]] or not.
func (p *parser) name(expected string) (string, error) {
	t := p.peek()
	switch {
	case t.kind == tokenWord && reserved[strings.ToUpper(t.text)]:
		if otherSQL[strings.ToUpper(t.text)] {
			return "", p.unexpected(expected)
		}
		return "", p.fail(t, ParseError, "unexpected %v, expected %s (a reserved word is a name only in [[ ]])", t, expected)
	case t.kind == tokenWord || t.kind == tokenName:
		p.next++
		return t.text, nil
	}
	return "", p.unexpected(expected)
}
