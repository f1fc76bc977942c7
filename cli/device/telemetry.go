package device

import (
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/agent/telemetry"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/fleet"
	"github.com/iotdm/iotdm/mqttdevice"
)

// telemetryOptions are the flags of "device run" that make it send messages by
// itself.
type telemetryOptions struct {
	interval   command.Seconds
	command    string
	template   string
	outboxSize int64 // MiB
}

// defaultOutboxSize holds a message of 500 bytes a second for three days.
const defaultOutboxSize = 128

func (o *telemetryOptions) flags() []urfave.Flag {
	const category = "Telemetry"
	return []urfave.Flag{
		&urfave.GenericFlag{Name: "telemetry-interval", Category: category, Value: &o.interval,
			Usage: "send a message every so `LONG`; what one is, the next flags say (default: made-up readings, every 1m)", DefaultText: "none"},
		&urfave.StringFlag{Name: "telemetry-command", Category: category, Destination: &o.command,
			Usage: "send what `COMMAND` prints; write shell: before it to have the shell run it"},
		&urfave.StringFlag{Name: "telemetry-template", Category: category, Destination: &o.template,
			Usage: "send `TEXT`, in which {{.DeviceID}}, {{.Time}}, {{.Sequence}}, {{rand 18 26}} and {{pick 1 2 3}} are replaced; or @FILE"},
		&urfave.Int64Flag{Name: "outbox-size", Category: category, Destination: &o.outboxSize, Value: defaultOutboxSize,
			Usage: "keep up to so many `MIB` of unsent messages on disk; beyond, the oldest are dropped"},
	}
}

// telemetryHelp is for the description of the command that has these flags.
const telemetryHelp = `Telemetry, and what "iotdm device send --queue" hands over, waits on disk until the hub has it: it
survives restarts and days without a network, and is sent in order. For example:
   --telemetry-interval 10s --telemetry-template '{"temperature": {{rand 18 26}}}'
   --telemetry-interval 1m --telemetry-command 'shell:df --output=pcent / | tail -1'`

// options adds what the flags say to opt.
func (o *telemetryOptions) options(s output.Streams, opt *agent.Options) error {
	if o.outboxSize < 1 || o.outboxSize > 1<<20 {
		return fail.Usagef("--outbox-size %d is not between 1 and 1048576 MiB", o.outboxSize)
	}
	opt.OutboxBytes = o.outboxSize << 20
	opt.Telemetry.Interval = time.Duration(o.interval)
	if o.command != "" && o.template != "" {
		return fail.Usagef("give either --telemetry-command or --telemetry-template")
	}
	var err error
	if o.template != "" {
		if opt.Telemetry.Template, err = command.ReadValue(s, "--telemetry-template", o.template); err != nil {
			return err
		}
	}
	if o.command != "" {
		if opt.Telemetry.Command, err = agent.ParseCommand(o.command); err != nil {
			return fail.Usagef("--telemetry-command: %v", err)
		}
	}
	return nil
}

// simulate adds what the flags say to the options of a fleet, whose devices
// have no outbox.
func (o *telemetryOptions) simulate(s output.Streams, opt *fleet.Options) error {
	if opt.TelemetryInterval = time.Duration(o.interval); o.template != "" && o.interval == 0 {
		opt.TelemetryInterval = time.Minute
	}
	text, err := command.ReadValue(s, "--telemetry-template", o.template)
	if err != nil {
		return err
	}
	template, err := telemetry.Parse(text)
	if err != nil {
		return fail.Usagef("--telemetry-template: %v", err)
	}
	opt.Telemetry = func(device, module string, n uint64) (mqttdevice.Message, error) {
		return template.Message(device, module, n, time.Now())
	}
	return nil
}
