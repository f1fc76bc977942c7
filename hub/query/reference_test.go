package query_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"
)

// The second evaluator: slow and obvious. It makes random queries as text, each with a function that evaluates it on
// maps, and shares neither parser nor evaluator with the package.

// undef is the value of what is not there.
type undef struct{}

// A refExpr is an expression as text and as a function of a document.
type refExpr struct {
	text string
	eval func(doc any) any
}

// A generator makes random documents and queries.
type generator struct{ *rand.Rand }

func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

var keys = []string{"a", "b", "A", "group", "we ird", "a.b", "zoë", "$version", "arr", "a-b", "x-1", "a--b-"}

// scalar returns a value that occurs in documents and in queries.
func (g generator) scalar() any {
	return pick[any](g, "a", "b", "B", "", "ab", `q"\'`, "zoë", "😀", "Connected", 0.0, 1.0, -5.0, 42.0, 1.5, 1e21, true, false, nil)
}

func (g generator) value(depth int) any {
	switch n := g.IntN(10); {
	case depth > 0 && n < 4:
		return g.object(depth - 1)
	case depth > 0 && n < 6:
		list := []any{}
		for range g.IntN(4) {
			list = append(list, g.value(depth-1))
		}
		return list
	}
	return g.scalar()
}

func (g generator) object(depth int) map[string]any {
	m := map[string]any{}
	for range g.IntN(5) {
		m[pick(g, keys...)] = g.value(depth)
	}
	return m
}

// twin returns a document with some of the members of a twin.
func (g generator) twin() map[string]any {
	section := func() map[string]any {
		s := g.object(2)
		s["$version"] = float64(g.IntN(5))
		s["$metadata"] = map[string]any{"$lastUpdated": g.time(), "a": map[string]any{"$lastUpdated": g.time()}}
		return s
	}
	twin := map[string]any{
		"deviceId":        pick(g, "a", "b", "dev-1", "dev-2", "dev-10"),
		"connectionState": pick(g, "Connected", "Disconnected"),
		"version":         float64(g.IntN(5)),
		"parentScopes":    []any{"a", "b", 42.0}[:g.IntN(4)],
		"properties":      map[string]any{"desired": section(), "reported": section()},
	}
	if g.IntN(4) > 0 {
		twin["tags"] = g.object(2)
	}
	return twin
}

func (g generator) time() string {
	return fmt.Sprintf("2024-0%d-01T00:00:00Z", 1+g.IntN(9))
}

// print writes JSON as it may be stored: with space, and with characters escaped that need not be.
func (g generator) print(v any) string {
	space := func() string { return pick(g, "", "", "", " ", "\n\t") }
	text := func(s string) string {
		var b strings.Builder
		for _, r := range s {
			plain := jsonText(string(r))
			if r < 0x10000 && g.IntN(8) == 0 {
				plain = fmt.Sprintf(`"\u%04x"`, r)
			}
			b.WriteString(plain[1 : len(plain)-1])
		}
		return `"` + b.String() + `"`
	}
	var b strings.Builder
	b.WriteString(space())
	switch v := v.(type) {
	case map[string]any:
		b.WriteString("{")
		first := true
		for k, member := range v {
			if !first {
				b.WriteString(",")
			}
			first = false
			b.WriteString(space() + text(k) + space() + ":" + g.print(member))
		}
		b.WriteString(space() + "}")
	case []any:
		b.WriteString("[")
		for i, el := range v {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString(g.print(el))
		}
		b.WriteString(space() + "]")
	case string:
		b.WriteString(text(v))
	case float64:
		b.WriteString(pick(g, jsonText(v), fmt.Sprintf("%e", v)))
	default:
		b.WriteString(jsonText(v))
	}
	return b.String() + space()
}

// follow walks a document.
func follow(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			member, ok := m[step]
			if !ok {
				return undef{}
			}
			v = member
		case int:
			list, _ := v.([]any)
			if step >= len(list) {
				return undef{}
			}
			v = list[step]
		}
	}
	return v
}

// path returns a random property, with the last name of it.
func (g generator) path() (e refExpr, last string) {
	steps := pick(g, []any{"deviceId"}, []any{"connectionState"}, []any{"version"}, []any{"parentScopes"}, []any{"nope"},
		[]any{"tags"}, []any{"tags"}, []any{"properties", "reported"}, []any{"properties", "desired"},
		[]any{"properties", "reported", "$version"}, []any{"properties", "reported", "$metadata", "$lastUpdated"},
		[]any{"properties", "desired", "$metadata", "a", "$lastUpdated"})
	if top := steps[0]; top == "tags" || top == "properties" && len(steps) == 2 || g.IntN(20) == 0 {
		steps = append([]any{}, steps...)
		for range g.IntN(4) {
			steps = append(steps, pick[any](g, pick(g, keys...), pick(g, keys...), pick(g, keys...), g.IntN(3)))
		}
	}
	var b strings.Builder
	b.WriteString(pick(g, "", "", "devices.", "DEVICES . "))
	for i, step := range steps {
		switch step := step.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", step)
		case string:
			if i > 0 {
				b.WriteString(pick(g, ".", ".", " . "))
			}
			last = step
			switch {
			case strings.ContainsAny(step, " .ë") || strings.HasSuffix(step, "-") || step == "group" || g.IntN(10) == 0:
				step = "[[" + step + "]]"
			case i == 0:
				step = pick(g, step, strings.ToUpper(step))
			}
			b.WriteString(step)
		}
	}
	if b.String() == "nope" || strings.HasSuffix(b.String(), "NOPE") {
		last = b.String()[len(b.String())-4:]
	}
	return refExpr{b.String(), func(doc any) any { return follow(doc, steps...) }}, last
}

