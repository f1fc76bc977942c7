package jsontext_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/internal/jsontext"
)

func TestWalk(t *testing.T) {
	type piece struct{ Key, Value, Behind string }
	tests := []struct {
		name, text string
		want       []piece
		damaged    bool
	}{
		{"an object", ` { "a" : 1 , "b\"}" : [ "]" ] } `, []piece{{`"a"`, `1`, ` , "b\"}" : [ "]" ] } `}, {`"b\"}"`, `[ "]" ]`, ` } `}}, false},
		{"an object without members", ` { } `, nil, false},
		{"no text", "", nil, false},
		{"nothing but white space", " \n\t\r", nil, false},
		{"an array", `[]`, nil, true},
		{"a number", `1`, nil, true},
		{"an object that is cut off", `{`, nil, true},
		{"a key that is cut off", `{"a\"`, nil, true},
		{"a key without a value", `{"a":}`, nil, true},
		{"a key that is no string", `{1:2}`, nil, true},
		{"a value that is cut off", `{"a":1,"b":{"c":"}`, []piece{{`"a"`, `1`, `,"b":{"c":"}`}}, true},
		{"something else than a comma", `{"a":1]`, []piece{{`"a"`, `1`, `]`}}, true},
		{"no end", `{"a":true`, []piece{{`"a"`, `true`, ``}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []piece
			c := jsontext.Walk([]byte(tt.text))
			for c.Member() {
				got = append(got, piece{string(c.Key()), string(c.Value()), string(c.Behind())})
				if from := string(c.FromKey()); from != tt.text[bytes.Index([]byte(tt.text), c.Key()):] {
					t.Errorf("from the key %s on it is %s", c.Key(), from)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.text, diff)
			}
			if c.Damaged() != tt.damaged {
				t.Errorf("%s: damaged is %v", tt.text, c.Damaged())
			}
		})
	}
}

func TestElements(t *testing.T) {
	var got []string
	c := jsontext.Walk([]byte(` [ -1.5e3 , "a,]" , [ [ ] ] , { "b" : null } ] `))
	for c.Element() {
		got = append(got, string(c.Value()))
	}
	if diff := cmp.Diff([]string{`-1.5e3`, `"a,]"`, `[ [ ] ]`, `{ "b" : null }`}, got); diff != "" || c.Damaged() {
		t.Errorf("damaged is %v, elements (-want +got):\n%s", c.Damaged(), diff)
	}
	if c := jsontext.Walk([]byte(`{"a":1}`)); c.Element() || !c.Damaged() {
		t.Error("an object has elements")
	}
}

// FuzzWalk reads any text without a panic, and a valid one as encoding/json does.
func FuzzWalk(f *testing.F) {
	f.Add([]byte(` {"a" : [1, -2.5e-3, true, {"b\"}" : "\ud83d\ude00\\"}], "a":null , "" : {} } `))
	f.Add([]byte(`["\u00e9\/", "]", [[]], {"x":{"y":"\ud800"}}, "<"]`))
	f.Add([]byte(`{"a":"\"}`))
	f.Add([]byte(`[1,`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := parse(text, 0)
		if !json.Valid(text) || !utf8.Valid(text) { // where encoding/json puts U+FFFD
			return
		}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			return // too deep
		}
		if diff := cmp.Diff(want, got); diff != "" || !ok {
			t.Errorf("%q (ok is %v, -want +got):\n%s", text, ok, diff)
		}
	})
}

// parse returns the value of a text by means of this package. On text that is not JSON that is
// anything, and ok is often true.
func parse(text []byte, depth int) (value any, ok bool) {
	start := jsontext.SkipSpace(text, 0)
	end := jsontext.SkipValue(text, start)
	if end < 0 || depth > 1000 {
		return nil, false
	}
	ok = true
	switch raw := text[start:end]; raw[0] {
	case '{':
		object := make(map[string]any)
		c := jsontext.Walk(raw)
		for c.Member() {
			member, fine := parse(c.Value(), depth+1)
			object[string(jsontext.Unquote(c.Key()))] = member
			ok = ok && fine
		}
		return object, ok && !c.Damaged()
	case '[':
		array := make([]any, 0)
		c := jsontext.Walk(raw)
		for c.Element() {
			element, fine := parse(c.Value(), depth+1)
			array = append(array, element)
			ok = ok && fine
		}
		return array, ok && !c.Damaged()
	case '"':
		return string(jsontext.Unquote(raw)), ok
	case 't', 'f':
		return raw[0] == 't', ok
	case 'n':
		return nil, ok
	default:
		return json.Number(raw), ok
	}
}

type page string

func (p page) MarshalJSON() ([]byte, error) { return []byte(`{"text": "` + p + `"}`), nil }

func TestMarshal(t *testing.T) {
	tests := []struct {
		name string
		v    any
		want string
	}{
		{"text for HTML", `<a href="x">&</a>`, `"<a href=\"x\">&</a>"`},
		{"members", map[string]any{"<": []int{1}, "&": nil}, `{"&":null,"<":[1]}`},
		{"raw JSON within", struct{ V json.RawMessage }{json.RawMessage(`{"a": "<\u003e"}`)}, `{"V":{"a":"<\u003e"}}`},
		{"raw JSON stays as it is", json.RawMessage("{\"a\": 1.0}\n"), "{\"a\": 1.0}\n"},
		{"one's own MarshalJSON stays as it is", page("<"), `{"text": "<"}`},
		{"nothing", nil, `null`},
		{"a text that ends in a line break", "a\n", `"a\n"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := jsontext.Marshal(tt.v)
			if diff := cmp.Diff(tt.want, string(got)); diff != "" || err != nil {
				t.Errorf("Marshal(%#v): %v (-want +got):\n%s", tt.v, err, diff)
			}
		})
	}
	if got, err := jsontext.Marshal(func() {}); err == nil {
		t.Errorf("a function is printed as %s", got)
	}
}

func TestMore(t *testing.T) {
	for _, tt := range []struct {
		text string
		most int
		want bool
	}{
		{`[]`, 0, false},
		{`[1]`, 0, true},
		{` [1, [2, 3]]`, 2, false},
		{`[1, 2, 3]`, 2, true},
		{` {"a": {"b": 1, "c": 2}, "d": 3}`, 2, false},
		{`{"a": 1, "a": 2, "a": 3}`, 2, true},
		{`"text"`, 0, false},
		{`null`, 0, false},
		{``, 0, false},
		{`[1, 2`, 1, true},
	} {
		if got := jsontext.More([]byte(tt.text), tt.most); got != tt.want {
			t.Errorf("More(%s, %d) is %v, want %v", tt.text, tt.most, got, tt.want)
		}
	}
}
