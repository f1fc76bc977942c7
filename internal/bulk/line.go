package bulk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/sas"
	"github.com/iotdm/iotdm/twin"
)

// A lineOf is a line of an import file, or a record of CSV.
type lineOf[E any] struct {
	number int // of its first line in the file, from 1
	entry  E
	err    error // why it can't be applied; of entry only the ids may be known then
}

// A readerOf reads an import file. Next returns io.EOF at its end; another
// error means that nothing more can be read.
type readerOf[E any] interface {
	next() (lineOf[E], error)
}

// A Line is one about a device or module, and a Reader reads those.
type (
	Line   = lineOf[hubrest.BulkEntry]
	Reader = readerOf[hubrest.BulkEntry]
)

// A fileForm is how a file has entries.
type fileForm[E any] struct {
	csv    csvTable[E]
	parse  func(text []byte) (E, error) // of a line of JSON; checks it too
	settle func(*E) error               // checks a record of CSV
}

// identities is the form of the import and export jobs of IoT Hub.
var identities = fileForm[hubrest.BulkEntry]{csv: identityTable, parse: parseEntry, settle: settle}

// maxLineBytes bounds a line. A twin whose sections are full, with the metadata
// of each property, is far less.
const maxLineBytes = 4 << 20

var errNotUTF8 = errors.New("is not in UTF-8")

var errLineTooLong = fmt.Errorf("longer than %d MiB", maxLineBytes>>20)

// byteOrderMark is what some editors put in front of UTF-8.
var byteOrderMark = []byte("\xef\xbb\xbf")

// NewReader returns the reader of a format: "ndjson" or "csv", or "" for
// what the first character looks like.
func NewReader(r io.Reader, format string) (Reader, error) { return identities.newReader(r, format) }

func (f *fileForm[E]) newReader(r io.Reader, format string) (readerOf[E], error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if head, _ := b.Peek(len(byteOrderMark)); bytes.Equal(head, byteOrderMark) {
		b.Discard(len(byteOrderMark))
	}
	if format == "" {
		head, _ := b.Peek(4096)
		switch head = bytes.TrimLeft(head, " \t\r\n"); {
		case bytes.HasPrefix(head, []byte("[")):
			return nil, errors.New(`begins with "[", but each line has to be an object; "jq -c '.[]'" makes lines of an array`)
		case len(head) == 0, head[0] == '{':
			format = "ndjson"
		default:
			format = "csv"
		}
	}
	if format == "csv" {
		return newCSVReader(b, f)
	}
	return &ndjsonReader[E]{r: b, parse: f.parse}, nil
}

// An ndjsonReader reads lines of JSON, such as a devices.txt that IoT Hub has
// exported.
type ndjsonReader[E any] struct {
	r     *bufio.Reader
	parse func([]byte) (E, error)
	line  int
	buf   []byte
}

func (n *ndjsonReader[E]) next() (lineOf[E], error) {
	for {
		text, err := n.readLine()
		if err != nil && !errors.Is(err, errLineTooLong) {
			return lineOf[E]{}, err
		}
		l := lineOf[E]{number: n.line, err: err}
		if err == nil {
			if text = bytes.TrimSpace(text); len(text) == 0 {
				continue
			}
			l.entry, l.err = n.parse(text)
		}
		return l, nil
	}
}

// readLine returns the next line, which is valid until it is called again. A
// line that is too long is skipped.
func (n *ndjsonReader[E]) readLine() ([]byte, error) {
	n.line++
	n.buf = n.buf[:0]
	tooLong := false
	for {
		part, err := n.r.ReadSlice('\n')
		if len(n.buf)+len(part) > maxLineBytes {
			tooLong = true
		} else {
			n.buf = append(n.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || len(n.buf) == 0 && !tooLong):
			return nil, err
		case tooLong:
			return nil, errLineTooLong
		}
		return n.buf, nil
	}
}

// parseEntry reads and checks one object. What it doesn't know it ignores,
// as the service does.
func parseEntry(text []byte) (hubrest.BulkEntry, error) {
	if !utf8.Valid(text) {
		return hubrest.BulkEntry{}, errNotUTF8
	}
	var doc struct {
		hubrest.BulkEntry
		DeviceID string `json:"deviceId"` // as identities have it
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return hubrest.BulkEntry{}, plainEntryError(err)
	}
	if doc.ID == "" {
		doc.ID = doc.DeviceID
	}
	return doc.BulkEntry, settle(&doc.BulkEntry)
}

