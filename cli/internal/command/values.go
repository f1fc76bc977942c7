package command

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// Seconds is the value of a flag that is a duration: Go's "20s" and "1m30s",
// or a bare number of seconds as "az iot hub" takes it.
type Seconds time.Duration

// Set reads a duration; see Seconds.
func (d *Seconds) Set(text string) error {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		*d = Seconds(time.Duration(n) * time.Second)
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf("is not a duration such as 30s, 5m or 30 (seconds)")
	}
	*d = Seconds(v)
	return nil
}

// String leaves out the zero units that time.Duration prints: "10m", not "10m0s".
func (d *Seconds) String() string {
	text := time.Duration(*d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Texts is the value of a flag that is given once for each text. Those of a
// urfave.StringSliceFlag may not hold commas.
type Texts []string

// Set adds a text.
func (t *Texts) Set(text string) error { *t = append(*t, text); return nil }

// String returns nothing: there is no default to show.
func (t *Texts) String() string { return "" }

// MaxInput bounds what is read from a file or standard input for one flag. The
// largest thing a hub takes is a message of 256 KiB.
const MaxInput = 1 << 20

// ReadValue returns a value, named what in errors, that may be large or secret: "@FILE"
// stands for the content of a file and "-" for standard input, which, unlike
// a command line, other users of the machine cannot see.
func ReadValue(s output.Streams, what, value string) (string, error) {
	var r io.Reader
	switch file, isFile := strings.CutPrefix(value, "@"); {
	case value == "-":
		r = s.In
	case isFile:
		f, err := os.Open(file)
		if err != nil {
			return "", fail.Usagef("%s: %v", what, fail.PlainPathError(err))
		}
		defer f.Close()
		r = f
	default:
		return value, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, MaxInput+1))
	if err != nil {
		return "", fail.Errorf(fail.Failed, "%s: %v", what, fail.PlainPathError(err))
	}
	if len(b) > MaxInput {
		return "", fail.Usagef("%s: more than %d KiB", what, MaxInput>>10)
	}
	return strings.TrimSpace(string(b)), nil
}

// ReadJSON is ReadValue for a flag whose value is JSON, or the name of a file that
// is there.
func ReadJSON(s output.Streams, what, value string) (json.RawMessage, error) {
	if _, err := os.Stat(value); err == nil && !json.Valid([]byte(value)) && value != "-" {
		value = "@" + value // az takes files so
	}
	text, err := ReadValue(s, what, value)
	if err != nil {
		return nil, err
	}
	if err := checkJSON(text); err != nil {
		return nil, fail.Usagef("%s is not JSON: %v", what, err)
	}
	return json.RawMessage(text), nil
}

// checkJSON says where text stops being JSON.
func checkJSON(text string) error {
	if json.Valid([]byte(text)) {
		return nil
	}
	var v any
	err := json.Unmarshal([]byte(text), &v)
	if syntax, ok := err.(*json.SyntaxError); ok {
		return fmt.Errorf("%w at byte %d; text needs quotes of its own, as in '\"text\"'", syntax, syntax.Offset)
	}
	return err
}

// ReadObject is ReadJSON for a value that has to be an object.
func ReadObject(s output.Streams, what, value string) (json.RawMessage, error) {
	doc, err := ReadJSON(s, what, value)
	if err == nil && doc[0] != '{' {
		err = fail.Usagef("%s is JSON but not an object, such as {\"interval\": 60}", what)
	}
	return doc, err
}

// ShellQuote quotes text for a POSIX shell, where it is printed for people to type.
func ShellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// ShellWord is ShellQuote for a text that may need no quotes.
func ShellWord(text string) string {
	const plain = "-_./=+:,@%ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return ShellQuote(text)
}