func (g generator) literal() refExpr {
	v := g.scalar()
	if g.IntN(10) == 0 {
		v = g.time()
	}
	if g.IntN(20) == 0 {
		return refExpr{"undefined", func(any) any { return undef{} }}
	}
	var text string
	switch v := v.(type) {
	case string:
		quote := pick(g, "'", `"`)
		for _, r := range v {
			switch {
			case r == '\\' || string(r) == quote:
				text += `\` + string(r)
			case r < 0x10000 && g.IntN(8) == 0:
				text += fmt.Sprintf(`\u%04X`, r)
			default:
				text += string(r)
			}
		}
		text = quote + text + quote
	case float64:
		text = pick(g, fmt.Sprintf("%.1f", v), fmt.Sprintf("%e", v))
		if v == 42 {
			text = pick(g, "42", "0x2a", "0X2A")
		}
	case bool:
		text = pick(g, fmt.Sprint(v), strings.ToUpper(fmt.Sprint(v)))
	default:
		text = pick(g, "null", "NULL")
	}
	return refExpr{text, func(any) any { return v }}
}

// sum returns an expression that needs no parentheses as a part of a comparison.
func (g generator) sum(depth int) refExpr {
	if depth == 0 || g.IntN(3) > 0 {
		if g.IntN(2) == 0 {
			p, _ := g.path()
			return p
		}
		return g.literal()
	}
	switch g.IntN(5) {
	case 0:
		c := g.condition(depth - 1)
		return refExpr{"(" + c.text + ")", c.eval}
	case 1:
		x := g.sum(depth - 1)
		return refExpr{"-(" + x.text + ")", func(doc any) any {
			if f, ok := x.eval(doc).(float64); ok {
				return -f
			}
			return undef{}
		}}
	case 2:
		return g.call(depth - 1)
	}
	return g.arithmetic(depth - 1)
}

// arithmetic makes the form "a + b * c" to see that precedence holds. A minus that joins two names is a hyphen, and two
// that are next to each other are refused.
func (g generator) arithmetic(depth int) refExpr {
	calculate := func(op string, a, b any) any {
		x, ok1 := a.(float64)
		y, ok2 := b.(float64)
		if !ok1 || !ok2 {
			return undef{}
		}
		r := map[string]float64{"+": x + y, "-": x - y, "*": x * y, "/": x / y, "%": math.Mod(x, y)}[op]
		if math.IsInf(r, 0) || math.IsNaN(r) {
			return undef{}
		}
		return r
	}
	factor := func() refExpr {
		if depth > 0 && g.IntN(4) == 0 {
			x := g.arithmetic(depth - 1)
			return refExpr{"(" + x.text + ")", x.eval}
		}
		return pick(g, g.literal(), refExpr{"version", func(doc any) any { return follow(doc, "version") }})
	}
	a, b, c := factor(), factor(), factor()
	op1, op2 := pick(g, "+", "-", "*", "/", "%"), pick(g, "+", "-", "*", "/", "%")
	text := a.text + op1 + b.text + " " + op2 + "\n" + c.text
	if op1 == "-" && (!unicode.IsDigit(rune(a.text[0])) || b.text[0] == '-') {
		text = a.text + " - " + b.text + " " + op2 + "\n" + c.text
	}
	if tight := "*/%"; strings.Contains(tight, op2) && !strings.Contains(tight, op1) {
		return refExpr{text, func(doc any) any { return calculate(op1, a.eval(doc), calculate(op2, b.eval(doc), c.eval(doc))) }}
	}
	return refExpr{text, func(doc any) any { return calculate(op2, calculate(op1, a.eval(doc), b.eval(doc)), c.eval(doc)) }}
}

func isPrimitive(v any) bool {
	switch v.(type) {
	case undef, map[string]any, []any:
		return false
	}
	return true
}

func (g generator) call(depth int) refExpr {
	a := g.sum(depth)
	if g.IntN(2) == 0 {
		name := pick(g, "IS_DEFINED", "IS_NULL", "IS_BOOL", "IS_NUMBER", "IS_STRING", "IS_OBJECT", "IS_ARRAY", "IS_PRIMITIVE")
		return refExpr{pick(g, name, strings.ToLower(name)) + "(" + a.text + ")", func(doc any) any {
			v := a.eval(doc)
			var ok bool
			switch name {
			case "IS_DEFINED":
				ok = v != any(undef{})
			case "IS_NULL":
				ok = v == nil
			case "IS_BOOL":
				_, ok = v.(bool)
			case "IS_NUMBER":
				_, ok = v.(float64)
			case "IS_STRING":
				_, ok = v.(string)
			case "IS_OBJECT":
				_, ok = v.(map[string]any)
			case "IS_ARRAY":
				_, ok = v.([]any)
			case "IS_PRIMITIVE":
				ok = isPrimitive(v)
			}
			return ok
		}}
	}
	b := g.sum(depth)
	name := pick(g, "StartsWith", "ENDSWITH", "array_contains")
	if name != "array_contains" && g.IntN(2) == 0 {
		a, b = refExpr{"deviceId", func(doc any) any { return follow(doc, "deviceId") }},
			pick(g, refExpr{"'dev-1'", func(any) any { return "dev-1" }}, refExpr{"'a'", func(any) any { return "a" }})
	}
	return refExpr{name + "(" + a.text + " , " + b.text + ")", func(doc any) any {
		x, y := a.eval(doc), b.eval(doc)
		if name == "array_contains" {
			list, ok := x.([]any)
			if !ok || !isPrimitive(y) {
				return undef{}
			}
			return contains(list, y)
		}
		s, ok1 := x.(string)
		t, ok2 := y.(string)
		switch {
		case !ok1 || !ok2:
			return undef{}
		case name == "ENDSWITH":
			return strings.HasSuffix(s, t)
		}
		return strings.HasPrefix(s, t)
	}}
}

func contains(list []any, x any) bool {
	for _, el := range list {
		if isPrimitive(el) && el == x {
			return true
		}
	}
	return false
}

func (g generator) comparison(depth int) refExpr {
	a := g.sum(depth)
	if g.IntN(5) == 0 {
		a = refExpr{"deviceId", func(doc any) any { return follow(doc, "deviceId") }}
	}
	if g.IntN(4) == 0 {
		var texts []string
		var list []refExpr
		for range pick(g, 0, 1, 2, 3, 1, 2, 3, 9) { // more are hashed
			el := g.sum(0)
			list, texts = append(list, el), append(texts, el.text)
		}
		op := pick(g, "IN", "in", "NIN")
		return refExpr{a.text + " " + op + "[ " + strings.Join(texts, ",") + "]", func(doc any) any {
			x := a.eval(doc)
			if !isPrimitive(x) {
				return undef{}
			}
			var values []any
			for _, el := range list {
				values = append(values, el.eval(doc))
			}
			return contains(values, x) != (op == "NIN")
		}}
	}
	op, b := pick(g, "=", "=", "!=", "<>", "<", ">", "<=", ">="), g.sum(depth)
	return refExpr{a.text + pick(g, " ", "") + op + b.text, func(doc any) any {
		x, y := a.eval(doc), b.eval(doc)
		if !isPrimitive(x) || !isPrimitive(y) {
			return undef{}
		}
		switch op {
		case "=":
			return x == y
		case "!=", "<>":
			return x != y
		}
		var less, more bool
		switch x := x.(type) {
		case string:
			y, ok := y.(string)
			if !ok {
				return undef{}
			}
			less, more = x < y, x > y
		case float64:
			y, ok := y.(float64)
			if !ok {
				return undef{}
			}
			less, more = x < y, x > y
		default:
			return undef{}
		}
		return map[string]bool{"<": less, ">": more, "<=": !more, ">=": !less}[op]
	}}
}

// condition makes the form "a OR b AND NOT c" to see that precedence holds.
func (g generator) condition(depth int) refExpr {
	if depth == 0 || g.IntN(3) == 0 {
		if g.IntN(6) == 0 {
			return g.sum(depth)
		}
		return g.comparison(depth)
	}
	part := func() refExpr {
		if g.IntN(3) == 0 {
			c := g.condition(depth - 1)
			return refExpr{"(" + c.text + ")", c.eval}
		}
		return g.comparison(depth - 1)
	}
	a, b, c := part(), part(), part()
	op1, op2 := pick(g, "AND", "or"), pick(g, "and", "OR")
	text := a.text + " " + op1 + " " + b.text + " " + op2 + " NOT " + c.text
	notC := func(doc any) any {
		if v, ok := c.eval(doc).(bool); ok {
			return !v
		}
		return undef{}
	}
	if op1 == "or" && op2 == "and" {
		return refExpr{text, func(doc any) any { return connect(op1, a.eval(doc), connect(op2, b.eval(doc), notC(doc))) }}
	}
	return refExpr{text, func(doc any) any { return connect(op2, connect(op1, a.eval(doc), b.eval(doc)), notC(doc)) }}
}

// connect is the truth table of AND and OR.
func connect(op string, a, b any) any {
	wins := strings.EqualFold(op, "OR")
	if a == wins || b == wins {
		return wins
	}
	if a == !wins && b == !wins {
		return !wins
	}
	return undef{}
}

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 0))} }

func decode(t testing.TB, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}
