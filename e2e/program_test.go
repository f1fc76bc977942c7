package e2e

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A program is a running program whose output a test follows.
type program struct {
	name string
	cmd  *exec.Cmd

	mu      sync.Mutex // guards what follows
	lines   []string
	ended   bool
	changed chan struct{} // closed and replaced when a line comes or the output ends

	next int // the first line that await has not looked at
}

// start runs cmd and follows what it prints. It is killed when the test ends.
func start(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{name: filepath.Base(cmd.Path), cmd: cmd, changed: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.add(s.Text(), false)
		}
		p.add("", true)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait()
	})
	return p
}

func (p *program) add(line string, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ended {
		p.ended = true
	} else {
		p.lines = append(p.lines, line)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// await returns the next line that contains text.
func (p *program) await(t *testing.T, text string) string {
	t.Helper()
	const silence, long = 90 * time.Second, 10 * time.Minute // many checks take long on a busy machine
	timeout, quiet := time.After(long), time.NewTimer(silence)
	defer quiet.Stop()
	for {
		p.mu.Lock()
		lines, ended, changed := p.lines, p.ended, p.changed
		p.mu.Unlock()
		for ; p.next < len(lines); p.next++ {
			if line := lines[p.next]; strings.Contains(line, text) {
				p.next++
				return line
			}
		}
		if ended {
			t.Fatalf("%s ended without printing %q; it printed:\n%s", p.name, text, strings.Join(lines, "\n"))
		}
		select {
		case <-changed:
			quiet.Reset(silence)
			continue
		case <-quiet.C:
		case <-timeout:
		}
		t.Fatalf("%s did not print %q in time; it printed:\n%s", p.name, text, strings.Join(lines, "\n"))
	}
}

// kill ends the program as a power failure would, and waits until it has ended.
func (p *program) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.end(t)
}

// end waits until the program has ended.
func (p *program) end(t *testing.T) {
	t.Helper()
	timeout := time.After(90 * time.Second)
	for {
		p.mu.Lock()
		ended, changed := p.ended, p.changed
		p.mu.Unlock()
		if ended {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s did not end in time", p.name)
		}
	}
}
