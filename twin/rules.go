package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// The limits of the article "Understand and use device twins in IoT Hub".
const (
	maxDepth  = 10                // objects and arrays below the section
	maxKey    = 1024              // bytes
	maxString = 4096              // bytes
	minInt    = -4503599627370496 // -2^52
	maxInt    = 4503599627370495  // 2^52 - 1
)

// The article sets no limits for these; ours keep what one peer can store or cost in bounds.
const (
	maxNumber    = 128 // characters of a number's text
	maxBareDepth = 64  // of documents that are merged or compared
	maxText      = 8   // JSON text of a section, as a multiple of its size limit
)

// A Reason is why a change was refused.
type Reason int

// The reasons, with the error code of IoT Hub that fits each.
const (
	Malformed Reason = iota + 1 // not JSON: 400004, or 400 IotHubFormatError
	Invalid                     // a name, a value, a depth that is not allowed: 400004 ArgumentInvalid
	TooLarge                    // the section would exceed its size: 403100
)

// An Error says why a change to a twin was refused.
type Error struct {
	Reason  Reason
	Path    string // of the property below the section, such as a.b[0].c; empty if it is none in particular
	Message string // in the manner of the service; it names Path
}

// Error returns Message.
func (e *Error) Error() string { return e.Message }

// read returns a patch without white space and repeated members, checked by the rules of kind. Kind
// 0 has no rules except that the document is an object.
func read(kind Kind, patch []byte) ([]byte, error) {
	return checker{strict: kind != 0}.read(kind, patch)
}

// readWhole is read for what is to replace a section: there is nothing that a null could remove.
func readWhole(kind Kind, doc []byte) ([]byte, error) {
	return checker{strict: true, whole: true}.read(kind, doc)
}

func (c checker) read(kind Kind, input []byte) ([]byte, error) {
	b, err := compact(input)
	if err != nil {
		return nil, err
	}
	if kind == Desired {
		b = stripReadOnly(b)
	}
	c.left = math.MaxInt
	if c.strict {
		// No section has more: each name counts a byte at least.
		_, c.left = kind.limit()
	}
	if e := c.object(b, 0, c.whole); e != nil {
		if e == errMembers {
			return nil, tooLarge(kind)
		}
		e.finish()
		return nil, e
	}
	if c.repeated {
		b = dropRepeated(make([]byte, 0, len(b)), b)
	}
	return b, nil
}

// compact returns input without white space if it is a JSON object.
func compact(input []byte) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(len(input))
	if err := json.Compact(&buf, input); err != nil {
		return nil, &Error{Reason: Malformed, Message: "The document is not valid JSON: " + err.Error()}
	}
	b := buf.Bytes()
	if !utf8.Valid(b) {
		return nil, &Error{Reason: Malformed, Message: "The document is not valid JSON: its text is not UTF-8"}
	}
	if !isObject(b) {
		return nil, &Error{Reason: Invalid, Message: "The document is not a JSON object."}
	}
	return b, nil
}

// A checker walks a document that is JSON and applies the rules to it.
type checker struct {
	strict   bool     // all rules, not only the depth
	whole    bool     // no patch: null removes nothing
	repeated bool     // an object has two members with the same name
	left     int      // how many more members it may have
	names    [][]byte // of the objects on the way to the current one, innermost last
}

// object checks an object. In one that stays as it is, null is no value.
func (c *checker) object(b []byte, depth int, whole bool) *Error {
	base := len(c.names)
	members := jsontext.Walk(b)
	for members.Member() {
		if c.left--; c.left < 0 {
			return errMembers
		}
		name := jsontext.Unquote(members.Key())
		c.names = append(c.names, name)
		if c.strict {
			if e := checkName(name, !whole && isNull(members.Value())); e != nil {
				return e
			}
		}
		if e := c.value(name, members.Value(), depth+1, whole); e != nil {
			if e != errMembers {
				e.under(clip(name))
			}
			return e
		}
	}
	c.repeated = c.repeated || anyRepeated(c.names[base:])
	c.names = c.names[:base]
	return nil
}

