package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// runShell has the shell run a command until it ends or ctx does. Each line of its output goes to note.
// An error ends with the last line.
func runShell(ctx context.Context, command string, note func(text string)) error {
	shell := []string{"sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C"}
	}
	c := exec.CommandContext(ctx, shell[0], append(shell[1:], command)...)
	// What the command has started may keep the pipe open.
	c.WaitDelay = time.Second
	out := &lineWriter{line: note}
	c.Stdout, c.Stderr = out, out
	err := c.Run()
	out.flush()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // the command itself has succeeded
	}
	if err != nil && out.last != "" {
		return fmt.Errorf("%w: %s", err, out.last)
	}
	return err
}

const (
	maxLine  = 1 << 10 // bytes of a line that are kept; the rest is dropped
	maxLines = 100     // lines that are passed on
)

// A lineWriter passes on what is written to it line by line, up to a bound.
type lineWriter struct {
	line func(text string)

	mu   sync.Mutex // guards what follows
	rest []byte
	n    int
	last string // the last line that isn't empty
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		w.rest = append(w.rest, line[:min(len(line), maxLine-len(w.rest))]...)
		if ended {
			w.pass()
		}
		rest = after
	}
	return len(p), nil
}

// flush passes on a last line that has no end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pass()
}

func (w *lineWriter) pass() {
	if text := string(bytes.TrimSpace(w.rest)); text != "" {
		w.last = text
		switch w.n++; {
		case w.n <= maxLines:
			w.line(text)
		case w.n == maxLines+1:
			w.line("(there is more)")
		}
	}
	w.rest = w.rest[:0]
}
