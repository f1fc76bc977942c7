package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/cli/internal/output"
)

func TestSeconds(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
		show string
	}{
		{"0", 0, "0s"},
		{"30", 30 * time.Second, "30s"},
		{"90s", 90 * time.Second, "1m30s"},
		{"10m", 10 * time.Minute, "10m"},
		{"2h", 2 * time.Hour, "2h"},
		{"2h30m", 150 * time.Minute, "2h30m"},
		{"1.5s", 1500 * time.Millisecond, "1.5s"},
	} {
		var d Seconds
		if err := d.Set(tt.text); err != nil || time.Duration(d) != tt.want || d.String() != tt.show {
			t.Errorf("Set(%q) makes %v, shown as %q, %v; want %v, shown as %q", tt.text, time.Duration(d), d.String(), err, tt.want, tt.show)
		}
	}
	for _, text := range []string{"", "-1", "-5s", "soon", "1 s", "99999999999999"} {
		if err := new(Seconds).Set(text); err == nil {
			t.Errorf("Set(%q) succeeds", text)
		}
	}
}

func TestReadValue(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte(" from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, MaxInput+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, value, want, wantErr string
	}{
		{"a value is itself", "plain", "plain", ""},
		{"blanks of a value stay", " plain ", " plain ", ""},
		{"a file without its last line end", "@" + file, "from a file", ""},
		{"standard input", "-", "from standard input", ""},
		{"a file that is not there", "@" + file + "2", "", "--x: " + file + "2: no such file or directory"},
		{"a file that is too large", "@" + large, "", "--x: more than 1024 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadValue(output.Streams{In: strings.NewReader("from standard input\n")}, "--x", tt.value)
			if got != tt.want || (err == nil) != (tt.wantErr == "") || err != nil && err.Error() != tt.wantErr {
				t.Errorf("readValue(%q) = %q, %v; want %q, %q", tt.value, got, err, tt.want, tt.wantErr)
			}
		})
	}
}
