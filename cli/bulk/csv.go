package bulk

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/sas"
	"github.com/iotdm/iotdm/twin"
)

// A csvColumn is a column of an import file. Sections of the twin have their
// columns too; see csvReader.column.
type csvColumn struct {
	name string
	get  func(*hubrest.BulkEntry) string
	set  func(*hubrest.BulkEntry, string) error
}

// csvColumns are in the order of an export.
var csvColumns = []csvColumn{
	textColumn("id", func(e *hubrest.BulkEntry) *string { return &e.ID }),
	textColumn("moduleId", func(e *hubrest.BulkEntry) *string { return &e.ModuleID }),
	textColumn("managedBy", func(e *hubrest.BulkEntry) *string { return &e.ManagedBy }),
	textColumn("eTag", func(e *hubrest.BulkEntry) *string { return &e.ETag }),
	textColumn("importMode", func(e *hubrest.BulkEntry) *hubrest.ImportMode { return &e.ImportMode }),
	textColumn("status", func(e *hubrest.BulkEntry) *hubrest.Status { return &e.Status }),
	textColumn("statusReason", func(e *hubrest.BulkEntry) *string { return &e.StatusReason }),
	textColumn("authentication", func(e *hubrest.BulkEntry) *hubrest.AuthenticationType { return &e.Authentication.Type }),
	textColumn("primaryKey", func(e *hubrest.BulkEntry) *sas.Key { return &e.Authentication.SymmetricKey.PrimaryKey }),
	textColumn("secondaryKey", func(e *hubrest.BulkEntry) *sas.Key { return &e.Authentication.SymmetricKey.SecondaryKey }),
	textColumn("primaryThumbprint", func(e *hubrest.BulkEntry) *string { return &e.Authentication.X509Thumbprint.PrimaryThumbprint }),
	textColumn("secondaryThumbprint", func(e *hubrest.BulkEntry) *string { return &e.Authentication.X509Thumbprint.SecondaryThumbprint }),
	{"iotEdge", func(e *hubrest.BulkEntry) string {
		if e.Capabilities == nil {
			return ""
		}
		return fmt.Sprint(e.Capabilities.IoTEdge)
	}, func(e *hubrest.BulkEntry, cell string) error {
		yes := strings.EqualFold(cell, "true")
		if !yes && !strings.EqualFold(cell, "false") {
			return fmt.Errorf("iotEdge %q is neither true nor false", output.Clip(cell))
		}
		e.Capabilities = &hubrest.Capabilities{IoTEdge: yes}
		return nil
	}},
	textColumn("deviceScope", func(e *hubrest.BulkEntry) *string { return &e.DeviceScope }),
	{"parentScopes", func(e *hubrest.BulkEntry) string { return strings.Join(e.ParentScopes, " ") },
		func(e *hubrest.BulkEntry, cell string) error { e.ParentScopes = strings.Fields(cell); return nil }},
	textColumn("twinETag", func(e *hubrest.BulkEntry) *string { return &e.TwinETag }),
	jsonColumn("tags", func(e *hubrest.BulkEntry) *json.RawMessage { return &e.Tags }),
	jsonColumn("desired", func(e *hubrest.BulkEntry) *json.RawMessage { return &e.Properties.Desired }),
	jsonColumn("reported", func(e *hubrest.BulkEntry) *json.RawMessage { return &e.Properties.Reported }),
}

func textColumn[T ~string](name string, field func(*hubrest.BulkEntry) *T) csvColumn {
	return csvColumn{name,
		func(e *hubrest.BulkEntry) string { return string(*field(e)) },
		func(e *hubrest.BulkEntry, cell string) error { *field(e) = T(cell); return nil },
	}
}

func jsonColumn(name string, field func(*hubrest.BulkEntry) *json.RawMessage) csvColumn {
	return csvColumn{name,
		func(e *hubrest.BulkEntry) string { return string(*field(e)) },
		func(e *hubrest.BulkEntry, cell string) error {
			if !json.Valid([]byte(cell)) || strings.TrimSpace(cell)[0] != '{' {
				return fmt.Errorf("%s is not a JSON object; a single property has a column of its own, such as %s.site", name, name)
			}
			*field(e) = json.RawMessage(cell)
			return nil
		},
	}
}

// A csvReader reads an import file whose first record names the columns. An
// empty cell says nothing of its member.
type csvReader struct {
	csv     *csv.Reader
	limit   *recordLimit
	columns []csvColumn
}

func newCSVReader(r io.Reader) (*csvReader, error) {
	limit := &recordLimit{r: r, left: maxLineBytes}
	c := &csvReader{csv: csv.NewReader(limit), limit: limit}
	c.csv.FieldsPerRecord = -1 // next says it better
	header, err := c.csv.Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("is empty")
	case err != nil:
		return nil, plainCSVError(err)
	}
	hasID := false
	for i, name := range header {
		column, err := csvColumnNamed(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		for _, other := range c.columns {
			if other.name == column.name {
				return nil, fmt.Errorf("has two columns %q", column.name)
			}
		}
		c.columns = append(c.columns, column)
		hasID = hasID || c.columns[i].name == "id"
	}
	if !hasID {
		return nil, errors.New(`has no column "id" in its first line, which names the columns`)
	}
	return c, nil
}

