package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hubrest"
)

// A fileDoc is a twin in a file. Those that "service device export" and IoT Hub
// write have their device's name as id.
type fileDoc struct{ query.Text }

func (d fileDoc) Field(f query.Field) query.Value {
	v := d.Text.Field(f)
	if f == query.DeviceID && v.Chars() == nil {
		return query.JSON(d.Text).Get("id")
	}
	return v
}

// collection tells what the document is a row of.
func (d fileDoc) collection() (query.Collection, error) {
	switch {
	case d.Text[0] != '{':
		return 0, errors.New("is not a JSON object")
	case d.Field(query.DeviceID).Chars() == nil:
		return 0, errors.New("has no deviceId")
	case d.Field(query.JobID).Chars() != nil:
		return query.Jobs, nil
	case d.Field(query.ModuleID).Chars() != nil:
		return query.Modules, nil
	}
	return query.Devices, nil
}

// runFileQuery answers a query from a file, in the file's order and with memory
// for one twin, or one for each group.
func runFileQuery(ctx context.Context, s output.Streams, o queryOptions, text string) error {
	q, err := query.Parse(text)
	if err != nil {
		return fail.Errorf(fail.Failed, "%v", err)
	}
	name, file := "standard input", s.In
	if o.from != "-" {
		f, err := os.Open(o.from)
		if err != nil {
			return fail.Usagef("--from: %v", fail.PlainPathError(err))
		}
		defer f.Close()
		name, file = o.from, f
	}
	began := time.Now()
	scanned := 0
	rows := fileRows(ctx, q, func(yield func(fileDoc, error) bool) {
		for doc, err := range documents(file) {
			scanned++
			var from query.Collection
			if err == nil {
				from, err = fileDoc{query.Text(doc)}.collection()
			}
			if err != nil {
				err = fail.Errorf(fail.Failed, "%s: document %d %v", name, scanned, err)
			}
			if (err != nil || from == q.From()) && !yield(fileDoc{query.Text(doc)}, err) {
				return
			}
		}
	})
	if !o.explain {
		return printRows(s, o.Output, rows, text)
	}
	plan := hubrest.QueryPlan{Plan: name + ", from its beginning", Pages: 1}
	for _, err := range rows {
		if err != nil {
			return err
		}
		plan.Rows++
	}
	plan.Scanned = scanned
	return printPlan(s, o.Output, plan, time.Since(began), text)
}

// fileRows yields the rows that a query makes of documents of its collection.
func fileRows(ctx context.Context, q *query.Query, docs iter.Seq2[fileDoc, error]) iter.Seq2[json.RawMessage, error] {
	matches := func(yield func(fileDoc, error) bool) {
		for d, err := range docs {
			if err == nil {
				err = ctx.Err()
			}
			if (err != nil || q.Match(d)) && !yield(d, err) {
				return
			}
		}
	}
	if q.Aggregates() {
		return fileGroups(q, matches)
	}
	return func(yield func(json.RawMessage, error) bool) {
		left := q.Top()
		for d, err := range matches {
			if err != nil {
				yield(nil, err)
				return
			}
			row, err := q.Project(nil, d)
			if !yield(row, err) || err != nil {
				return
			}
			if left--; left == 0 {
				return
			}
		}
	}
}

func fileGroups(q *query.Query, matches iter.Seq2[fileDoc, error]) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		most := q.Top()
		if most == 0 {
			const enough = 1 << 28 // more groups than memory holds
			most = enough
		}
		groups := q.NewGroups("", most)
		for d, err := range matches {
			if err != nil {
				yield(nil, err)
				return
			}
			groups.Add(d)
		}
		rows, _, err := groups.Rows(math.MaxInt)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, row := range rows {
			if !yield(row.JSON, nil) {
				return
			}
		}
	}
}

// documents yields the JSON texts in r: the elements of an array, or whatever
// stands one after another, such as a line each.
func documents(r io.Reader) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		in := bufio.NewReaderSize(r, 1<<16)
		if mark, _ := in.Peek(3); string(mark) == "\ufeff" {
			in.Discard(len(mark))
		}
		d := json.NewDecoder(in)
		array, err := beginsArray(in)
		if err != nil {
			yield(nil, err)
			return
		}
		if array {
			d.Token()
		}
		for {
			if array && !d.More() {
				if _, err := d.Token(); err != nil {
					yield(nil, unexpectedEnd(err))
				} else if _, err := d.Token(); !errors.Is(err, io.EOF) {
					yield(nil, errors.New("stands behind the end of the array"))
				}
				return
			}
			var doc json.RawMessage
			err := d.Decode(&doc)
			if errors.Is(err, io.EOF) && !array {
				return
			}
			if !yield(doc, unexpectedEnd(err)) || err != nil {
				return
			}
		}
	}
}

func unexpectedEnd(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("is cut short: the file ends within it")
	}
	return fmt.Errorf("is not JSON: %w", err)
}

// beginsArray reports whether the first character that is no space is "[".
func beginsArray(in *bufio.Reader) (bool, error) {
	for {
		c, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("cannot be read: %w", err)
		}
		if c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c == '[', in.UnreadByte()
		}
	}
}
