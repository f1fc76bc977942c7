package agent

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// prepare makes the command the first of a process group, which Ctrl-C doesn't reach. A script is given to
// cmd as it is, between two quotes that cmd takes off: it does not know the backslashes that package exec
// puts before others.
func prepare(cmd *exec.Cmd, script string) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
	if script != "" {
		cmd.SysProcAttr.CmdLine = `cmd /S /C "` + script + `"`
	}
}

// endGroup ends p and its children: Windows has no way to ask all of them.
func endGroup(p *os.Process) error {
	if exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(p.Pid)).Run() == nil {
		return nil
	}
	return p.Kill()
}

// killGroup has nothing to do: endGroup did it.
func killGroup(*os.Process) {}
