package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// seconds is the value of a flag that is a duration: Go's "20s" and "1m30s",
// or a bare number of seconds as "az iot hub" takes it.
type seconds time.Duration

func (d *seconds) Set(text string) error {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		*d = seconds(time.Duration(n) * time.Second)
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf("is not a duration such as 30s, 5m or 30 (seconds)")
	}
	*d = seconds(v)
	return nil
}

// String leaves out the zero units that time.Duration prints: "10m", not "10m0s".
func (d *seconds) String() string {
	text := time.Duration(*d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// texts is the value of a flag that is given once for each text. Those of a
// urfave.StringSliceFlag may not hold commas.
type texts []string

func (t *texts) Set(text string) error { *t = append(*t, text); return nil }

func (t *texts) String() string { return "" }

// maxInput bounds what is read from a file or standard input for one flag. The
// largest thing a hub takes is a message of 256 KiB.
const maxInput = 1 << 20

// readValue returns a value, named what in errors, that may be large or secret: "@FILE"
// stands for the content of a file and "-" for standard input, which, unlike
// a command line, other users of the machine cannot see.
func readValue(s streams, what, value string) (string, error) {
	var r io.Reader
	switch file, isFile := strings.CutPrefix(value, "@"); {
	case value == "-":
		r = s.in
	case isFile:
		f, err := os.Open(file)
		if err != nil {
			return "", usagef("%s: %v", what, plainPathError(err))
		}
		defer f.Close()
		r = f
	default:
		return value, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return "", failf(statusFailed, "%s: %v", what, plainPathError(err))
	}
	if len(b) > maxInput {
		return "", usagef("%s: more than %d KiB", what, maxInput>>10)
	}
	return strings.TrimSpace(string(b)), nil
}

// readJSON is readValue for a flag whose value is JSON.
func readJSON(s streams, what, value string) (json.RawMessage, error) {
	text, err := readValue(s, what, value)
	if err != nil {
		return nil, err
	}
	if err := checkJSON(text); err != nil {
		return nil, usagef("%s is not JSON: %v", what, err)
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

// readObject is readJSON for a value that has to be an object.
func readObject(s streams, what, value string) (json.RawMessage, error) {
	doc, err := readJSON(s, what, value)
	if err == nil && doc[0] != '{' {
		err = usagef("%s is JSON but not an object, such as {\"interval\": 60}", what)
	}
	return doc, err
}
