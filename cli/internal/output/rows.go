package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// firstRows is how many rows of a stream are waited for, to see which columns
// there are and how wide.
const firstRows = 100

// PrintRows prints rows as they come, so that their number doesn't matter.
// Columns returns those of the table, given the first rows. Only --jq has to see
// all rows before it prints anything.
func (o *Options) PrintRows(s Streams, rows iter.Seq2[json.RawMessage, error], columns func(first []json.RawMessage) []Column) error {
	if o.Format == "none" {
		s.Out = io.Discard
	}
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
		if _, err := io.WriteString(w, Visible(b.String())); err != nil {
			return err
		}
		b.Reset()
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
