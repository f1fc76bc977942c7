package output

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTruncate(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"device-1", 8, "device-1"},
		{"device-10", 8, "device-…"},
		{"日本日本", 8, "日本日本"},
		{"日本日本", 7, "日本日…"},
		{"日本日本", 6, "日本…"},
		{"é́e", 2, "é́e"},
		{"👩‍👧👩‍👧", 3, "👩‍👧…"},
		{"abc", 1, "…"},
		{"abc", 0, ""},
	} {
		if got := Truncate(tt.text, tt.width); got != tt.want {
			t.Errorf("Truncate(%q, %d) = %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestNarrow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		widths []int
		room   int
		want   []int
	}{
		{"what fits stays", []int{10, 20}, 33, []int{10, 20}},
		{"the widest gives first", []int{10, 20, 60}, 80, []int{10, 20, 44}},
		{"and then those as wide as it", []int{10, 40, 60}, 80, []int{10, 32, 32}},
		{"what the row is about gives last", []int{60, 14, 14}, 90, []int{60, 12, 12}},
		{"as far as it takes most of the line", []int{50, 14, 14}, 60, []int{40, 10, 10}},
		{"and then the end of the line", []int{70, 14, 14}, 40, []int{26, 10, 10}},
		{"one column", []int{100}, 80, []int{80}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, narrow(tt.widths, slices.Repeat([]int{least}, len(tt.widths)), 3, tt.room)); diff != "" {
				t.Errorf("narrow(%v, 3, %d) (-want +got):\n%s", tt.widths, tt.room, diff)
			}
		})
	}
}

func TestATableLeavesOutTimesFirst(t *testing.T) {
	lines := [][]string{
		{"JOB", "TYPE", "CREATED", "STATUS", "ENDED"},
		{"reboot-20261129-081651", "scheduleDeviceMethod", "2026-11-29T08:16:53Z", "completed", ""},
		{"reboot-20261129-081652", "scheduleDeviceMethod", "2026-11-29T08:16:53Z", "completed", "2026-11-29T08:16:53Z"},
	}
	for room, want := range map[int]string{
		103: "JOB                      TYPE                   CREATED                STATUS      ENDED\n",
		100: "JOB                     TYPE                  CREATED               STATUS     ENDED\n",
		80:  "JOB                     TYPE                  CREATED               STATUS\n",
		70:  "JOB                     TYPE           CREATED               STATUS\n",
		50:  "JOB                     TYPE             STATUS\n",
	} {
		var out bytes.Buffer
		table := table{w: &out, room: room, gap: usualGap}
		table.layOut(lines)
		if err := table.print(lines[0]); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("headings on %d columns (-want +got):\n%s", room, diff)
		}
	}
}

func TestATableFitsItsTerminal(t *testing.T) {
	rows := [][]string{
		{"DEVICE", "CITY", "NOTE"},
		{"device-1", "東京", strings.Repeat("long ", 20)},
		{"device-2", "Zürich", "short"},
		{"a-device-with-a-long-name", "Rio", "wider than those before"},
	}
	var out bytes.Buffer
	table := table{w: &out, room: 40, gap: usualGap}
	table.layOut(rows[:2])
	for _, row := range rows {
		if err := table.print(row); err != nil {
			t.Fatal(err)
		}
	}
	want := `DEVICE    CITY  NOTE
device-1  東京  long long long long lon…
device-2  Zürich  short
a-device-with-a-long-name  Rio   wider …
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("a table on 40 columns (-want +got):\n%s", diff)
	}
}

// FuzzWidth prints tables that are no wider than the terminal.
func FuzzWidth(f *testing.F) {
	f.Add("device-1", "日本語", "👩‍👧 and \u202e more", 20)
	f.Add("", "\xff\x9b", "a\tb", 1)
	f.Add(strings.Repeat("x", 300), strings.Repeat("e\u0301", 200), "", 80)
	f.Fuzz(func(t *testing.T, a, b, c string, room int) {
		if room < 1 || room > 500 {
			return
		}
		var out bytes.Buffer
		table := table{w: &out, room: room, gap: usualGap}
		first := []string{visibleCell(a), visibleCell(b)}
		table.layOut([][]string{first, {c, c}})
		for _, cells := range [][]string{first, {visibleCell(b), visibleCell(c)}} {
			if err := table.print(cells); err != nil {
				t.Fatal(err)
			}
		}
		for line := range strings.Lines(out.String()) {
			if w := Width(strings.TrimSuffix(line, "\n")); w > room {
				t.Errorf("%q takes %d columns of %d", line, w, room)
			}
		}
	})
}
