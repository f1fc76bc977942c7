package output

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// gap is between the columns of a table.
const gap = 3

// A table prints rows in columns that are as wide as the headings and the first
// rows need. On a terminal no row takes more than a line: cells are cut.
type table struct {
	w       io.Writer
	tsv     bool // no headings, a tab between the cells
	columns []Column
	widths  []int
	room    int // on a line of the terminal; 0 is no bound
}

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
	t.room = TerminalWidth(t.w)
	for _, cells := range lines {
		t.widths = widest(t.widths, cells)
	}
	t.widths = narrow(t.widths, t.room)
	for _, cells := range lines {
		if err := t.print(cells); err != nil {
			return err
		}
	}
	return nil
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

// narrow takes from columns, the widest first, what a line has no room for. The
// first column, which says what the row is about, gives last, and not before it
// takes most of the line.
func narrow(widths []int, room int) []int {
	const least = 6
	if room == 0 {
		return widths
	}
	widths = slices.Clone(widths)
	excess := gap*(len(widths)-1) - room
	for i := range widths {
		widths[i] = min(widths[i], room)
		excess += widths[i]
	}
	for ; excess > 0; excess-- {
		i := 0
		for j := range widths {
			if j > 0 && widths[j] > least && (i == 0 || widths[j] > widths[i]) {
				i = j
			}
		}
		if i == 0 && widths[i] <= max(least, room*2/3) {
			break // the end of the line is cut
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
		widths = narrow(widest(widths, cells), t.room)
	}
	var line strings.Builder
	for i, c := range cells {
		if t.room > 0 {
			c = Truncate(c, widths[i])
		}
		line.WriteString(c)
		if i < len(cells)-1 {
			line.WriteString(strings.Repeat(" ", max(widths[i]-Width(c), 0)+gap))
		}
	}
	text := strings.TrimRight(line.String(), " ")
	if t.room > 0 {
		text = Truncate(text, t.room)
	}
	_, err := fmt.Fprintln(t.w, text)
	return err
}