func (c *checker) array(name, b []byte, depth int) *Error {
	elements := jsontext.Walk(b)
	for i := 0; elements.Element(); i++ {
		if e := c.value(name, elements.Value(), depth+1, true); e != nil {
			if e != errMembers {
				e.under("[" + strconv.Itoa(i) + "]")
			}
			return e
		}
	}
	return nil
}

// value checks the value of the member called name, or an element of its array, which is no patch.
func (c *checker) value(name, b []byte, depth int, whole bool) *Error {
	switch b[0] {
	case '{', '[':
		limit := maxBareDepth
		if c.strict {
			limit = maxDepth
		}
		if depth > limit {
			return refuse(name, "Property or Tag should be nested at most %d levels deep.", limit)
		}
		if b[0] == '{' {
			return c.object(b, depth, whole)
		}
		return c.array(name, b, depth)
	}
	if !c.strict {
		return nil
	}
	switch b[0] {
	case 'n':
		if whole { // elsewhere it removes
			return refuse(name, "Value of Property or Tag cannot be null.")
		}
	case '"':
		if len(b)-2 > maxString && len(jsontext.Unquote(b)) > maxString {
			return refuse(name, "Property or Tag value should be maximum %d bytes.", maxString)
		}
	case 't', 'f':
	default:
		return checkNumber(name, b)
	}
	return nil
}

// checkName applies the rules for names. The path of its error has the name already.
//
// "#" is not in the article's list, but the service refuses it in these words (Azure/azure-iot-sdk-java
// issue 243). Hubs of ours that did not may have stored it: so a patch may remove such a name.
func checkName(name []byte, removed bool) *Error {
	if len(name) == 0 || len(name) > maxKey {
		e := refuse(name, "Property or Tag name should be 1 to %d bytes.", maxKey)
		e.Path = clip(name)
		return e
	}
	for i, ch := range name {
		c1 := ch == 0xC2 && i+1 < len(name) && name[i+1] < 0xA0
		if ch <= ' ' || ch == 0x7F || ch == '.' || ch == '$' || c1 || ch == '#' && !removed {
			e := refuse(name, "Property or Tag name has invalid characters.")
			e.Message += ". Must not contain Control Characters, '.', '$', '#', or ' '."
			e.Path = clip(name)
			return e
		}
	}
	return nil
}

func checkNumber(name, b []byte) *Error {
	if len(b) > maxNumber {
		return refuse(name, "Property or Tag value should be a number of maximum %d characters.", maxNumber)
	}
	if bytes.ContainsAny(b, ".eE") {
		if _, err := strconv.ParseFloat(string(b), 64); err != nil {
			return refuse(name, "Property or Tag value should be a number of double precision.")
		}
		return nil
	}
	if n, err := strconv.ParseInt(string(b), 10, 64); err != nil || n < minInt || n > maxInt {
		return refuse(name, "Property or Tag value should be an integer from %d to %d.", int64(minInt), int64(maxInt))
	}
	return nil
}

// errorIn stands before a name in the wording of IoT Hub, as recorded: "Value of Property or Tag cannot be
// null. Error in Property/Tag b" (Azure/azure-iot-cli-extension issue 693). The service has been seen to
// leave out its second blank, too.
const errorIn = " Error in Property/Tag "

// refuse returns an error in the wording of IoT Hub.
func refuse(name []byte, format string, args ...any) *Error {
	return &Error{Reason: Invalid, Message: fmt.Sprintf(format, args...) + errorIn + clip(name)}
}

// under puts the path of e below a member or element.
func (e *Error) under(parent string) {
	if e.Path != "" && e.Path[0] != '[' {
		parent += "."
	}
	e.Path = parent + e.Path
}

