package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
	clidevice "github.com/iotdm/iotdm/cli/device"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/cli/service"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/reboot"
	"github.com/iotdm/iotdm/sas"
)

type demoOptions struct {
	rebootDuration command.Seconds
}

func demoCommand(s output.Streams) *urfave.Command {
	o := demoOptions{rebootDuration: command.Seconds(2 * time.Second)}
	return command.Leaf(&urfave.Command{
		Name:  "demo",
		Usage: "see a device, a service and a hub at work",
		Description: "Runs a throw-away hub on free ports, a device that connects to it over MQTT, and a service that\n" +
			"calls the direct method rebootDevice over HTTPS and reads the new rebootTime from the twin.\n" +
			"Nothing is left behind. For example:\n" +
			"   iotdm demo --reboot-duration 5s",
		Flags: []urfave.Flag{
			&urfave.GenericFlag{Name: "reboot-duration", Value: &o.rebootDuration, Usage: "how `LONG` the reboot takes, up to 4m"},
		},
		Action: func(ctx *urfave.Context) error {
			if time.Duration(o.rebootDuration) > 4*time.Minute {
				return fail.Usagef("--reboot-duration %v is longer than 4m; a direct method has to answer within 5m", &o.rebootDuration)
			}
			return runDemo(ctx.Context, s, time.Duration(o.rebootDuration))
		},
	})
}

// A stage shows what the roles of the demo say, line by line, each with the
// time since the start and the name of who says it.
type stage struct {
	s      output.Streams
	colour bool
	start  time.Time
	mu     sync.Mutex // one line at a time
}

// roleColours are terminal colours that are legible on light and dark.
var roleColours = map[string]string{"hub": "\x1b[35m", "device": "\x1b[32m", "service": "\x1b[36m"}

func (g *stage) say(role, format string, args ...any) {
	label := fmt.Sprintf("%-8s", role)
	if g.colour {
		label = roleColours[role] + label + "\x1b[0m"
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintf(output.Unguarded(g.s.Out), "%6.2fs %s %s\n", time.Since(g.start).Seconds(), label, output.Visible(fmt.Sprintf(format, args...)))
}

func runDemo(ctx context.Context, s output.Streams, rebootDuration time.Duration) (err error) {
	g := &stage{s: s, colour: output.Colours(s.Out), start: time.Now()}
	n, local, err := startDemoHub(g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	operator := local(sas.ConnectionString{SharedAccessKeyName: localhub.OwnerPolicy, SharedAccessKey: ownerKey(n.Policies())})
	client, err := operator.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	registered, err := client.CreateDevice(ctx, hubrest.Device{DeviceID: target.LocalDevice})
	if err != nil {
		return operator.Explain(ctx, err, hubrest.Target{DeviceID: target.LocalDevice})
	}
	g.say("service", "registered the device %s", registered.DeviceID)

	device := local(sas.ConnectionString{DeviceID: target.LocalDevice, SharedAccessKey: registered.Authentication.SymmetricKey.PrimaryKey})
	line := func(text string) { g.say("device", "%s", text) }
	options := device.DeviceOptions()
	log := slog.New(clidevice.AgentLog{Line: func(_ slog.Level, text string) { line(text) }})
	options.OnState = (&clidevice.LinkLog{Log: log}).Changed
	a, err := agent.New(agent.Options{
		Device:         options,
		RebootDuration: rebootDuration,
		OnEvent:        func(e agent.Event) { line(string(e)) },
		Logger:         log,
	})
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Connect(ctx); err != nil {
		return device.ExplainDevice(ctx, err)
	}
	g.say("device", "connected as %s, waiting for commands", target.LocalDevice)
	call := hubrest.Method{Name: reboot.Method, ResponseTimeout: 30*time.Second + rebootDuration}
	return demoReboot(ctx, g, operator, service.NewReboot(client, device.Identity(), call))
}

// demoReboot is the part of the tutorial's service program.
func demoReboot(ctx context.Context, g *stage, operator target.Target, r *service.Assignment) error {
	g.say("service", "Invoking device to reboot...")
	answer, err := r.Invoke(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // the device, which ends too, may have been fast enough to answer that
	}
	if err != nil {
		return operator.Explain(ctx, err, r.Device)
	}
	g.say("service", "answer %d %s", answer.Status, answer.Payload)
	if err := target.CheckAnswer(r.Device, r.Call.Name, answer); err != nil {
		return err
	}
	found, err := r.Await(ctx, nil)
	if err != nil {
		return operator.Explain(ctx, err, r.Device)
	}
	g.say("service", "Last reboot time: %s", gjson.ParseBytes(found.RebootTime))
	return nil
}

// startDemoHub starts a hub in memory on free ports. What it returns makes
// targets of connection strings that lack the host.
func startDemoHub(g *stage) (*node.Node, func(sas.ConnectionString) target.Target, error) {
	var on node.Listeners
	var err error
	for _, l := range []*net.Listener{&on.MQTTS, &on.HTTPS} {
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			on.Close()
			return nil, nil, fmt.Errorf("start the hub: %w", err)
		}
	}
	n, err := node.New(node.Options{})
	if err != nil {
		on.Close()
		return nil, nil, fmt.Errorf("start the hub: %w", err)
	}
	n.Serve(on)
	g.say("hub", "MQTT on %s, REST on %s, both over TLS", on.MQTTS.Addr(), on.HTTPS.Addr())
	return n, func(c sas.ConnectionString) target.Target {
		c.HostName = "localhost"
		return target.Target{Connection: c, MQTTSAddr: on.MQTTS.Addr().String(), HTTPSAddr: on.HTTPS.Addr().String(), TLS: &tls.Config{RootCAs: n.RootCAs()}}
	}, nil
}

func ownerKey(policies []hub.Policy) sas.Key {
	for _, p := range policies {
		if p.Name == localhub.OwnerPolicy {
			return p.PrimaryKey
		}
	}
	return ""
}
