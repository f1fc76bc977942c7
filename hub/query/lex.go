package query

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

type tokenKind byte

const (
	tokenEnd    tokenKind = iota
	tokenWord             // a keyword, a function's name, or a name without [[ ]]
	tokenName             // a name in [[ ]]
	tokenNumber           // 42, 4.2e1 or 0x2A
	tokenString           // 'text' or "text"
	tokenSymbol           // an operator or bracket
)

// A token is a piece of a query. The text of names and strings is what they stand for, without quotes and escapes.
type token struct {
	kind   tokenKind
	text   string
	number float64
	pos    int // where it begins
	end    int
}

// is reports whether t is this symbol, or this keyword in any letter case.
func (t token) is(text string) bool {
	switch t.kind {
	case tokenSymbol:
		return t.text == text
	case tokenWord:
		return strings.EqualFold(t.text, text)
	}
	return false
}

// String describes the token in an error. User text that could be long, or could hold anything, is not quoted.
func (t token) String() string {
	switch t.kind {
	case tokenEnd:
		return "end of query"
	case tokenName:
		return "name in [[ ]]"
	case tokenString:
		return "string"
	case tokenNumber:
		return "number"
	}
	return quote(t.text)
}

// quote quotes a word or symbol of a query in an error.
func quote(word string) string {
	const most = 40
	if len(word) > most {
		word = word[:most] + "..."
	}
	return "'" + word + "'"
}

