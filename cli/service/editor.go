package service

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// An editor edits one text in a file of its own, again if need be.
type editor struct {
	output.Streams
	command string // as a shell takes it
	file    string
}

// newEditor finds the user's editor and makes the file, which only the user
// can read. Close removes it.
func newEditor(s output.Streams, pattern string) (*editor, error) {
	command := cmp.Or(strings.TrimSpace(os.Getenv("VISUAL")), strings.TrimSpace(os.Getenv("EDITOR")))
	if command == "" {
		command = map[bool]string{true: "notepad", false: "vi"}[runtime.GOOS == "windows"]
		if _, err := exec.LookPath(command); err != nil {
			return nil, fail.Usagef("there is no editor; set EDITOR to yours, for example EDITOR=nano")
		}
	}
	f, err := os.CreateTemp("", pattern)
	if err != nil {
		return nil, fail.Errorf(fail.Failed, "%v", fail.PlainPathError(err))
	}
	return &editor{Streams: s, command: command, file: f.Name()}, f.Close()
}

// edit lets the user edit text, and returns what was saved.
func (e *editor) edit(text []byte) ([]byte, error) {
	if err := os.WriteFile(e.file, text, 0o600); err != nil {
		return nil, fail.Errorf(fail.Failed, "%v", fail.PlainPathError(err))
	}
	// Ctrl-C is the editor's while it runs.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	c := e.process()
	c.Stdin, c.Stdout, c.Stderr = e.In, output.Unguarded(e.Out), output.Unguarded(e.ErrOut)
	if err := c.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			hint := ""
			if exit.ExitCode() == 127 { // of a shell that finds no such command
				hint = "; set EDITOR to yours"
			}
			return nil, fail.Errorf(fail.Failed, "the editor %q ended with status %d%s", e.command, exit.ExitCode(), hint)
		}
		return nil, fail.Errorf(fail.Failed, "the editor %q does not start: %v; set EDITOR to yours", e.command, plainExecError(err))
	}
	saved, err := os.ReadFile(e.file)
	if err != nil {
		return nil, fail.Errorf(fail.Failed, "%v", fail.PlainPathError(err))
	}
	if len(saved) > command.MaxInput {
		return nil, fail.Errorf(fail.Failed, "%s: more than %d KiB", e.file, command.MaxInput>>10)
	}
	return saved, nil
}

// process starts the editor as git does: the command may have arguments.
func (e *editor) process() *exec.Cmd {
	if runtime.GOOS == "windows" {
		words := strings.Fields(e.command)
		return exec.Command(words[0], append(words[1:], e.file)...)
	}
	return exec.Command("sh", "-c", e.command+` "$@"`, "sh", e.file)
}

func plainExecError(err error) error {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		return e.Err
	}
	return fail.PlainPathError(err)
}

func (e *editor) close() { os.Remove(e.file) }
