package cli

import (
	"fmt"
	"maps"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
)

// commandOptions are the flags of "device run" that bind what the hub asks for
// to commands.
type commandOptions struct {
	onMethod, onDesired boundCommands
	timeout             seconds
}

func (o *commandOptions) flags() []urfave.Flag {
	const category = "Commands"
	o.onMethod = boundCommands{noun: "NAME", example: "status=/usr/lib/app/status", commands: make(map[string]agent.Command)}
	o.onDesired = boundCommands{noun: "PATH", example: "telemetry.interval=/usr/lib/app/set-interval", commands: make(map[string]agent.Command)}
	o.timeout = seconds(30 * time.Second)
	return []urfave.Flag{
		&urfave.GenericFlag{Name: "on-method", Category: category, Value: &o.onMethod,
			Usage: "answer a direct method with what a command prints: `NAME=COMMAND`, as often as needed"},
		&urfave.GenericFlag{Name: "on-desired", Category: category, Value: &o.onDesired,
			Usage: "carry out a desired property with a command: `PATH=COMMAND`, as often as needed"},
		&urfave.GenericFlag{Name: "command-timeout", Category: category, Value: &o.timeout,
			Usage: "kill a command of --on-method or --on-desired after `LONG`"},
	}
}

// commandHelp is for the description of the command that has these flags.
const commandHelp = `Commands get JSON on standard input and print JSON or nothing. For example:
   --on-method config="cat /etc/app.json" --on-method 'uptime=shell:uptime -p | jq -R .'
   --on-desired telemetry.interval=/usr/lib/app/set-interval
No shell sees a command unless "shell:" is written before it. It runs once at a time, a method's more
often with "concurrent:" before it. Exit status 0 is answered 200, 64 and 65 are 400, 77 is 403, 69
and 75 are 503, others 500. A desired property is acknowledged at the same path in the reported ones,
as {"value", "ac": 200, "av": desired version, "ad"}.`

// options adds what the flags say to opt.
func (o *commandOptions) options(opt *agent.Options) error {
	if o.timeout == 0 {
		return usagef("--command-timeout 0s leaves no time; give it at least a second")
	}
	opt.OnMethod = o.onMethod.withTimeout(time.Duration(o.timeout))
	opt.OnDesired = o.onDesired.withTimeout(time.Duration(o.timeout))
	return nil
}

// boundCommands is the value of a flag that is given once for each command.
type boundCommands struct {
	noun, example string
	commands      map[string]agent.Command
}

func (b *boundCommands) String() string { return "" }

func (b *boundCommands) repeatable() {}

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

// withTimeout returns the commands, each with its timeout.
func (b *boundCommands) withTimeout(timeout time.Duration) map[string]agent.Command {
	commands := maps.Clone(b.commands)
	for name, c := range commands {
		c.Timeout = timeout
		commands[name] = c
	}
	return commands
}