// csvColumnNamed finds a column by its name, or makes that of one property:
// "tags.site", "desired.interval" or "reported.led.color".
func csvColumnNamed(name string) (csvColumn, error) {
	var names []string
	for _, c := range csvColumns {
		if strings.EqualFold(c.name, name) || c.name == "id" && strings.EqualFold(name, "deviceId") {
			return c, nil
		}
		names = append(names, c.name)
	}
	for _, section := range csvColumns[len(csvColumns)-3:] {
		path, found := strings.CutPrefix(strings.TrimPrefix(name, "properties."), section.name+".")
		if !found || path == "" {
			continue
		}
		return csvColumn{name: section.name + "." + path, set: func(e *hubrest.BulkEntry, cell string) error {
			doc, err := WithMember([]byte(section.get(e)), path, cell)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return section.set(e, string(doc))
		}}, nil
	}
	return csvColumn{}, fmt.Errorf("has an unknown column %q%s", output.Clip(name), command.DidYouMean(name, names))
}

func (c *csvReader) next() (Line, error) {
	c.limit.left = maxLineBytes
	record, err := c.csv.Read()
	if e, ok := errors.AsType[*csv.ParseError](err); ok && !errors.Is(err, errLineTooLong) {
		return Line{number: e.StartLine, err: plainCSVError(err)}, nil
	}
	if err != nil {
		return Line{}, plainCSVError(err)
	}
	l := Line{}
	l.number, _ = c.csv.FieldPos(0)
	if len(record) > len(c.columns) {
		l.err = fmt.Errorf("has %d cells, but there are %d columns", len(record), len(c.columns))
	}
	for i, cell := range record[:min(len(record), len(c.columns))] {
		if !utf8.ValidString(cell) {
			l.err = errNotUTF8
		}
		if cell = strings.TrimSpace(cell); cell != "" && l.err == nil {
			l.err = c.columns[i].set(&l.entry, cell)
		}
	}
	if l.err == nil {
		l.err = settle(&l.entry)
	}
	return l, nil
}

func plainCSVError(err error) error {
	if errors.Is(err, errLineTooLong) {
		return fmt.Errorf("a record is %w; is there a quote without its partner?", errLineTooLong)
	}
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return fmt.Errorf("is not CSV: %w at line %d, column %d", e.Err, e.Line, e.Column)
	}
	return err
}

// A recordLimit ends a record that would take too much memory.
type recordLimit struct {
	r    io.Reader
	left int
}

func (l *recordLimit) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLineTooLong
	}
	n, err := l.r.Read(p)
	l.left -= n
	return n, err
}

// maxPath bounds how deep a member may lie; a twin is 10 deep.
const maxPath = 20

// WithMember returns the object doc with the member at path, such as led.color,
// whose objects are made where they are missing. A value that is JSON, such as 60,
// true or "60", stays so, and all else is text.
func WithMember(doc []byte, path, value string) (json.RawMessage, error) {
	return withMember(doc, strings.Split(path, "."), cellValue(value))
}

// cellValue is JSON for a cell: what is JSON already, such as 60, true or
// "60", stays so, and all else is text.
func cellValue(cell string) json.RawMessage {
	if json.Valid([]byte(cell)) {
		return json.RawMessage(cell)
	}
	text, _ := jsontext.Marshal(cell) // a string
	return text
}

func withMember(doc []byte, path []string, value json.RawMessage) (json.RawMessage, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("lies deeper than %d members", maxPath)
	}
	members := map[string]json.RawMessage{}
	if doc = bytes.TrimSpace(doc); len(doc) > 0 {
		if err := json.Unmarshal(doc, &members); err != nil {
			return nil, fmt.Errorf("there is a value where an object was to be: %s", output.Clip(string(doc)))
		}
	}
	if members == nil { // doc was null
		members = map[string]json.RawMessage{}
	}
	name := path[0]
	if name == "" {
		return nil, errors.New("has an empty name in its path")
	}
	if len(path) > 1 {
		inner, err := withMember(members[name], path[1:], value)
		if err != nil {
			return nil, err
		}
		value = inner
	}
	members[name] = value
	return jsontext.Marshal(members)
}

// A csvWriter writes an export as CSV.
type csvWriter struct {
	csv     *csv.Writer
	columns []csvColumn
	record  []string
}

// newCSVWriter writes the names of the columns. Keys have columns only if they
// are wanted, importMode has none.
func newCSVWriter(w io.Writer, keys bool) (*csvWriter, error) {
	c := &csvWriter{csv: csv.NewWriter(w)}
	for _, column := range csvColumns {
		if column.name == "importMode" || !keys && (column.name == "primaryKey" || column.name == "secondaryKey") {
			continue
		}
		c.columns = append(c.columns, column)
		c.record = append(c.record, column.name)
	}
	return c, c.csv.Write(c.record)
}

// write leaves out what only the hub writes of a twin: a table is for people.
func (c *csvWriter) write(e *hubrest.BulkEntry) error {
	for _, section := range []*json.RawMessage{&e.Tags, &e.Properties.Desired, &e.Properties.Reported} {
		doc, err := twin.StripReadOnly(*section)
		if err != nil || string(doc) == "{}" {
			doc = nil
		}
		*section = doc
	}
	for i, column := range c.columns {
		c.record[i] = column.get(e)
	}
	return c.csv.Write(c.record)
}

func (c *csvWriter) Flush() error {
	c.csv.Flush()
	return c.csv.Error()
}
