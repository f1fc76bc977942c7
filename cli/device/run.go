package device

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/logs"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/systemd"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
)

type deviceRunOptions struct {
	as             actAsOptions
	rebootDuration command.Seconds
	rebootCommand  string
	rebootGrace    command.Seconds
	config         string
	statusFile     string
	commands       commandOptions
	fleet          fleetOptions
	log            logs.Options
	telemetry      telemetryOptions
}

func deviceRunCommand(s output.Streams) *urfave.Command {
	o := deviceRunOptions{rebootDuration: command.Seconds(20 * time.Second), rebootGrace: command.Seconds(3 * time.Minute)}
	o.fleet = newFleetOptions()
	return command.Leaf(&urfave.Command{
		Name:  "run",
		Usage: "stay connected, answer rebootDevice and reboot, and print messages, until Ctrl-C",
		Description: "Simulates a reboot, or with --reboot-command really reboots the machine, and reports the time\n" +
			"of it as rebootTime. On a local hub the device is created if it is missing. For example:\n" +
			"   iotdm device run\n" +
			"   iotdm device run --device pump-7 --reboot-duration 5s\n" +
			"   iotdm device run --device pump-8 --transport ws --cert-file pump-8.pem --key-file pump-8.key\n" +
			"   iotdm device run --connection-string @/etc/iotdm/device --reboot-command \"systemctl reboot\"\n" +
			"   iotdm device run --provision --id-scope 0ne00ABCDEF --registration-id pump-9 --enrollment-key @pump-9.key\n" +
			"   iotdm device run --count 1000 --id-prefix pump- --fail-rate 1%\n" +
			"   iotdm device run --count 1000 --id-prefix pump- --provision --enrollment-group-key @pumps.key\n\n" +
			provisionHelp + "\n\n" +
			commandHelp + "\n\n" + telemetryHelp,
		Flags: command.Concat(o.as.flags("remember in `FOLDER` what a restart must not forget"), []urfave.Flag{
			&urfave.GenericFlag{Name: "reboot-duration", Value: &o.rebootDuration, Usage: "how `LONG` a simulated reboot takes"},
			&urfave.StringFlag{Name: "reboot-command", Destination: &o.rebootCommand,
				Usage: "reboot for real with `COMMAND`, run by the shell"},
			&urfave.GenericFlag{Name: "reboot-grace", Value: &o.rebootGrace, Usage: "how `LONG` the machine may stay up after that; then it has not rebooted"},
			&urfave.StringFlag{Name: "status-file", Destination: &o.statusFile,
				Usage: "keep a `FILE` (JSON) that tells other programs how the device is"},
			command.ConfigFlag(&o.config),
			o.log.Flag(),
		}, o.commands.flags(), o.telemetry.flags(), o.fleet.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := command.ReadConfig(ctx, s, o.config); err != nil {
				return err
			}
			if err := o.log.Check(); err != nil {
				return err
			}
			switch many, err := o.fleet.wanted(ctx); {
			case err != nil:
				return err
			case many:
				return command.UntilStopped(ctx.Context, runFleet(ctx.Context, s, o))
			}
			return command.UntilStopped(ctx.Context, runDevice(ctx.Context, s, o))
		},
	})
}

func runDevice(ctx context.Context, s output.Streams, o deviceRunOptions) error {
	manager, err := systemd.FindManager()
	if err != nil {
		return err
	}
	l, err := o.findLife(ctx, s)
	if err != nil {
		return err
	}
	t := l.now()
	folder, err := o.as.folder(t)
	if err != nil && (o.rebootCommand != "" || o.commands.needFolder()) {
		return err
	}
	log := agentLogger(s, o.log)
	s = o.log.Streams(s)
	opt := agent.Options{
		Device:         t.DeviceOptions(),
		RebootDuration: time.Duration(o.rebootDuration),
		RebootCommand:  o.rebootCommand,
		RebootGrace:    time.Duration(o.rebootGrace),
		Folder:         folder,
		StatusFile:     o.statusFile,
		OnEvent:        func(e agent.Event) { s.Print("%s", e) },
		Logger:         log,
	}
	l.provision(&opt, log)
	link := LinkLog{Log: log}
	opt.Device.OnState = func(state mqttdevice.State) {
		l.changed(state)
		link.Changed(state)
		if text := connectionText(l.now(), state); text != "" {
			manager.Status(text)
		}
	}
	if err := fail.First(o.commands.options(&opt, t), o.telemetry.options(s, &opt)); err != nil {
		return err
	}
	a, err := agent.New(opt)
	if errors.Is(err, outbox.ErrInUse) {
		return fail.Errorf(fail.Failed, "%v; is another \"iotdm device run\" running as %s?", err, t.Identity())
	} else if err != nil {
		return fail.Usagef("%v", err)
	}
	defer a.Close()
	a.HandleMessages(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
		s.Print("%s", messageText(m))
		return nil
	})
	return serveDevice(ctx, s, l, a, manager)
}

// serveDevice is the device's life, from connecting until ctx ends.
func serveDevice(ctx context.Context, s output.Streams, l *life, a *agent.Agent, manager systemd.Manager) error {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		manager.Watch(ctx, a.Alive, s.Note)
	}()
	defer func() { cancel(); <-watched }()
	// It is ready although it may have to wait for the network: that is no reason to start it again.
	manager.Ready()
	if err := a.Connect(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return l.explain(ctx, err)
	}
	t := l.now()
	s.Note("%s is connected to %s; waiting for direct methods, press Ctrl-C to exit", t.Identity(), t.Host())
	<-ctx.Done()
	s.Note("Disconnecting")
	manager.Stopping()
	return nil
}

// connectionText is the state of the connection in a few words; empty for what does not matter.
func connectionText(t target.Target, state mqttdevice.State) string {
	switch {
	case state.Status == mqttdevice.Provisioning:
		return "finding the hub"
	case state.Status == mqttdevice.Connected:
		return fmt.Sprintf("connected to %s as %s", t.Host(), t.Identity())
	case state.Status == mqttdevice.Disconnected && state.Retry > 0:
		return fmt.Sprintf("not connected to %s: %v; trying again in %v", t.Host(), state.Reason, state.Retry.Round(time.Second))
	}
	return ""
}

// stateFolder is where the files of the device that t acts as lie: in the given folder, or in one
// beside the local hub's.
func stateFolder(given string, t target.Target) (string, error) {
	given, err := allStates(given)
	if err != nil {
		return "", err
	}
	host, _ := localhub.SplitPort(t.Connection.HostName)
	// Ids may hold what paths may not.
	return filepath.Join(given, url.PathEscape(host), url.PathEscape(t.Identity().String())), nil
}

// allStates is the folder for the files of all devices.
func allStates(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := node.DefaultFolder()
	if err != nil {
		return "", fail.Errorf(fail.Failed, "%v; name a folder with --state", err)
	}
	return filepath.Join(filepath.Dir(dir), "device"), nil
}