// plainEntryError words an error of package json about a line, without the names of Go types.
func plainEntryError(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("is not JSON: %v at byte %d", e, e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return fmt.Errorf("is a JSON %s, not an object", e.Value)
		}
		return fmt.Errorf("%s must not be a JSON %s", strings.TrimPrefix(strings.TrimPrefix(e.Field, "BulkEntry."), "Enrollment."), e.Value)
	}
	return err
}

// importModes are the modes by their names in lower case, which files of
// other tools don't agree on.
var importModes = func() map[string]hubrest.ImportMode {
	modes := make(map[string]hubrest.ImportMode)
	for _, m := range []hubrest.ImportMode{
		hubrest.ImportCreate, hubrest.ImportUpdate, hubrest.ImportUpdateIfMatchETag, hubrest.ImportCreateOrUpdate,
		hubrest.ImportCreateOrUpdateIfMatchETag, hubrest.ImportDelete, hubrest.ImportDeleteIfMatchETag,
		hubrest.ImportUpdateTwin, hubrest.ImportUpdateTwinIfMatchETag,
	} {
		modes[strings.ToLower(string(m))] = m
	}
	return modes
}()

// ModeNamed finds a mode by its name in any case.
func ModeNamed(name string) (hubrest.ImportMode, bool) {
	m, known := importModes[strings.ToLower(name)]
	return m, known
}

// idPattern is what IoT Hub takes for an id of a device or module.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}$`)

// settle checks what can be checked without the hub, and puts names
// into the spelling that the hub has.
func settle(e *hubrest.BulkEntry) error {
	switch {
	case e.ID == "":
		return errors.New("has no id")
	case !idPattern.MatchString(e.ID):
		return fmt.Errorf("id %q is not 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ '", phrase.Clip(e.ID))
	case e.ModuleID != "" && !idPattern.MatchString(e.ModuleID):
		return fmt.Errorf("moduleId %q is not 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ '", phrase.Clip(e.ModuleID))
	}
	if e.ImportMode != "" {
		mode, known := ModeNamed(string(e.ImportMode))
		if !known {
			return fmt.Errorf("importMode %q is none of IoT Hub's", phrase.Clip(string(e.ImportMode)))
		}
		e.ImportMode = mode
	}
	switch e.Status = hubrest.Status(strings.ToLower(string(e.Status))); e.Status {
	case "", hubrest.Enabled, hubrest.Disabled:
	default:
		return fmt.Errorf("status %q is neither enabled nor disabled", phrase.Clip(string(e.Status)))
	}
	e.ETag, e.TwinETag = strings.Trim(e.ETag, `"`), strings.Trim(e.TwinETag, `"`)
	if err := settleAuthentication(&e.Authentication); err != nil {
		return err
	}
	for _, section := range []struct {
		name string
		doc  *json.RawMessage
	}{{"tags", &e.Tags}, {"properties.desired", &e.Properties.Desired}, {"properties.reported", &e.Properties.Reported}} {
		if len(*section.doc) == 0 || string(*section.doc) == "null" {
			*section.doc = nil
			continue
		}
		doc, err := twin.StripReadOnly(*section.doc) // an exported twin has $metadata and $version
		if err != nil {
			return fmt.Errorf("%s is not a JSON object", section.name)
		}
		*section.doc = doc
		if string(doc) == "{}" {
			*section.doc = nil
		}
	}
	return nil
}

// authenticationTypes are the types by their names in lower case.
var authenticationTypes = map[string]hubrest.AuthenticationType{
	"sas": hubrest.AuthSAS, "selfsigned": hubrest.AuthSelfSigned,
	"certificateauthority": hubrest.AuthCertificateAuthority, "none": hubrest.AuthNone,
}

func settleAuthentication(a *hubrest.Authentication) error {
	if a.Type != "" {
		t, known := authenticationTypes[strings.ToLower(string(a.Type))]
		if !known {
			return fmt.Errorf("authentication type %q is none of sas, selfSigned, certificateAuthority, none", phrase.Clip(string(a.Type)))
		}
		a.Type = t
	}
	for _, k := range []struct {
		name string
		key  sas.Key
	}{{"primaryKey", a.SymmetricKey.PrimaryKey}, {"secondaryKey", a.SymmetricKey.SecondaryKey}} {
		if k.key == "" {
			continue
		}
		if err := k.key.Validate(); err != nil {
			return fmt.Errorf("%s is %v", k.name, err)
		}
	}
	if (a.SymmetricKey.PrimaryKey == "") != (a.SymmetricKey.SecondaryKey == "") {
		return errors.New("primaryKey and secondaryKey go together")
	}
	return nil
}
