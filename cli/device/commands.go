package device

import (
	"cmp"
	"fmt"
	"maps"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/target"
)

// commandOptions are the flags of "device run" that bind what the hub asks for
// to commands.
type commandOptions struct {
	onMethod, onDesired boundCommands
	timeout             command.Seconds

	factoryReset, update, rollback commandValue
	firmwareVersion                string
	maintenanceTimeout             command.Seconds
}

func (o *commandOptions) flags() []urfave.Flag {
	const category = "Commands"
	o.onMethod = boundCommands{noun: "NAME", example: "status=/usr/lib/app/status", commands: make(map[string]agent.Command)}
	o.onDesired = boundCommands{noun: "PATH", example: "telemetry.interval=/usr/lib/app/set-interval", commands: make(map[string]agent.Command)}
	o.timeout = command.Seconds(30 * time.Second)
	o.maintenanceTimeout = command.Seconds(30 * time.Minute)
	return []urfave.Flag{
		&urfave.GenericFlag{Name: "on-method", Category: category, Value: &o.onMethod,
			Usage: "answer a direct method with what a command prints: `NAME=COMMAND`, repeatable"},
		&urfave.GenericFlag{Name: "on-desired", Category: category, Value: &o.onDesired,
			Usage: "carry out a desired property with a command: `PATH=COMMAND`, repeatable"},
		&urfave.GenericFlag{Name: "command-timeout", Category: category, Value: &o.timeout,
			Usage: "kill a command of --on-method or --on-desired after `LONG`"},
		&urfave.GenericFlag{Name: "factory-reset-command", Category: category, Value: &o.factoryReset,
			Usage: "answer factoryReset, and then reset the machine with `COMMAND`"},
		&urfave.GenericFlag{Name: "update-command", Category: category, Value: &o.update,
			Usage: "install what firmwareUpdate or the desired property firmware names with `COMMAND`"},
		&urfave.GenericFlag{Name: "rollback-command", Category: category, Value: &o.rollback,
			Usage: "go back with `COMMAND` when --update-command fails"},
		&urfave.StringFlag{Name: "firmware-version", Category: category, Destination: &o.firmwareVersion,
			Usage: "report `VERSION` as what runs until there is an update"},
		&urfave.GenericFlag{Name: "maintenance-timeout", Category: category, Value: &o.maintenanceTimeout,
			Usage: "kill a command that resets, updates or goes back after `LONG`"},
	}
}

// commandHelp is for the description of the command that has these flags.
const commandHelp = `Commands get JSON on standard input and print JSON or nothing. For example:
   --on-method config="cat /etc/app.json" --on-method 'uptime=shell:uptime -p | jq -R .'
   --on-desired telemetry.interval=/usr/lib/app/set-interval
Before a command, "shell:" has the shell run it, "timeout=5m:" gives it more time, and "concurrent:" lets
a method's command run more than once at a time. Exit status 0 is answered 200, 64 and 65 are 400, 77 is
403, 69 and 75 are 503, others 500. A desired property is acknowledged at the same path in the reported
ones, as {"value", "ac": 200, "av": desired version, "ad"}.

An update is {"fwVersion": "2.0", "fwPackageURI": "https://...", "fwPackageCheckValue": its SHA-256,
"fwSize": bytes}, as payload of firmwareUpdate or as the desired property firmware; how it goes is
reported as firmware.fwUpdateStatus. The command has {file} and {version} in its words, and
IOTDM_UPDATE_FILE, _VERSION, _SHA256 and _PREVIOUS_VERSION in its environment:
   --update-command "dpkg -i {file}" --rollback-command "dpkg -i /usr/lib/app/last-good.deb"
A command that updates or resets asks for a reboot with exit status 102.`

// options adds what the flags say to opt.
func (o *commandOptions) options(opt *agent.Options, t target.Target) error {
	if o.timeout == 0 {
		return fail.Usagef("--command-timeout 0s leaves no time; give it at least a second")
	}
	opt.OnMethod = o.onMethod.withTimeout(time.Duration(o.timeout))
	opt.OnDesired = o.onDesired.withTimeout(time.Duration(o.timeout))
	if o.maintenanceTimeout == 0 {
		return fail.Usagef("--maintenance-timeout 0s leaves no time; give it at least a second")
	}
	for _, c := range []*commandValue{&o.factoryReset, &o.update, &o.rollback} {
		c.command.Timeout = cmp.Or(c.command.Timeout, time.Duration(o.maintenanceTimeout))
	}
	opt.FactoryReset = o.factoryReset.command
	opt.Update = agent.Update{
		Command: o.update.command, Rollback: o.rollback.command, Version: o.firmwareVersion, TLS: t.TLS.Clone(),
	}
	switch {
	case o.update.text == "" && o.rollback.text != "":
		return fail.Usagef("--rollback-command goes with --update-command; give that too")
	case o.update.text == "" && o.firmwareVersion != "":
		return fail.Usagef("--firmware-version goes with --update-command; give that too")
	}
	return nil
}

// needFolder reports whether the commands need a folder to remember in.
func (o *commandOptions) needFolder() bool { return o.factoryReset.text != "" || o.update.text != "" }

// commandValue is the value of a flag that is a command.
type commandValue struct {
	text    string
	command agent.Command
}

func (c *commandValue) String() string { return c.text }

func (c *commandValue) Set(text string) (err error) {
	if c.command, err = agent.ParseCommand(text); err != nil {
		return fmt.Errorf("cannot be run: %w", err)
	}
	if c.command.Concurrent {
		return fmt.Errorf("cannot be run: concurrent: is for direct methods only")
	}
	c.text = text
	return nil
}

// boundCommands is the value of a flag that is given once for each command.
type boundCommands struct {
	noun, example string
	commands      map[string]agent.Command
}

func (b *boundCommands) String() string { return "" }

// Repeatable says that there may be several in a configuration file.
func (b *boundCommands) Repeatable() {}

func (b *boundCommands) Set(text string) error {
	name, line, ok := strings.Cut(text, "=")
	if name = strings.TrimSpace(name); !ok || name == "" {
		return fmt.Errorf("is not %s=COMMAND, such as %s", b.noun, b.example)
	}
	if _, ok := b.commands[name]; ok {
		return fmt.Errorf("binds %s a second time", name)
	}
	c, err := agent.ParseCommand(line)
	if err != nil {
		return fmt.Errorf("cannot be run: %w", err)
	}
	b.commands[name] = c
	return nil
}

// withTimeout returns the commands; those that have no timeout get one.
func (b *boundCommands) withTimeout(timeout time.Duration) map[string]agent.Command {
	commands := maps.Clone(b.commands)
	for name, c := range commands {
		c.Timeout = cmp.Or(c.Timeout, timeout)
		commands[name] = c
	}
	return commands
}