// finish adds the path to the message, which names only the last member of it.
func (e *Error) finish() {
	_, named, _ := strings.Cut(e.Message, errorIn)
	if rest, ok := strings.CutPrefix(named, e.Path); !ok || rest != "" && !strings.HasPrefix(rest, ". ") {
		e.Message += " (" + e.Path + ")"
	}
}

// clip returns a name as it is shown: short enough, and visible if there is none.
func clip(name []byte) string {
	const most = 64
	if len(name) == 0 {
		return `""`
	}
	if len(name) <= most {
		return string(name)
	}
	end := most
	for !utf8.RuneStart(name[end]) {
		end--
	}
	return string(name[:end]) + "..."
}

func anyRepeated(names [][]byte) bool {
	if len(names) < indexFrom {
		for i, a := range names {
			for _, b := range names[:i] {
				if bytes.Equal(a, b) {
					return true
				}
			}
		}
		return false
	}
	seen := make(map[string]struct{}, len(names))
	for _, name := range names {
		seen[string(name)] = struct{}{}
	}
	return len(seen) < len(names)
}

// dropRepeated appends value with one member of each name: the last one, in the place of the first.
func dropRepeated(dst, value []byte) []byte {
	switch {
	case isObject(value):
		last := make(map[string][]byte)
		for c := jsontext.Walk(value); c.Member(); {
			last[string(jsontext.Unquote(c.Key()))] = c.Value()
		}
		dst = append(dst, '{')
		for c := jsontext.Walk(value); c.Member(); {
			name := jsontext.Unquote(c.Key())
			if v, ok := last[string(name)]; ok {
				dst = dropRepeated(appendKey(dst, c.Key()), v)
				delete(last, string(name))
			}
		}
		return append(dst, '}')
	case isArray(value):
		dst = append(dst, '[')
		for c := jsontext.Walk(value); c.Element(); {
			if dst[len(dst)-1] != '[' {
				dst = append(dst, ',')
			}
			dst = dropRepeated(dst, c.Value())
		}
		return append(dst, ']')
	}
	return append(dst, value...)
}

// checkSize refuses a change that makes a section larger than its limit. One that is already too
// large may still shrink.
func checkSize(kind Kind, before, after []byte) error {
	_, limit := kind.limit()
	// A number of one digit and its comma are two bytes of text that count as eight, the most there is.
	if len(after) <= limit/4 {
		return nil
	}
	if n := size(after); n > limit && n > size(before) || len(after) > maxText*limit && len(after) > len(before) {
		return tooLarge(kind)
	}
	return nil
}

// limit is the size limit of a section, and the section's name in errors.
func (k Kind) limit() (what string, bytes int) {
	switch k {
	case Desired:
		return "Properties.Desired", 32 << 10
	case Tags:
		return "Tags", 8 << 10
	default:
		return "Properties.Reported", 32 << 10
	}
}

func tooLarge(kind Kind) *Error {
	what, limit := kind.limit()
	return &Error{Reason: TooLarge, Message: fmt.Sprintf("'%s' size should be less than %d bytes.", what, limit)}
}

// errMembers is not for callers: a change has more members than a section can.
var errMembers = new(Error)

// size counts as the article says: names and strings by their bytes without control characters, 8
// for a number, 4 for true and false.
func size(value []byte) int {
	n := 0
	switch {
	case isObject(value):
		for c := jsontext.Walk(value); c.Member(); {
			n += textSize(c.Key()) + size(c.Value())
		}
	case isArray(value):
		for c := jsontext.Walk(value); c.Element(); {
			n += size(c.Value())
		}
	case len(value) == 0 || isNull(value):
	case value[0] == '"':
		n = textSize(value)
	case value[0] == 't' || value[0] == 'f':
		n = 4
	default:
		n = 8
	}
	return n
}

func textSize(raw []byte) int {
	n := 0
	for _, r := range string(jsontext.Unquote(raw)) {
		if !unicode.IsControl(r) {
			n += utf8.RuneLen(r)
		}
	}
	return n
}
