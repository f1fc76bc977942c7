package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-shellwords"
)

const (
	defaultCommandTimeout = 30 * time.Second
	// commandGrace is how long a command may go on after it was told to end, and how long its output
	// is still read after it has ended while a child of it holds on to that.
	commandGrace = time.Second
	// maxErrorOutput is how much of the end of a command's standard error is kept.
	maxErrorOutput = 4 << 10
	// noOutput, as a limit, means that whatever a command prints is thrown away.
	noOutput = -1
)

// A Command is a program that an agent runs. It gets a JSON value on standard input, which it need not
// read, and prints a JSON value or nothing on standard output. Its environment is the agent's without
// the credentials, and with IOTDM_DEVICE_ID (and IOTDM_MODULE_ID) beside what belongs to its purpose.
//
// It runs in a process group of its own. When it takes too long, prints too much, or the agent ends,
// the whole group is ended: with SIGTERM, and a second later with SIGKILL. A child that a command leaves
// behind when it ends goes on.
type Command struct {
	// Args are the program and its arguments. No shell sees them.
	Args []string
	// Script is run by the shell (sh -c, on Windows cmd /C) instead of Args.
	Script string
	// Timeout is how long the command may take; zero is the default of its purpose.
	Timeout time.Duration
	// Concurrent lets a direct method's command run more than once at the same time.
	Concurrent bool
}

// ParseCommand reads a command as a command line has it: words that are split as a shell does, with
// quotes and backslashes, but neither variables nor patterns nor pipes. "shell:" before it gives it to
// the shell as it is. Before that, "concurrent:" sets Concurrent, and "timeout=5m:" Timeout.
func ParseCommand(text string) (Command, error) {
	c, text, err := parseSettings(text)
	if err != nil {
		return Command{}, err
	}
	if script, ok := strings.CutPrefix(text, "shell:"); ok {
		if c.Script = strings.TrimSpace(script); c.Script == "" {
			return Command{}, errors.New(`there is no command after "shell:"`)
		}
		return c, nil
	}
	p := shellwords.NewParser()
	words, err := p.Parse(text)
	switch {
	case err != nil:
		return Command{}, fmt.Errorf("%s has an open quote or shell syntax; write shell: before it to have the shell run it", text)
	case p.Position >= 0:
		return Command{}, fmt.Errorf("%s has shell syntax; write shell: before it to have the shell run it, or put quotes around it", text)
	case len(words) == 0 || words[0] == "":
		return Command{}, errors.New("there is no command")
	case strings.Contains(text, "$IOTDM_"):
		return Command{}, fmt.Errorf("%s has a variable; write shell: before it to have the shell put in its value", text)
	}
	c.Args = words
	return c, nil
}

// parseSettings reads what is before a command.
func parseSettings(text string) (c Command, rest string, err error) {
	for {
		text = strings.TrimSpace(text)
		if rest, ok := strings.CutPrefix(text, "concurrent:"); ok {
			c.Concurrent, text = true, rest
			continue
		}
		rest, ok := strings.CutPrefix(text, "timeout=")
		if !ok {
			return c, text, nil
		}
		value, rest, ok := strings.Cut(rest, ":")
		if c.Timeout, err = time.ParseDuration(value); !ok || err != nil || c.Timeout <= 0 {
			return c, "", errors.New(`what is after "timeout=" is no duration and a colon, as in "timeout=5m:"`)
		}
		text = rest
	}
}

// isZero reports whether there is no command.
func (c Command) isZero() bool { return len(c.Args) == 0 && c.Script == "" }

// withTimeout is c with a timeout for it if it has none.
func (c Command) withTimeout(timeout time.Duration) Command {
	c.Timeout = cmp.Or(c.Timeout, timeout)
	return c
}

// check reports why a command cannot run on this machine as it is now.
func (c Command) check() error {
	if c.Script != "" {
		return nil // the shell tells
	}
	_, err := exec.LookPath(c.Args[0])
	return startError(c.Args[0], err)
}

func (c Command) words() []string {
	switch {
	case c.Script == "":
		return c.Args
	case runtime.GOOS == "windows":
		return []string{"cmd", "/C", c.Script}
	}
	return []string{"sh", "-c", c.Script}
}

// A result is what came of a command.
type result struct {
	output []byte // standard output, at most as much as was allowed
	errors string // the end of standard error
	exit   int    // exit status; -1 if err says why there is none, or if a signal ended the command
	err    error  // nil if the command ended with an exit status of 0 and in time
}

// Reasons why a command has no exit status of its own.
var (
	errTooLong   = errors.New("the command did not end in time and was killed")
	errTooMuch   = errors.New("the command printed too much and was killed")
	errCancelled = errors.New("the device was stopped while the command ran")
)

