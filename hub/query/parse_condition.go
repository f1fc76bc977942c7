package query

import "strings"

// constants are the words that stand for values.
var constants = map[string]Value{"TRUE": isTrue, "FALSE": isFalse, "NULL": {kind: null}, "UNDEFINED": {}}

// condition = and { "OR" and }.
func (p *parser) condition() (expr, error) {
	l, err := p.and()
	for err == nil && p.accept("OR") {
		var r expr
		r, err = p.and()
		l = &logic{true, l, r}
	}
	return l, err
}

// and = not { "AND" not }.
func (p *parser) and() (expr, error) {
	l, err := p.not()
	for err == nil && p.accept("AND") {
		var r expr
		r, err = p.not()
		l = &logic{false, l, r}
	}
	return l, err
}

// not = { "NOT" } comparison.
func (p *parser) not() (expr, error) {
	if !p.accept("NOT") {
		return p.comparison()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	x, err := p.not()
	return &not{x}, err
}

// comparison = sum [ operator sum | ( "IN" | "NIN" ) list ].
func (p *parser) comparison() (expr, error) {
	l, err := p.sum()
	if err != nil {
		return nil, err
	}
	for _, op := range []string{"=", "!=", "<>", "<", ">", "<=", ">="} {
		if p.accept(op) {
			r, err := p.sum()
			if op == "<>" {
				op = "!="
			}
			return &comparison{op, l, r}, err
		}
	}
	nin := p.at("NIN")
	if nin || p.at("IN") {
		p.next++
		if !p.at("[") {
			return nil, p.unexpected("'[' and the values")
		}
		list, err := p.array()
		return &in{l, nin, list}, err
	}
	return l, nil
}

// sum = product { ( "+" | "-" ) product }.
func (p *parser) sum() (expr, error) { return p.arithmetic("+-", p.product) }

// product = unary { ( "*" | "/" | "%" ) unary }.
func (p *parser) product() (expr, error) { return p.arithmetic("*/%", p.unary) }

func (p *parser) arithmetic(operators string, operand func() (expr, error)) (expr, error) {
	l, err := operand()
	for err == nil {
		t := p.peek()
		if t.kind != tokenSymbol || len(t.text) != 1 || strings.IndexByte(operators, t.text[0]) < 0 {
			break
		}
		p.next++
		var r expr
		r, err = operand()
		l = &arithmetic{t.text[0], l, r}
	}
	return l, err
}

// unary = [ "-" ] primary.
func (p *parser) unary() (expr, error) {
	if !p.accept("-") {
		return p.primary()
	}
	x, err := p.primary()
	return &negative{x}, err
}

// primary = literal | array | function | path | "(" condition ")".
func (p *parser) primary() (expr, error) {
	t := p.peek()
	switch t.kind {
	case tokenNumber:
		p.next++
		return literal{Number(t.number)}, nil
	case tokenString:
		p.next++
		return literal{String(t.text)}, nil
	case tokenSymbol:
		switch t.text {
		case "[":
			return p.array()
		case "(":
			return p.parentheses()
		}
	case tokenWord:
		if p.isCall() {
			return p.call()
		}
		if v, ok := constants[strings.ToUpper(t.text)]; ok {
			p.next++
			return literal{v}, nil
		}
		return p.path("a value")
	case tokenName:
		return p.path("a value")
	}
	return nil, p.unexpected("a value")
}

func (p *parser) parentheses() (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	p.next++
	x, err := p.condition()
	if err != nil {
		return nil, err
	}
	if !p.accept(")") {
		return nil, p.unexpected("an operator or ')'")
	}
	return x, nil
}

// array = "[" [ sum { "," sum } ] "]".
func (p *parser) array() (*list, error) {
	p.next++
	elements, err := p.sums("]")
	return newList(elements), err
}

// call = name "(" [ sum { "," sum } ] ")".
func (p *parser) call() (expr, error) {
	name := p.peek()
	f, err := p.function(name)
	if err != nil {
		return nil, err
	}
	p.next += 2
	args, err := p.sums(")")
	if err != nil {
		return nil, err
	}
	if len(args) != f.args {
		return nil, p.fail(name, ParseError, "the number of arguments of %s is %d, not %d", f.name, f.args, len(args))
	}
	return &call{f, args}, nil
}

// sums reads values up to a closing bracket.
func (p *parser) sums(closing string) ([]expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if p.accept(closing) {
		return nil, nil
	}
	var list []expr
	for {
		x, err := p.sum()
		if err != nil {
			return nil, err
		}
		list = append(list, x)
		if p.accept(closing) {
			return list, nil
		}
		if !p.accept(",") {
			return nil, p.unexpected("',' or " + quote(closing))
		}
	}
}

// function returns the function that a token names.
func (p *parser) function(name token) (*function, error) {
	word := strings.ToUpper(name.text)
	if f := functions[word]; f != nil {
		return f, nil
	}
	switch {
	case aggregates[word] != noAggregate:
		return nil, p.fail(name, UnsupportedClause, "%s belongs behind SELECT", word)
	case reserved[word]:
		return nil, p.unexpected("a value")
	case word == "STARTS_WITH" || word == "ENDS_WITH":
		return nil, p.fail(name, UnsupportedFunction, "%s is a function of message routes, here it is %s", word, strings.Replace(word, "_", "", 1))
	}
	return nil, p.fail(name, UnsupportedFunction, "there is no function %s", quote(name.text))
}
