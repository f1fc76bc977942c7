package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// An update is refused, or it is one whose parts can be used as they are: in a
// command, as the name of a file, and as a bound. As JSON in a JSON string it is
// the same.
func FuzzParseUpdate(f *testing.F) {
	sum := strings.Repeat("0123456789abcdef", 4)
	for _, text := range []string{
		`{"fwVersion":"1.0.1","fwPackageURI":"https://example.com/a/fw-1.0.1.bin?sig=x","fwPackageCheckValue":"` + sum + `","fwSize":7}`,
		`{"version":"2","url":"https://example.com/..","sha256":"SHA256:` + strings.ToUpper(sum) + `","size":1e3}`,
		`{"FWVERSION":"-rf","fwPackageURI":"http://127.0.0.1/x","fwPackageCheckValue":"` + sum + `"}`,
		`{"fwVersion":"1","fwPackageURI":"https://example.com/a%2f..%2fb","fwPackageCheckValue":"` + sum + `","fwSize":-1}`,
		`{"fwVersion":1}`, `"{}"`, `"text"`, `null`, `[]`, `{"fwVersion":"1","fwVersion":null}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		const most = 1 << 20
		r, err := parseUpdate(value, most)
		if err != nil {
			if strings.Contains(err.Error(), "agent.") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v", value, err)
			}
			return
		}
		name := r.fileName()
		if filepath.Base(name) != name || !filepath.IsLocal(name) || strings.HasPrefix(r.Version, "-") || strings.ContainsAny(r.Version, " /\\\n") || len(r.SHA256) != 64 || r.Size < 0 || r.Size > most {
			t.Errorf("%q is taken as %+v, called %q", value, r, name)
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		quoted, err := json.Marshal(string(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, again := range [][]byte{text, quoted} {
			if got, err := parseUpdate(again, most); err != nil || got != r {
				t.Errorf("%s is read as %+v, %v, want %+v", again, got, err, r)
			}
		}
	})
}

// What the agent has written of an update, a reboot, a reset and of what it has
// done is read as it was; what has become of the files else is an error that
// names the file, or can be told to the hub and written again.
func FuzzRecords(f *testing.F) {
	for _, text := range []string{
		`{"version":"1","request":{"fwVersion":"2","fwPackageURI":"https://a/b","fwPackageCheckValue":"x"},"desiredVersion":3,"phase":"applying","times":{"downloading":"2026-03-14T09:26:53Z"},"boot":{"id":"b","time":"2026-03-14T09:26:53Z"}}`,
		`{"phase":"polishing"}`, `{"phase":"applying"}`, `{"phase":"error","code":500,"detail":"\ud800"}`,
		`{"boot":{"id":"b","time":"2026-03-14T09:26:53Z"},"request":{"requestId":"r","method":"reboot","requestedAt":"2026-03-14T09:26:53Z","attempt":1,"outcome":"rebooting"},"told":true}`,
		`{"request":{"outcome":"rebooted","duration":1e308}}`, `{"status":"running"}`, `{"a/b":{"version":1,"sha256":"x"},"c":null}`, `null`, `[]`, ``, "\x00\x00", `{"started":"0000-01-01T00:00:00+23:59"}`,
	} {
		f.Add([]byte(text), int64(1_700_000_000))
	}
	f.Fuzz(func(t *testing.T, data []byte, at int64) {
		dir := t.TempDir()
		file := filepath.Join(dir, "record.json")
		put := func(content []byte) {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put(data)
		now := time.Unix(at%(1<<35), 0).UTC()
		if r, ok := record(t, file, data, readUpdateRecord); ok {
			r.has(UpdateRequest{Version: "1"})
			told(t, r.report())
		}
		put(data)
		if r, ok := record(t, file, data, readJSON[rebootRecord]); ok {
			for _, b := range []Boot{{}, {ID: "new", Time: now}} {
				r.settle(now, b)
				told(t, r.patch())
			}
			if r.Request.pending() {
				t.Errorf("%q: a reboot is still awaited in another boot", data)
			}
		}
		put(data)
		if r, ok := record(t, file, data, readJSON[resetRecord]); ok {
			told(t, r)
		}
		put(data)
		record(t, file, data, readJSON[map[string]remembered])
	})
}

// told checks that a value can be reported.
func told(t *testing.T, value any) {
	t.Helper()
	if _, err := json.Marshal(value); err != nil {
		t.Errorf("%+v cannot be reported: %v", value, err)
	}
}

// record reads a record, and again after it was written as it was read.
func record[T any](t *testing.T, file string, data []byte, read func(file string) (T, error)) (r T, ok bool) {
	t.Helper()
	r, err := read(file)
	if err != nil {
		if !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", data, err)
		}
		return r, false
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatalf("%q is read as %+v, which cannot be written: %v", data, r, err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := read(file)
	if diff := cmp.Diff(r, again, cmpopts.EquateEmpty()); diff != "" || err != nil {
		t.Errorf("%q, written as %s: %v (-read +again):\n%s", data, text, err, diff)
	}
	return r, true
}

// A command is refused, or it is the words that a shell would make of it: quoted
// it is the same.
func FuzzParseCommand(f *testing.F) {
	for _, text := range []string{
		`reboot now`, `concurrent: timeout=5m: /bin/echo "a b" 'c\d' e\ f ''`, `shell: a | b`, `a | b`, `a > b`, `$(x)`, "`x`", `echo $IOTDM_DEVICE_ID`, `"open`, `timeout=-1s: x`,
		`timeout=1h`, `concurrent:shell:`, "a\nb", `a;b`, `'' x`, "\\", `a&&b`, "é \x00", `C:\a\b.exe`, `a#b # c`, `~/x *`,
	} {
		f.Add(text)
	}
	quote := func(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCommand(text)
		if err != nil {
			return
		}
		again := ""
		if c.Concurrent {
			again = "concurrent:"
		}
		if c.Timeout != 0 {
			again += "timeout=" + c.Timeout.String() + ":"
		}
		switch {
		case c.Timeout < 0 || (c.Script == "") != (len(c.Args) > 0):
			t.Fatalf("%q is read as %+v", text, c)
		case c.Script != "":
			again += "shell:" + c.Script
		case c.Args[0] == "" || slices.ContainsFunc(c.Args, func(word string) bool { return strings.Contains(word, "$IOTDM_") }):
			t.Fatalf("%q is read as %q", text, c.Args)
		default:
			words := make([]string, len(c.Args))
			for i, word := range c.Args {
				words[i] = quote(word)
			}
			again += strings.Join(words, " ")
		}
		got, err := ParseCommand(again)
		if diff := cmp.Diff(c, got); diff != "" || err != nil {
			t.Errorf("%q, quoted as %q: %v (-want +got):\n%s", text, again, err, diff)
		}
	})
}
