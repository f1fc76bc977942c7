package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// firstRows is how many rows of a stream are waited for, to see which columns
// there are and how wide.
const firstRows = 100

// PrintRows prints rows as they come, so that their number doesn't matter.
// Columns returns those of the table, given the first rows. Only --jq has to see
// all rows before it prints anything.
func (o *Options) PrintRows(s Streams, rows iter.Seq2[json.RawMessage, error], columns func(first []json.RawMessage) []Column) error {
	switch {
	case o.jq != "":
		all := []json.RawMessage{}
		for row, err := range rows {
			if err != nil {
				return err
			}
			all = append(all, row)
		}
		return o.Print(s, Result{Value: all})
	case o.Format == "json":
		return streamJSON(s.Out, rows)
	case o.Format == "yaml":
		return streamYAML(s.Out, rows)
	}
	return streamTable(s.Out, rows, columns, o.Format == "tsv")
}

// streamJSON writes an array that looks as PrintJSON would print it.
func streamJSON(w io.Writer, rows iter.Seq2[json.RawMessage, error]) error {
	var b bytes.Buffer
	b.WriteByte('[')
	separator := "\n  "
	for row, err := range rows {
		if err != nil {
			if b.Len() == 0 { // without its end, so that it cannot be taken for all
				fmt.Fprintln(w)
			}
			return err
		}
		b.WriteString(separator)
		if err := json.Indent(&b, row, "  ", "  "); err != nil {
			return fmt.Errorf("print as JSON: %w", err)
		}
		if _, err := b.WriteTo(w); err != nil {
			return err
		}
		separator = ",\n  "
	}
	if separator != "\n  " {
		b.WriteByte('\n')
	}
	b.WriteString("]\n")
	_, err := b.WriteTo(w)
	return err
}

func streamYAML(w io.Writer, rows iter.Seq2[json.RawMessage, error]) error {
	some := false
	for row, err := range rows {
		if err != nil {
			return err
		}
		some = true
		if err := PrintYAML(w, append(append([]byte{'['}, row...), ']')); err != nil {
			return err
		}
	}
	if some {
		return nil
	}
	return PrintYAML(w, []byte("[]"))
}

func streamTable(w io.Writer, rows iter.Seq2[json.RawMessage, error], columns func([]json.RawMessage) []Column, tsv bool) error {
	next, stop := iter.Pull2(rows)
	defer stop()
	var first []json.RawMessage
	var failed error
	for len(first) < firstRows {
		row, err, ok := next()
		if !ok || err != nil {
			failed = err
			break
		}
		first = append(first, row)
	}
	if len(first) == 0 && failed != nil {
		return failed
	}
	t := table{w: w, tsv: tsv, columns: columns(first)}
	if err := t.begin(first); err != nil || failed != nil {
		return fail.First(err, failed)
	}
	for {
		row, err, ok := next()
		if !ok || err != nil {
			return err
		}
		if err := t.print(t.cells(row)); err != nil {
			return err
		}
	}
}

// A table prints rows in columns that are as wide as the headings and the first
// rows need.
type table struct {
	w       io.Writer
	tsv     bool // no headings, a tab between the cells
	columns []Column
	widths  []int
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

// printAligned prints lines in columns that are as wide as they need.
func (t *table) printAligned(lines [][]string) error {
	for _, cells := range lines {
		for i, c := range cells {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, cells := range lines {
		if err := t.print(cells); err != nil {
			return err
		}
	}
	return nil
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

func (t *table) print(cells []string) error {
	if t.tsv {
		_, err := fmt.Fprintln(t.w, strings.Join(cells, "\t"))
		return err
	}
	var line strings.Builder
	for i, c := range cells {
		line.WriteString(c)
		if i < len(cells)-1 {
			const gap = 3
			line.WriteString(strings.Repeat(" ", max(t.widths[i]-utf8.RuneCountInString(c), 0)+gap))
		}
	}
	_, err := fmt.Fprintln(t.w, strings.TrimRight(line.String(), " "))
	return err
}
