package agent

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// ownGroup makes the command the first of a process group, which Ctrl-C doesn't reach.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
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