// symbols are the operators and brackets, longer ones first.
var symbols = []string{"!=", "<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",", "."}

type lexer struct {
	text   string
	pos    int
	tokens []token
}

// lex splits a query into tokens, of which the last is a tokenEnd.
func lex(text string) ([]token, error) {
	l := lexer{text: text}
	for {
		if err := l.skipSpace(); err != nil {
			return nil, err
		}
		t := token{pos: l.pos}
		if l.pos == len(text) {
			t.end = l.pos
			return append(l.tokens, t), nil
		}
		if err := l.next(&t); err != nil {
			return nil, err
		}
		t.end = l.pos
		l.tokens = append(l.tokens, t)
	}
}

func (l *lexer) fail(pos int, format string, args ...any) error {
	return errorAt(l.text, pos, ParseError, format, args...)
}

// skipSpace moves behind white space and comments.
func (l *lexer) skipSpace() error {
	for l.pos < len(l.text) {
		switch {
		case strings.IndexByte(" \t\r\n", l.text[l.pos]) >= 0:
			l.pos++
		case strings.HasPrefix(l.text[l.pos:], "/*"):
			n := strings.Index(l.text[l.pos+2:], "*/")
			if n < 0 {
				return l.fail(l.pos, "the comment has no end")
			}
			l.pos += 2 + n + 2
		default:
			return nil
		}
	}
	return nil
}

// next reads the token at l.pos into t.
func (l *lexer) next(t *token) error {
	rest := l.text[l.pos:]
	c := rest[0]
	switch {
	case isLetter(c):
		return l.word(t)
	case isDigit(c):
		return l.number(t)
	case c == '\'' || c == '"':
		return l.str(t)
	case strings.HasPrefix(rest, "[["):
		n := strings.Index(rest[2:], "]]")
		if n < 0 {
			return l.fail(l.pos, "the name in [[ has no ]]")
		}
		if n == 0 {
			return l.fail(l.pos, "a name in [[ ]] must not be empty")
		}
		t.kind, t.text = tokenName, rest[2:2+n]
		l.pos += 2 + n + 2
		return nil
	case strings.HasPrefix(rest, "=="):
		return l.fail(l.pos, "unexpected '==', equality is '='")
	case c == ';':
		return l.fail(l.pos, "unexpected semicolon")
	case strings.HasPrefix(rest, "--"):
		// It could be minus of minus, but is a comment of SQL that would make the condition undefined.
		return l.fail(l.pos, "unexpected '--', a comment is written /* */, and between two minus signs is a blank")
	}
	for _, s := range symbols {
		if strings.HasPrefix(rest, s) {
			t.kind, t.text = tokenSymbol, s
			l.pos += len(s)
			return nil
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return l.fail(l.pos, "unexpected character %U, names with other characters than letters, digits, _, $ and - are written in [[ ]]", r)
}

// word reads a keyword, or a name without [[ ]]. A hyphen that joins it to more of a name is part of it, as the Java SDK's
// tests against the service rely on, which select properties.desired.KeyQuery and a UUID behind that. With blanks around
// it, or behind a number, it is minus (assumed).
func (l *lexer) word(t *token) error {
	t.kind = tokenWord
	for l.pos < len(l.text) && (isLetter(l.text[l.pos]) || isDigit(l.text[l.pos]) || l.text[l.pos] == '-') {
		l.pos++
	}
	t.text = l.text[t.pos:l.pos]
	if strings.HasSuffix(t.text, "-") {
		return l.fail(l.pos-1, "unexpected '-' at the end of a name, which is written in [[ ]] if the hyphen is part of it, and minus with blanks around it")
	}
	return nil
}

// number reads a decimal number, as JSON has it, or a hexadecimal one.
func (l *lexer) number(t *token) error {
	t.kind = tokenNumber
	digits := func(is func(byte) bool) bool {
		start := l.pos
		for l.pos < len(l.text) && is(l.text[l.pos]) {
			l.pos++
		}
		return l.pos > start
	}
	at := func(chars string) bool {
		if l.pos < len(l.text) && strings.IndexByte(chars, l.text[l.pos]) >= 0 {
			l.pos++
			return true
		}
		return false
	}
	good := true
	if l.text[l.pos] == '0' && l.pos+1 < len(l.text) && l.text[l.pos+1]|0x20 == 'x' {
		l.pos += 2
		good = digits(isHex)
	} else {
		digits(isDigit)
		if at(".") {
			good = digits(isDigit)
		}
		if good && at("eE") {
			at("+-")
			good = digits(isDigit)
		}
	}
	if !good || l.pos < len(l.text) && (isLetter(l.text[l.pos]) || isDigit(l.text[l.pos])) {
		return l.fail(t.pos, "a number must be decimal, or hexadecimal after 0x")
	}
	text := l.text[t.pos:l.pos]
	if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		for i := range len(hex) {
			t.number = t.number*16 + float64(strings.IndexByte("0123456789abcdef", hex[i]))
		}
	} else {
		t.number, _ = strconv.ParseFloat(text, 64) // infinite when out of range
	}
	if !finite(t.number) {
		return l.fail(t.pos, "the number is too large")
	}
	t.text = text
	return nil
}

// str reads a string. "Query language for device and module twins" lists the escapes.
func (l *lexer) str(t *token) error {
	t.kind = tokenString
	end := l.text[l.pos]
	var b strings.Builder
	for l.pos++; l.pos < len(l.text); {
		switch c := l.text[l.pos]; c {
		case end:
			l.pos++
			t.text = b.String()
			return nil
		case '\\':
			if err := l.escape(&b); err != nil {
				return err
			}
		default:
			b.WriteByte(c)
			l.pos++
		}
	}
	return l.fail(t.pos, "the string has no closing quote")
}

// escape reads one escape sequence, or two that make up one character.
func (l *lexer) escape(b *strings.Builder) error {
	if l.pos+1 < len(l.text) {
		switch c := l.text[l.pos+1]; c {
		case '\'', '"', '\\':
			b.WriteByte(c)
			l.pos += 2
			return nil
		case 'u':
			r, ok := l.unit()
			if !ok {
				return l.fail(l.pos, "'\\u' must be followed by four hexadecimal digits")
			}
			l.pos += 6
			if utf16.IsSurrogate(r) {
				low, _ := l.unit()
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					l.pos += 6
				}
			}
			b.WriteRune(r)
			return nil
		}
	}
	return l.fail(l.pos, `a backslash in a string must be followed by a quote, a backslash or u`)
}

// unit returns the UTF-16 unit of the escape at l.pos, if that is one.
func (l *lexer) unit() (rune, bool) {
	rest := l.text[l.pos:]
	if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(rest[2:6], 16, 16)
	return rune(n), err == nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '$' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isHex(c byte) bool    { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
