package cli

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

	"github.com/iotdm/iotdm/internal/jsontext"
)

// outputOptions are the flags that say how a result is printed.
type outputOptions struct {
	format string // "json", "table", "tsv", "yaml", or "" for text made for people
	jq     string

	code *gojq.Code // of jq, once checked
}

func (o *outputOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Category: "Output", Destination: &o.format,
			Usage: "print as `FORMAT`: json, table, tsv or yaml"},
		&urfave.StringFlag{Name: "jq", Category: "Output", Destination: &o.jq,
			Usage: "print what the jq `FILTER` makes of the JSON; strings without quotes"},
	}
}

func (o *outputOptions) check() error {
	switch o.format {
	case "", "json", "table", "tsv", "yaml":
	default:
		return usagef("--output %q is none of json, table, tsv, yaml", o.format)
	}
	if o.jq == "" {
		return nil
	}
	if o.format != "" && o.format != "json" {
		return usagef("--jq works on JSON; leave out --output %s", o.format)
	}
	query, err := gojq.Parse(o.jq)
	if err != nil {
		return usagef("--jq %q: %v", o.jq, err)
	}
	if o.code, err = gojq.Compile(query); err != nil {
		return usagef("--jq %q: %v", o.jq, err)
	}
	return nil
}

// forPeople reports whether no machine form was asked for.
func (o *outputOptions) forPeople() bool { return o.format == "" && o.jq == "" }

// A column of a table is a heading and the gjson path of its values.
type column struct{ heading, path string }

// A result is what a command prints.
type result struct {
	value any // marshalled to JSON; a json.RawMessage keeps order and numbers as they are
	text  func(w io.Writer) error
	// columns of the table, in order. Without columns a table lists the members of value.
	columns []column
}

// print writes r in the chosen format. Without one it writes text if the
// command has one, else a table if it has columns, else JSON.
func (o *outputOptions) print(s streams, r result) error {
	format := o.format
	switch {
	case !o.forPeople():
	case r.text != nil:
		return r.text(s.out)
	case r.columns != nil:
		format = "table"
	}
	doc, err := jsontext.Marshal(r.value)
	if err != nil {
		return err
	}
	switch format {
	case "table", "tsv":
		return printTable(s.out, doc, r.columns, format == "tsv")
	case "yaml":
		return printYAML(s.out, doc)
	}
	if o.jq != "" {
		return o.printFiltered(s.out, doc)
	}
	return printJSON(s.out, doc)
}

// printEvent writes r as one of many: JSON on one line, so that a reader can
// take a stream line by line.
func (o *outputOptions) printEvent(s streams, r result) error {
	if o.format != "json" || o.jq != "" {
		return o.print(s, r)
	}
	doc, err := jsontext.Marshal(r.value)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, doc); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = s.out.Write(line.Bytes())
	return err
}

// printLine prints r as one line of many without waiting for the others: JSON on
// one line, TSV, what --jq makes of it, or text, which a table is here too.
func (o *outputOptions) printLine(s streams, r result) error {
	if o.format == "table" {
		return r.text(s.out)
	}
	return o.printEvent(s, r)
}

func printJSON(w io.Writer, doc []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "  "); err != nil {
		return fmt.Errorf("print as JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func (o *outputOptions) printFiltered(w io.Writer, doc []byte) error {
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
			return failf(statusFailed, "--jq %q: %v", o.jq, err)
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
		if err := printJSON(w, doc); err != nil {
			return err
		}
	}
}

// printYAML writes doc as YAML with its members in the order they have.
func printYAML(w io.Writer, doc []byte) error {
	var node yaml.Node
	if err := yaml.Unmarshal(doc, &node); err != nil { // YAML 1.2 contains JSON
		return fmt.Errorf("print as YAML: %w", err)
	}
	blockStyle(&node)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return fmt.Errorf("print as YAML: %w", err)
	}
	return e.Close()
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
func printTable(w io.Writer, doc []byte, columns []column, tsv bool) error {
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
		t.columns = memberColumns(value)
	}
	var rows []json.RawMessage
	for _, element := range value.Array() { // a value that is no array is the only element
		rows = append(rows, json.RawMessage(element.Raw))
	}
	return t.begin(rows)
}

// memberColumns are the member names of all elements, in the order in which
// they first appear.
func memberColumns(array gjson.Result) []column {
	var columns []column
	seen := map[string]bool{}
	for _, element := range array.Array() {
		if !element.IsObject() {
			return []column{{"VALUE", "@this"}}
		}
		element.ForEach(func(name, _ gjson.Result) bool {
			if !seen[name.String()] {
				seen[name.String()] = true
				columns = append(columns, column{name.String(), gjson.Escape(name.String())})
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
		return v.Get("@ugly").Raw
	case gjson.Number:
		return v.Raw
	}
	return strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(v.String())
}
