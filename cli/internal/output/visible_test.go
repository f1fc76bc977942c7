package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestVisible(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"text of many scripts stays", "a\tb\nä 日本 👩\u200d👧 می\u200cخواهم", "a\tb\nä 日本 👩\u200d👧 می\u200cخواهم"},
		{"a title of the window", "\x1b]0;pwned\a", `\u001b]0;pwned\u0007`},
		{"a control character of one byte is no text", "\x9b31m", `\x9b31m`},
		{"a control character of two bytes", "\u009b31m", `\u009b31m`},
		{"a return", "fine\rbad", `fine\rbad`},
		{"from right to left", "abc\u202etxt.exe\u2066", `abc\u202etxt.exe\u2066`},
		{"what has no shape", "d\u200b1\ufeff\u00ad", `d\u200b1\ufeff\u00ad`},
		{"lines that are none of ours", "a\u2028b\u2029", `a\u2028b\u2029`},
		{"tags beyond the sixteenth bit", "\U000e0041", `\udb40\udc41`},
		{"what stands for bytes that are no text stays", "\ufffd", "\ufffd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Visible(tt.text); got != tt.want {
				t.Errorf("Visible(%q) = %q, want %q", tt.text, got, tt.want)
			}
		})
	}
	if got, want := visibleCell("a\tb\nc\r"), `a\tb\nc\r`; got != want {
		t.Errorf("visibleCell = %q, want %q", got, want)
	}
}

// FuzzVisible finds nothing left that acts on a terminal, leaves what is visible as
// it is, and keeps the meaning of JSON and YAML.
func FuzzVisible(f *testing.F) {
	for _, text := range []string{"", "plain", "\x1b]0;pwned\a", "\x9b31m", "\u009b", "\u202e", "a\tb\n", "\xc2", "\U000e0041", "👩\u200d👧", "é́"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shown := Visible(text)
		if strings.ContainsFunc(shown, acts) || !utf8.ValidString(shown) {
			t.Fatalf("Visible(%q) = %q", text, shown)
		}
		if again := Visible(shown); again != shown {
			t.Errorf("Visible(%q) = %q, and then %q", text, shown, again)
		}
		if cell := visibleCell(text); strings.ContainsAny(cell, "\n\t\r") || strings.ContainsFunc(cell, acts) {
			t.Errorf("visibleCell(%q) = %q", text, cell)
		}
		if !utf8.ValidString(text) {
			return
		}
		var b bytes.Buffer
		for _, format := range []string{"json", "yaml"} {
			b.Reset()
			o := Options{Format: format}
			if err := o.Print(Streams{Out: &b}, Result{Value: map[string]string{text: text}}); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsFunc(b.String(), acts) {
				t.Errorf("%q as %s is %q", text, format, b.String())
			}
			var back map[string]string
			read := json.Unmarshal
			if format == "yaml" {
				read = yaml.Unmarshal
			}
			if err := read(b.Bytes(), &back); err != nil {
				t.Fatalf("%s is not %s: %v", b.String(), format, err)
			}
			if diff := cmp.Diff(map[string]string{text: text}, back); diff != "" {
				t.Errorf("%q from %s (-want +got):\n%s", text, b.String(), diff)
			}
		}
	})
}

func TestTextForPeopleIsGuardedEverywhere(t *testing.T) {
	const hostile, shown = "\x1b[2J\u202e\u009bm", `\u001b[2J\u202e\u009bm`
	result := Result{
		Value:   []map[string]string{{"a": hostile}},
		Columns: []Column{{"A", "a"}},
	}
	text := result
	text.Text = func(w io.Writer) error {
		_, err := fmt.Fprintln(w, hostile)
		return err
	}
	for name, tt := range map[string]struct {
		print func(Streams) error
		want  string
	}{
		"a table":        {func(s Streams) error { return new(Options).Print(s, result) }, "A\n" + shown + "\n"},
		"TSV":            {func(s Streams) error { return (&Options{Format: "tsv"}).Print(s, result) }, shown + "\n"},
		"text":           {func(s Streams) error { return new(Options).Print(s, text) }, shown + "\n"},
		"an event":       {func(s Streams) error { return (&Options{Format: "json"}).PrintEvent(s, text) }, `[{"a":"` + shown + `"}]` + "\n"},
		"a printed line": {func(s Streams) error { s.Print("%s", hostile); return nil }, shown + "\n"},
		"a note":         {func(s Streams) error { s.Out, s.ErrOut = nil, s.Out; s.Note("%s", hostile); return nil }, shown + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := tt.print(Streams{Out: &out, ErrOut: io.Discard}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("with a hostile value (-want +got):\n%s", diff)
			}
		})
	}
}
