package console

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTreeOf(t *testing.T) {
	at := func(second int) time.Time { return time.Date(2026, 1, 2, 3, 4, second, 0, time.UTC) }
	got := treeOf([]byte(`{"a":{"b":1.10,"empty":{}},"list":[1,{"x":2}],"text":"<b>",
		"$metadata":{"$lastUpdated":"2026-01-02T03:04:09Z","a":{"$lastUpdated":"2026-01-02T03:04:01Z","b":{"$lastUpdated":"2026-01-02T03:04:01Z"},"empty":{"$lastUpdated":"nonsense"}},"list":{"$lastUpdated":"2026-01-02T03:04:02Z"}},
		"$version":7}`))
	want := []treeRow{
		{Path: "a", Name: "a", Level: 1, Updated: at(1)},
		{Path: "a.b", Name: "b", Level: 2, Value: "1.10", Updated: at(1)},
		{Path: "a.empty", Name: "empty", Level: 2, Value: "{}"},
		{Path: "list", Name: "list", Level: 1, Value: `[1,{"x":2}]`, Updated: at(2)},
		{Path: "text", Name: "text", Level: 1, Value: `"<b>"`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("treeOf (-want +got):\n%s", diff)
	}
	for _, none := range []string{"", "null", "[]", "7", `{}`, `{"$version":1}`, `{"$metadata":7}`} {
		if rows := treeOf([]byte(none)); len(rows) != 0 {
			t.Errorf("treeOf(%q) has %v", none, rows)
		}
	}
	if rows := treeOf([]byte(`{"a":{"b":1},"$metadata":{"a":"nonsense"}}`)); len(rows) != 2 {
		t.Errorf("with metadata that is nonsense: %v", rows)
	}
}

func TestAuthors(t *testing.T) {
	rows := treeOf([]byte(`{"a":{"b":1,"c":{"d":2}},"ab":3,"$metadata":{"a":{"$lastUpdated":"2026-01-02T03:04:02Z","b":{"$lastUpdated":"2026-01-02T03:04:01Z"},
		"c":{"$lastUpdated":"2026-01-02T03:04:02Z","d":{"$lastUpdated":"2026-01-02T03:04:02Z"}}},"ab":{"$lastUpdated":"2026-01-02T03:04:03Z"}}}`))
	authors(rows, map[string]string{"a.b": "one", "a.c.d": "two", "ab": "three"})
	got := map[string]string{}
	for _, row := range rows {
		got[row.Path] = row.By
	}
	if diff := cmp.Diff(map[string]string{"a": "two", "a.b": "one", "a.c": "two", "a.c.d": "two", "ab": "three"}, got); diff != "" {
		t.Errorf("authors (-want +got):\n%s", diff)
	}
}

func TestLeaves(t *testing.T) {
	got := leaves([]byte(`{"a":{"b":null,"c":{}},"d":[1],"$version":2,"$metadata":{"x":1}}`), "")
	if diff := cmp.Diff([]string{"a.b", "a.c", "d"}, got); diff != "" {
		t.Errorf("leaves (-want +got):\n%s", diff)
	}
	if got := leaves(nil, ""); got != nil {
		t.Errorf("leaves of nothing: %v", got)
	}
}

// Whatever a section is, its tree is made without a panic.
func FuzzTreeOf(f *testing.F) {
	for _, text := range []string{`{"a":{"b":1},"$metadata":{"a":{"$lastUpdated":"2026-01-02T03:04:05Z"}}}`, `{"a`, `{"a":}`, `[{}]`, "{\"\xff\":{\"x\":1}}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		rows := treeOf(text)
		authors(rows, map[string]string{"a": "x"})
		for _, row := range rows {
			if row.Level < 1 || row.Level > maxLevel {
				t.Errorf("treeOf(%q): level %d", text, row.Level)
			}
		}
		leaves(text, "")
	})
}
