//go:build unix

package agent

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommandResults(t *testing.T) {
	large := `"` + strings.Repeat("x", maxMethodOutput-2) + `"`
	notExecutable := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		command Command
		input   string
		output  string
		status  int
		text    string
	}{
		{"no output", Command{Args: []string{"true"}}, "{}", "", 200, "exit status 0"},
		{"input is output", Command{Args: []string{"cat"}}, `{"a":1}`, `{"a":1}`, 200, "exit status 0"},
		{"as much as there may be", Command{Args: []string{"cat"}}, large, large, 200, "exit status 0"},
		{"one byte more", Command{Args: []string{"cat"}}, large + " ", large, 500,
			"the command printed too much and was killed (more than 128 KiB)"},
		{"without reading all its input", Command{Script: "exec <&-; echo 1"}, large, "1", 200, "exit status 0"},
		{"no end of output", Command{Args: []string{"yes"}}, "", "", 500, "the command printed too much and was killed (more than 128 KiB)"},
		{"no end of errors", Command{Script: "yes | head -c 1000000 >&2"}, "", "", 200, "exit status 0: y"},
		{"failure", Command{Script: "echo first >&2; echo last >&2; exit 7"}, "", "", 500, "exit status 7: last"},
		{"bad input", Command{Script: "echo '{\"limit\":9}'; exit 65"}, "", `{"limit":9}`, 400, "exit status 65"},
		{"wrong usage", Command{Script: "exit 64"}, "", "", 400, "exit status 64"},
		{"no permission", Command{Script: "exit 77"}, "", "", 403, "exit status 77"},
		{"not now", Command{Script: "exit 75"}, "", "", 503, "exit status 75"},
		{"crash", Command{Script: "kill -SEGV $$"}, "", "", 500, "signal: segmentation fault"},
		{"text", Command{Script: "echo; echo hello; echo you"}, "", "", 500,
			"the command printed what is not JSON (text needs double quotes): hello"},
		{"two values", Command{Script: "echo 1; echo 2"}, "", "", 500, "the command printed what is not JSON (text needs double quotes): 1"},
		{"not UTF-8", Command{Script: `printf '"\377"'`}, "", "", 500, "the command printed what is not JSON (text needs double quotes): \"\uFFFD\""},
		{"not in PATH", Command{Args: []string{"no-such-command"}}, "", "", 500, `the command "no-such-command" is not found in PATH`},
		{"no such file", Command{Args: []string{"/no/such/command"}}, "", "", 500, `the command "/no/such/command" does not exist`},
		{"not executable", Command{Args: []string{notExecutable}}, "", "", 500, `the command "` + notExecutable + `" may not be executed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.command.run(t.Context(), []byte(tt.input), nil, maxMethodOutput).wantJSON()
			text := strings.ReplaceAll(r.text(), " (core dumped)", "")
			if r.status() != tt.status || text != tt.text || string(r.value()) != tt.output {
				t.Errorf("status %d, %q, output %.80q; want %d, %q, %.80q", r.status(), text, r.value(), tt.status, tt.text, tt.output)
			}
		})
	}
}

func TestCommandWhoseOutputNobodyWants(t *testing.T) {
	r := Command{Script: "yes | head -c 5000000; echo last >&2"}.run(t.Context(), nil, nil, noOutput)
	if r.err != nil || len(r.output) > 0 || r.text() != "exit status 0: last" {
		t.Errorf("%s, output %.20q", r.text(), r.output)
	}
}

// fifo makes a named pipe. Who reads it gets all that is written and the end once nobody can write any more.
func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCommandIsEndedWithItsChildren(t *testing.T) {
	for name, script := range map[string]string{
		"that end when told":     `(echo started; sleep 1000) >"$FIFO" & sleep 1000`,
		"that do not listen":     `trap '' TERM; (echo started; while :; do sleep 1; done) >"$FIFO" & while :; do sleep 1; done`,
		"whose parent has ended": `trap 'exit 0' TERM; (trap '' TERM; echo started; while :; do sleep 1; done) >"$FIFO" & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			file := fifo(t)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan result, 1)
			go func() { ended <- Command{Script: script}.run(ctx, nil, []string{"FIFO=" + file}, 10) }()
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := io.ReadFull(f, make([]byte, len("started\n"))); err != nil {
				t.Fatal(err)
			}
			cancel()
			if r := <-ended; r.status() != 503 || r.text() != "the device was stopped while the command ran" {
				t.Errorf("status %d, %q", r.status(), r.text())
			}
			if rest, err := io.ReadAll(f); len(rest) > 0 || err != nil { // the end: no child is left
				t.Errorf("%q, error %v", rest, err)
			}
		})
	}
}

func TestCommandTakesTooLong(t *testing.T) {
	r := Command{Script: "echo waiting >&2; sleep 1000", Timeout: 100 * time.Millisecond}.run(t.Context(), nil, nil, 10)
	const want = "the command did not end in time and was killed (after 100ms)"
	if r.status() != 504 || !strings.HasPrefix(r.text(), want) {
		t.Errorf("status %d, %q, want 504, %q", r.status(), r.text(), want)
	}
}

func TestCommandLeavesAChildThatHoldsItsOutput(t *testing.T) {
	file := fifo(t)
	r := Command{Script: `(read line; echo "$line" >"$FIFO.out") <"$FIFO" & echo 1`}.run(t.Context(), nil, []string{"FIFO=" + file}, 10)
	if r.status() != 200 || string(r.value()) != "1" {
		t.Errorf("status %d, %q, output %q", r.status(), r.text(), r.value())
	}
	out := file + ".out"
	if err := syscall.Mkfifo(out, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("still here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); !bytes.Equal(got, []byte("still here\n")) || err != nil {
		t.Errorf("the child says %q, error %v", got, err)
	}
}
