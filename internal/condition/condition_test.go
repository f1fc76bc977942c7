package condition

import (
	"encoding/json"
	"testing"

	"github.com/iotdm/iotdm/hub/query"
)

// FuzzQuote: the hub reads from a quoted text the text.
func FuzzQuote(f *testing.F) {
	for _, text := range []string{"", "north", "it's", `back\slash`, `\'`, `'; --`, "line\nbreak", "größer"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := json.Marshal(map[string]any{"deviceId": "d1", "tags": map[string]string{"site": text}})
		if err != nil {
			t.Fatal(err)
		}
		var back struct{ Tags struct{ Site string } }
		if err := json.Unmarshal(doc, &back); err != nil || back.Tags.Site != text {
			t.Skip("not UTF-8")
		}
		q, err := query.Parse("SELECT * FROM devices WHERE tags.site = " + Quote(text))
		if err != nil {
			t.Fatalf("Quote(%q) = %s: %v", text, Quote(text), err)
		}
		if !q.Match(query.Text(doc)) {
			t.Errorf("Quote(%q) = %s is another text", text, Quote(text))
		}
	})
}

func TestConditionsInQueries(t *testing.T) {
	for _, tt := range []struct{ name, got, want string }{
		{"all devices", Where("*"), ""},
		{"some devices", Where("status = 'enabled'"), " WHERE status = 'enabled'"},
		{"all of those chosen already", And(" * "), ""},
		{"some of those chosen already", And("a = 1 OR b = 1"), " AND (a = 1 OR b = 1)"},
		{"named devices", AnyOf([]string{"d1", "d'2"}), `deviceId IN ['d1', 'd\'2']`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("%q, want %q", tt.got, tt.want)
			}
		})
	}
}
