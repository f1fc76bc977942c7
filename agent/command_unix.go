//go:build unix

package agent

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// prepare makes the command the first of a process group, which signals of the terminal don't reach.
func prepare(cmd *exec.Cmd, _ string) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// endGroup asks all of the group that p leads to end.
func endGroup(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGTERM)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// killGroup ends what is left of the group.
func killGroup(p *os.Process) { syscall.Kill(-p.Pid, syscall.SIGKILL) }
