package bulk

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/sas"
	"github.com/iotdm/iotdm/twin"
)

// A csvColumn is a column of an import file. Sections of the twin have their
// columns too; see csvTable.column.
type csvColumn[E any] struct {
	name string
	get  func(*E) string
	set  func(*E, string) error
}

// A csvTable is the columns that a file may have.
type csvTable[E any] struct {
	columns  []csvColumn[E]    // in the order of an export
	id       string            // the one that there has to be
	aliases  map[string]string // of names, in lower case
	sections []string          // whose properties have columns of their own, such as tags.site
	unasked  []string          // which an export leaves out
	secret   []string          // which it leaves out unless keys are wanted
	tidy     func(*E)          // before it is written
}

// identityTable leaves out what only the hub writes of a twin: a table is for people.
var identityTable = csvTable[hubrest.BulkEntry]{
	columns: identityColumns, id: "id", aliases: map[string]string{"deviceid": "id"}, sections: []string{"tags", "desired", "reported"},
	unasked: []string{"importMode"}, secret: []string{"primaryKey", "secondaryKey"},
	tidy: func(e *hubrest.BulkEntry) { tidySections(&e.Tags, &e.Properties.Desired, &e.Properties.Reported) },
}

func tidySections(sections ...*json.RawMessage) {
	for _, section := range sections {
		doc, err := twin.StripReadOnly(*section)
		if err != nil || string(doc) == "{}" {
			doc = nil
		}
		*section = doc
	}
}

var identityColumns = []csvColumn[hubrest.BulkEntry]{
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
			return fmt.Errorf("iotEdge %q is neither true nor false", phrase.Clip(cell))
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

func textColumn[E any, T ~string](name string, field func(*E) *T) csvColumn[E] {
	return csvColumn[E]{name,
		func(e *E) string { return string(*field(e)) },
		func(e *E, cell string) error { *field(e) = T(cell); return nil },
	}
}

func jsonColumn[E any](name string, field func(*E) *json.RawMessage) csvColumn[E] {
	return csvColumn[E]{name,
		func(e *E) string { return string(*field(e)) },
		func(e *E, cell string) error {
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
type csvReader[E any] struct {
	csv     *csv.Reader
	limit   *recordLimit
	columns []csvColumn[E]
	settle  func(*E) error
}

func newCSVReader[E any](r io.Reader, form *fileForm[E]) (*csvReader[E], error) {
	limit := &recordLimit{r: r, left: maxLineBytes}
	c := &csvReader[E]{csv: csv.NewReader(limit), limit: limit, settle: form.settle}
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
		column, err := form.csv.column(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		for _, other := range c.columns {
			if other.name == column.name {
				return nil, fmt.Errorf("has two columns %q", column.name)
			}
		}
		c.columns = append(c.columns, column)
		hasID = hasID || c.columns[i].name == form.csv.id
	}
	if !hasID {
		return nil, fmt.Errorf("has no column %q in its first line, which names the columns", form.csv.id)
	}
	return c, nil
}

// column finds a column by its name, or makes that of one property: "tags.site",
// "desired.interval" or "reported.led.color".
func (t *csvTable[E]) column(name string) (csvColumn[E], error) {
	var names []string
	for _, c := range t.columns {
		if strings.EqualFold(c.name, name) || t.aliases[strings.ToLower(name)] == c.name {
			return c, nil
		}
		names = append(names, c.name)
	}
	for _, section := range t.columns {
		path, found := strings.CutPrefix(strings.TrimPrefix(name, "properties."), section.name+".")
		if !found || path == "" || !slices.Contains(t.sections, section.name) {
			continue
		}
		return csvColumn[E]{name: section.name + "." + path, set: func(e *E, cell string) error {
			doc, err := WithMember([]byte(section.get(e)), path, cell)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return section.set(e, string(doc))
		}}, nil
	}
	return csvColumn[E]{}, fmt.Errorf("has an unknown column %q%s", phrase.Clip(name), phrase.DidYouMean(name, names))
}

func (c *csvReader[E]) next() (lineOf[E], error) {
	c.limit.left = maxLineBytes
	record, err := c.csv.Read()
	if e, ok := errors.AsType[*csv.ParseError](err); ok && !errors.Is(err, errLineTooLong) {
		return lineOf[E]{number: e.StartLine, err: plainCSVError(err)}, nil
	}
	if err != nil {
		return lineOf[E]{}, plainCSVError(err)
	}
	l := lineOf[E]{}
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
		l.err = c.settle(&l.entry)
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

// A csvWriter writes an export as CSV.
type csvWriter[E any] struct {
	csv     *csv.Writer
	columns []csvColumn[E]
	tidy    func(*E)
	record  []string
}

// newCSVWriter writes the names of the columns. Keys have columns only if they
// are wanted.
func newCSVWriter[E any](w io.Writer, t csvTable[E], keys bool) (*csvWriter[E], error) {
	c := &csvWriter[E]{csv: csv.NewWriter(w), tidy: t.tidy}
	for _, column := range t.columns {
		if slices.Contains(t.unasked, column.name) || !keys && slices.Contains(t.secret, column.name) {
			continue
		}
		c.columns = append(c.columns, column)
		c.record = append(c.record, column.name)
	}
	return c, c.csv.Write(c.record)
}

func (c *csvWriter[E]) write(e *E) error {
	c.tidy(e)
	for i, column := range c.columns {
		c.record[i] = column.get(e)
	}
	return c.csv.Write(c.record)
}

func (c *csvWriter[E]) Flush() error {
	c.csv.Flush()
	return c.csv.Error()
}