// run runs the command with in on its standard input and env, of the form NAME=VALUE, added to its
// environment. More than limit bytes of output end it, unless limit is noOutput.
func (c Command) run(ctx context.Context, in []byte, env []string, limit int) result {
	timeout := cmp.Or(c.Timeout, defaultCommandTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w (after %v)", errTooLong, timeout))
	defer cancel()
	ctx, kill := context.WithCancelCause(ctx)
	defer kill(nil)

	words := c.words()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	prepare(cmd, c.Script)
	cmd.Cancel = func() error { return endGroup(cmd.Process) }
	cmd.WaitDelay = commandGrace
	cmd.Env = commandEnv(cmd.Environ(), env)
	cmd.Stdin = bytes.NewReader(in)
	out := &boundedBuffer{limit: limit, full: func() error {
		err := fmt.Errorf("%w (more than %s)", errTooMuch, byteCount(int64(limit)))
		kill(err)
		return err
	}}
	tail := &tailBuffer{limit: maxErrorOutput}
	cmd.Stderr = tail
	if limit != noOutput {
		cmd.Stdout = out
	}
	if err := cmd.Start(); err != nil {
		if cause := context.Cause(ctx); cause != nil { // it ended before
			return result{exit: -1, err: endedBy(cause)}
		}
		return result{exit: -1, err: startError(words[0], err)}
	}
	err := cmd.Wait()
	r := result{output: out.kept.Bytes(), errors: tail.String(), exit: cmd.ProcessState.ExitCode(), err: err}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		killGroup(cmd.Process) // what SIGTERM did not end
		r.exit, r.err = -1, endedBy(cause)
		return r
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it has ended well; a child of it holds on to its output
		r.err = nil
	}
	return r
}

// endedBy is the error of a command whose context ended for cause.
func endedBy(cause error) error {
	if errors.Is(cause, errTooLong) || errors.Is(cause, errTooMuch) {
		return cause
	}
	return errCancelled
}

// startError words why a program cannot be started.
func startError(program string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("the command %q is not found in PATH", program)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the command %q does not exist", program)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the command %q may not be executed", program)
	}
	return fmt.Errorf("the command %q cannot be started: %w", program, err)
}

// Exit statuses by which a command says more than that it failed, as sysexits.h names them, and
// the one by which it asks for a reboot, which zypper uses for that too.
const (
	exitUsage       = 64
	exitData        = 65
	exitUnavailable = 69
	exitTemporary   = 75
	exitNoPerm      = 77
	exitReboot      = 102

	exitRebootWindows = 3010 // Windows Installer's
)

// wantsReboot reports whether the command went well and asks for a reboot.
func (r result) wantsReboot() bool {
	return r.exit == exitReboot || runtime.GOOS == "windows" && r.exit == exitRebootWindows
}

// status is the HTTP status that stands for what came of the command.
func (r result) status() int {
	switch {
	case r.err == nil:
		return 200
	case errors.Is(r.err, errTooLong):
		return 504
	case errors.Is(r.err, errCancelled):
		return 503
	}
	switch r.exit {
	case exitUsage, exitData:
		return 400
	case exitNoPerm:
		return 403
	case exitUnavailable, exitTemporary:
		return 503
	}
	return 500
}

// killed reports whether a signal ended the command, and not the agent's.
func (r result) killed() bool {
	exit, ok := errors.AsType[*exec.ExitError](r.err)
	return ok && !exit.Exited()
}

// value is the JSON value that the command printed; nil if it printed none, or something else.
func (r result) value() json.RawMessage {
	out := bytes.TrimSpace(r.output)
	if !json.Valid(out) || !utf8.Valid(out) {
		return nil
	}
	return out
}

// wantJSON makes a failure of it if the command went well but printed what is not JSON.
func (r result) wantJSON() result {
	if r.err == nil && r.value() == nil && len(bytes.TrimSpace(r.output)) > 0 {
		r.exit, r.err = -1, errors.New("the command printed what is not JSON (text needs double quotes): "+clip(firstLine(r.output), 64))
	}
	return r
}

// text says in one line what came of the command: its exit status, and the last it had to say.
func (r result) text() string {
	text := "exit status 0"
	if r.err != nil {
		text = r.err.Error()
	}
	if line := lastLine(r.errors); line != "" {
		text += ": " + line
	}
	return text
}

// firstLine returns the first line of output that isn't empty, as text.
func firstLine(output []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(output), []byte("\n"))
	return strings.ToValidUTF8(string(line), "\uFFFD")
}

// lastLine returns the last line of text that isn't empty.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexAny(text, "\r\n")+1:])
}
