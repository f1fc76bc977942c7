// Package output is what commands print: results on standard output, as text
// for people, tables, JSON, YAML or TSV; notes and progress on standard error.
package output

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/itchyny/gojq"
	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// Options are the flags that say how a result is printed.
type Options struct {
	Format string // "json", "table", "tsv", "yaml", or "" for text made for people
	jq     string

	code *gojq.Code // of jq, once checked
}

// Flags returns the flags that fill o.
func (o *Options) Flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Category: "Output", Destination: &o.Format,
			Usage: "print as `FORMAT`: json, table, tsv, yaml or none"},
		&urfave.StringFlag{Name: "jq", Category: "Output", Destination: &o.jq,
			Usage: "print what the jq `FILTER` makes of the JSON; strings without quotes"},
	}
}

// Check refuses a format that there is not, and a filter that is none. It has to
// be called before anything is printed.
func (o *Options) Check() error {
	switch o.Format {
	case "", "json", "table", "tsv", "yaml", "none":
	case "jsonc", "yamlc": // as az has them, with colours
		o.Format = strings.TrimSuffix(o.Format, "c")
	default:
		return fail.Usagef("--output %q is not json, table, tsv, yaml or none", o.Format)
	}
	if o.jq == "" {
		return nil
	}
	if o.Format != "" && o.Format != "json" {
		return fail.Usagef("--jq works on JSON; leave out --output %s", o.Format)
	}
	query, err := gojq.Parse(o.jq)
	if err != nil {
		return fail.Usagef("--jq %q: %v", o.jq, err)
	}
	if o.code, err = gojq.Compile(query); err != nil {
		return fail.Usagef("--jq %q: %v", o.jq, err)
	}
	return nil
}

// ForPeople reports whether no machine form was asked for.
func (o *Options) ForPeople() bool { return o.Format == "" && o.jq == "" }

// A Column of a table is a heading and the gjson path of its values.
type Column [2]string

func (c Column) heading() string { return c[0] }

// Path is the gjson path of the values.
func (c Column) Path() string { return c[1] }

// A Result is what a command prints.
type Result struct {
	Value any // marshalled to JSON; a json.RawMessage keeps order and numbers as they are
	Text  func(w io.Writer) error
	// columns of the table, in order. Without columns a table lists the members of value.
	Columns []Column
}

// Print writes r in the chosen format. Without one it writes text if the
// command has one, else a table if it has columns, else JSON.
func (o *Options) Print(s Streams, r Result) error {
	format := o.Format
	if format == "none" {
		s.Out = io.Discard
	}
	switch {
	case !o.ForPeople():
	case r.Text != nil:
		return r.Text(Guard(s.Out))
	case r.Columns != nil:
		format = "table"
	}
	doc, err := jsontext.Marshal(r.Value)
	if err != nil {
		return err
	}
	switch format {
	case "table", "tsv":
		return printTable(s.Out, doc, r.Columns, format == "tsv")
	case "yaml":
		return PrintYAML(s.Out, doc)
	}
	if o.jq != "" {
		return o.printFiltered(s.Out, doc)
	}
	return PrintJSON(s.Out, doc)
}

// PrintEvent writes r as one of many: JSON on one line, so that a reader can
// take a stream line by line.
func (o *Options) PrintEvent(s Streams, r Result) error {
	if o.Format != "json" || o.jq != "" {
		return o.Print(s, r)
	}
	doc, err := jsontext.Marshal(r.Value)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, doc); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = io.WriteString(s.Out, Visible(line.String()))
	return err
}

// PrintLine prints r as one line of many without waiting for the others: JSON on
// one line, TSV, what --jq makes of it, or text, which a table is here too.
func (o *Options) PrintLine(s Streams, r Result) error {
	if o.Format == "table" {
		return r.Text(Guard(s.Out))
	}
	return o.PrintEvent(s, r)
}

// PrintJSON writes doc, a JSON text, indented.
func PrintJSON(w io.Writer, doc []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "  "); err != nil {
		return fmt.Errorf("print as JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, Visible(b.String()))
	return err
}

func (o *Options) printFiltered(w io.Writer, doc []byte) error {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("read for --jq: %w", err)
	}
	results := o.code.Run(v)
	for {
		v, ok := results.Next()
		if !ok {
			return nil
		}
		if err, ok := v.(error); ok {
			if halt, ok := errors.AsType[*gojq.HaltError](err); ok && halt.Value() == nil {
				return nil
			}
			return fail.Errorf(fail.Failed, "--jq %q: %v", o.jq, err)
		}
		if text, ok := v.(string); ok {
			if _, err := fmt.Fprintln(w, text); err != nil {
				return err
			}
			continue
		}
		doc, err := gojq.Marshal(v)
		if err != nil {
			return err
		}
		if err := PrintJSON(w, doc); err != nil {
			return err
		}
	}
}

// PrintYAML writes doc as YAML with its members in the order they have.
func PrintYAML(w io.Writer, doc []byte) error {
	var node yaml.Node
	if err := yaml.Unmarshal(jsontext.ForYAML(doc), &node); err != nil {
		return fmt.Errorf("print as YAML: %w", err)
	}
	blockStyle(&node)
	var b strings.Builder
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&node), e.Close()); err != nil {
		return fmt.Errorf("print as YAML: %w", err)
	}
	_, err := io.WriteString(w, Visible(b.String())) // what it escapes stands in quotes
	return err
}

// blockStyle undoes the look of JSON, except for the quotes around text that
// some reader of YAML may take for something else, such as no or 12:30.
func blockStyle(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || plainText.MatchString(n.Value) && !oldBool.MatchString(n.Value) {
		n.Style = 0
	}
	for _, child := range n.Content {
		blockStyle(child)
	}
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z$][A-Za-z0-9$_./-]*$`)
	oldBool   = regexp.MustCompile(`^(?i:y|n|yes|no|on|off)$`) // of YAML 1.1
)

// printTable writes doc as rows: one for each element of an array, else one
// for each member of an object. As TSV it has no headings and no padding.
func printTable(w io.Writer, doc []byte, columns []Column, tsv bool) error {
	value := gjson.ParseBytes(doc)
	t := table{w: w, tsv: tsv, columns: columns}
	if !value.IsArray() && columns == nil {
		var members [][]string
		value.ForEach(func(name, member gjson.Result) bool {
			members = append(members, []string{name.String(), cell(member)})
			return true
		})
		return t.printAligned(members)
	}
	if columns == nil {
		t.columns = MemberColumns(value)
	}
	var rows []json.RawMessage
	for _, element := range value.Array() { // a value that is no array is the only element
		rows = append(rows, json.RawMessage(element.Raw))
	}
	return t.begin(rows)
}

// MemberColumns are the member names of all elements, in the order in which
// they first appear.
func MemberColumns(array gjson.Result) []Column {
	var columns []Column
	seen := map[string]bool{}
	for _, element := range array.Array() {
		if !element.IsObject() {
			return []Column{{"VALUE", "@this"}}
		}
		element.ForEach(func(name, _ gjson.Result) bool {
			if !seen[name.String()] {
				seen[name.String()] = true
				columns = append(columns, Column{name.String(), gjson.Escape(name.String())})
			}
			return true
		})
	}
	return columns
}

// cell is a value in a table: text that stays on its line and in its column.
func cell(v gjson.Result) string {
	switch v.Type {
	case gjson.JSON:
		return visibleCell(v.Get("@ugly").Raw)
	case gjson.Number:
		return v.Raw
	}
	return visibleCell(v.String())
}
