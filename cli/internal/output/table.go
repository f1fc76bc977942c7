package output

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// A table prints rows in columns that are as wide as the headings and the first
// rows need. On a terminal no row takes more than a line: where that has no room,
// cells are cut, and if that is not enough columns of times, which say nothing when
// they are cut, are left out.
type table struct {
	w       io.Writer
	tsv     bool // no headings, a tab between the cells
	columns []Column
	widths  []int
	floors  []int  // what columns keep, if they have as much
	hidden  []bool // columns that are left out
	gap     int    // between columns
	room    int    // on a line of the terminal; 0 is no bound
}

const (
	usualGap  = 3
	narrowGap = 2
	least     = 10 // what a column keeps, if it has as much
)

// begin prints the headings and the first rows.
func (t *table) begin(first []json.RawMessage) error {
	var lines [][]string
	if !t.tsv {
		var headings []string
		for _, c := range t.columns {
			headings = append(headings, c.heading())
		}
		lines = append(lines, headings)
	}
	for _, row := range first {
		lines = append(lines, t.cells(row))
	}
	return t.printAligned(lines)
}

// printAligned prints lines in columns that are as wide as they need and the
// terminal has room for.
func (t *table) printAligned(lines [][]string) error {
	t.room, t.gap = TerminalWidth(t.w), usualGap
	t.layOut(lines)
	for _, cells := range lines {
		if err := t.print(cells); err != nil {
			return err
		}
	}
	return nil
}

// layOut decides how wide columns are.
func (t *table) layOut(lines [][]string) {
	for _, cells := range lines {
		t.widths = widest(t.widths, cells)
	}
	t.hidden, t.floors = make([]bool, len(t.widths)), slices.Repeat([]int{least}, len(t.widths))
	if t.room == 0 || fits(t.widths, t.gap, t.room) {
		return
	}
	t.gap = narrowGap
	for i := range t.floors {
		if isTimes(lines, i) {
			t.floors[i] = t.widths[i]
		}
	}
	for i := len(t.widths) - 1; i > 0 && !fits(t.narrow(t.shown(t.widths)), t.gap, t.room); i-- {
		t.hidden[i] = t.floors[i] > least
	}
}

// isTimes reports whether a column has nothing but times below its heading.
func isTimes(lines [][]string, column int) bool {
	some := false
	for _, cells := range lines[min(1, len(lines)):] {
		if column >= len(cells) || cells[column] == "" {
			continue
		}
		if _, err := time.Parse(time.RFC3339, cells[column]); err != nil {
			return false
		}
		some = true
	}
	return some
}

// shown returns what columns that are not left out have.
func (t *table) shown(widths []int) (shown []int) {
	for i, w := range widths {
		if i >= len(t.hidden) || !t.hidden[i] {
			shown = append(shown, w)
		}
	}
	return shown
}

func fits(widths []int, gap, room int) bool {
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return total <= room
}

// widest returns how wide columns of certain widths are with cells too.
func widest(widths []int, cells []string) []int {
	all := make([]int, max(len(widths), len(cells)))
	copy(all, widths)
	for i, c := range cells {
		all[i] = max(all[i], Width(c))
	}
	return all
}

// narrow narrows the columns that are shown.
func (t *table) narrow(widths []int) []int {
	return narrow(widths, t.shown(t.floors), t.gap, t.room)
}

// narrow takes from columns, the widest first, what a line has no room for. The
// first column, which says what the row is about, gives last, and not before it
// takes most of the line. What is left over is cut from the end of the line.
func narrow(widths, floors []int, gap, room int) []int {
	widths = slices.Clone(widths)
	excess := gap*(len(widths)-1) - room
	for i := range widths {
		widths[i] = min(widths[i], room)
		excess += widths[i]
	}
	for ; excess > 0; excess-- {
		i := 0
		for j := range widths {
			if j > 0 && widths[j] > floors[j] && (i == 0 || widths[j] > widths[i]) {
				i = j
			}
		}
		if i == 0 && widths[i] <= max(least, room*2/3) {
			break
		}
		widths[i]--
	}
	return widths
}

func (t *table) cells(row json.RawMessage) []string {
	cells := make([]string, len(t.columns))
	value := gjson.ParseBytes(row)
	for i, c := range t.columns {
		if cells[i] = cell(value.Get(c.Path())); !t.tsv {
			cells[i] = withoutFraction(cells[i])
		}
	}
	return cells
}

var fraction = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z$`)

// withoutFraction returns a time to the second, and anything else as it is.
func withoutFraction(cell string) string { return fraction.ReplaceAllString(cell, "${1}Z") }

// print prints a row. One that needs more room than the rows before takes what the
// line has.
func (t *table) print(cells []string) error {
	if t.tsv {
		_, err := fmt.Fprintln(t.w, strings.Join(cells, "\t"))
		return err
	}
	widths := t.widths
	if t.room > 0 {
		var shown []string
		for i, c := range cells {
			if i >= len(t.hidden) || !t.hidden[i] {
				shown = append(shown, c)
			}
		}
		cells, widths = shown, t.shown(widths)
		if widths = widest(widths, cells); !fits(widths, t.gap, t.room) {
			widths = t.narrow(widths)
		}
	}
	var line strings.Builder
	for i, c := range cells {
		if t.room > 0 {
			c = Truncate(c, widths[i])
		}
		line.WriteString(c)
		if i < len(cells)-1 {
			line.WriteString(strings.Repeat(" ", max(widths[i]-Width(c), 0)+t.gap))
		}
	}
	text := strings.TrimRight(line.String(), " ")
	if t.room > 0 {
		text = Truncate(text, t.room)
	}
	_, err := fmt.Fprintln(t.w, text)
	return err
}
