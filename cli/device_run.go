package cli

import (
	"context"
	"os/exec"
	"runtime"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/mqttdevice"
)

// localDevice is the device "device run" is on a local hub unless told otherwise.
const localDevice = "device-1"

type deviceRunOptions struct {
	as             actAsOptions
	rebootDuration seconds
	rebootCommand  string
	state          string
}

func deviceRunCommand(s streams) *urfave.Command {
	o := deviceRunOptions{rebootDuration: seconds(20 * time.Second)}
	return leaf(&urfave.Command{
		Name:  "run",
		Usage: "stay connected, answer rebootDevice and reboot, and print messages, until Ctrl-C",
		Description: "Simulates a reboot, or with --reboot-command really reboots the machine, and reports the time\n" +
			"of it as rebootTime. On a local hub the device is created if it is missing. For example:\n" +
			"   iotdm device run\n" +
			"   iotdm device run --device pump-7 --reboot-duration 5s\n" +
			"   iotdm device run --device pump-8 --transport ws --cert-file pump-8.pem --key-file pump-8.key\n" +
			"   iotdm device run --connection-string @/etc/iotdm/device --reboot-command \"systemctl reboot\"",
		Flags: concat(o.as.flags(), []urfave.Flag{
			&urfave.GenericFlag{Name: "reboot-duration", Value: &o.rebootDuration, Usage: "how `LONG` a simulated reboot takes"},
			&urfave.StringFlag{Name: "reboot-command", Destination: &o.rebootCommand,
				Usage: "reboot for real with `COMMAND`, run by the shell"},
			&urfave.StringFlag{Name: "state", Destination: &o.state, EnvVars: []string{"IOTDM_DEVICE_STATE"},
				Usage: "remember a real reboot in `FOLDER`"},
		}),
		Action: func(ctx *urfave.Context) error {
			return runDevice(ctx.Context, s, o)
		},
	})
}

func runDevice(ctx context.Context, s streams, o deviceRunOptions) error {
	t, err := o.as.find(ctx, s, deviceChoice{create: true, usual: localDevice})
	if err != nil {
		return err
	}
	a := &agent{
		stop:     ctx,
		say:      func(text string) { s.print("%s", text) },
		note:     s.note,
		duration: time.Duration(o.rebootDuration),
	}
	if o.rebootCommand != "" {
		folder, err := stateFolder(o.state)
		if err != nil {
			return err
		}
		a.machine = &machineReboot{file: intentFile(folder, t), asked: make(chan struct{}, 1)}
	}
	for {
		reboot, err := connectAgent(ctx, s, t, a)
		if !reboot {
			return err
		}
		// The connection is closed: the answer has reached the hub.
		err = rebootNow(ctx, s, o.rebootCommand)
		if ctx.Err() != nil {
			return nil // the machine is going down: what is remembered is for the next start
		}
		if err != nil {
			s.note("iotdm: the reboot command failed: %v; the device goes on", err)
			if err := a.machine.forget(); err != nil {
				return err
			}
		}
	}
}

// connectAgent is one life of the connection. It ends with ctx, or when the
// machine is to reboot.
func connectAgent(ctx context.Context, s streams, t target, a *agent) (reboot bool, err error) {
	client, err := t.deviceClient(a.onState)
	if err != nil {
		return false, err
	}
	defer client.Close()
	a.serve(client)
	if err := client.Connect(ctx); err != nil {
		if ctx.Err() != nil {
			return false, nil
		}
		return false, t.explainDevice(ctx, err)
	}
	s.note("%s is connected to %s; waiting for direct methods, press Ctrl-C to exit", t.identity(), t.host())
	if err := a.reportRealReboot(ctx); err != nil && ctx.Err() == nil {
		s.note("iotdm: the reboot is not reported: %v; the next start tries again", err)
	}
	select {
	case <-ctx.Done():
		s.note("Disconnecting")
		return false, nil
	case <-a.machine.requests():
		return true, nil
	}
}

// onState tells of a lost connection. That it is back shows in the next line.
func (a *agent) onState(state mqttdevice.State) {
	switch {
	case state.Status == mqttdevice.Disconnected && state.Retry > 0:
		a.lost = true
		a.note("Not connected: %v; trying again in %v", state.Reason, state.Retry.Round(100*time.Millisecond))
	case state.Status == mqttdevice.Connected && a.lost:
		a.lost = false
		a.note("Connected again")
	}
}

// rebootNow runs the command. It returns when the command has ended, which a
// reboot may or may not leave time for.
func rebootNow(ctx context.Context, s streams, command string) error {
	shell := []string{"sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C"}
	}
	c := exec.CommandContext(ctx, shell[0], append(shell[1:], command)...)
	c.Stdout, c.Stderr = s.errOut, s.errOut
	return c.Run()
}
