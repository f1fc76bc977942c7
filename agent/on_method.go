package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// maxMethodOutput is how much a command may print as the answer of a direct method: the most that IoT
// Hub carries.
const maxMethodOutput = 128 << 10

// handleCommands sets the handlers of the direct methods that are bound to commands.
func (a *Agent) handleCommands() error {
	for _, name := range slices.Sorted(maps.Keys(a.opt.OnMethod)) {
		c := a.opt.OnMethod[name]
		if name == "" {
			return fmt.Errorf("a command is bound to a direct method without a name")
		}
		if c.isZero() {
			return fmt.Errorf("the direct method %q is bound to no command", name)
		}
		if err := c.check(); err != nil {
			a.log.Warn("the command of a direct method cannot run", logMethod, name, logError, err)
		}
		a.handleMethod(name, (&methodCommand{agent: a, command: c}).answer)
	}
	return nil
}

// A methodCommand answers a direct method with what a command says.
type methodCommand struct {
	agent   *Agent
	command Command
	running atomic.Bool
}

// A commandFailure is the answer of a command that failed.
type commandFailure struct {
	Message  string          `json:"message"`
	ExitCode *int            `json:"exitCode,omitempty"` // if it has one
	Stderr   string          `json:"stderr,omitempty"`   // the end of it
	Output   json.RawMessage `json:"output,omitempty"`   // what it printed, if that is JSON
}

func (m *methodCommand) answer(ctx context.Context, call mqttdevice.Method) mqttdevice.Response {
	if !m.command.Concurrent {
		if !m.running.CompareAndSwap(false, true) {
			return message(409, "the command is still running for an earlier call")
		}
		defer m.running.Store(false)
	}
	ctx, cancel := m.agent.whileRunning(ctx)
	defer cancel()
	began := time.Now()
	r := m.command.run(ctx, call.Payload, m.agent.commandEnv("IOTDM_METHOD="+call.Name), maxMethodOutput).wantJSON()
	response := r.response()
	m.agent.log.Info("direct method answered", logMethod, call.Name, logStatus, response.Status,
		logTook, time.Since(began).Round(time.Millisecond), logResult, r.text())
	return response
}

// response is the answer of a direct method to which the command was bound.
func (r result) response() mqttdevice.Response {
	if r.err == nil {
		return mqttdevice.Response{Status: 200, Payload: r.value()}
	}
	failure := commandFailure{Message: r.err.Error(), Stderr: r.errors}
	if r.exit >= 0 {
		failure.Message, failure.ExitCode = "the command failed", &r.exit
	}
	if output := r.value(); len(output) <= maxMethodOutput/2 { // leaves room for the rest
		failure.Output = output
	}
	return mqttdevice.Response{Status: r.status(), Payload: failure}
}

// message is an answer that says what a status does not.
func message(status int, text string) mqttdevice.Response {
	return mqttdevice.Response{Status: status, Payload: map[string]string{"message": text}}
}

// whileRunning is ctx, ended too when the agent is being closed.
func (a *Agent) whileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.running, cancel)
	return ctx, func() { stop(); cancel() }
}

// commandEnv is what a command of the agent has in its environment besides what the agent has.
func (a *Agent) commandEnv(own ...string) []string {
	env := []string{"IOTDM_DEVICE_ID=" + a.status.deviceID()}
	if module := a.opt.Device.ConnectionString.ModuleID; module != "" {
		env = append(env, "IOTDM_MODULE_ID="+module)
	}
	return append(env, own...)
}
