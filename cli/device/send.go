package device

import (
	"context"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/mqttdevice"
)

type deviceSendOptions struct {
	as         actAsOptions
	message    mqttdevice.Message
	properties command.Texts
	props      string
	lines      bool
	count      int
	interval   command.Seconds
	queue      bool
	data, file string
}

func deviceSendCommand(s output.Streams) *urfave.Command {
	var o deviceSendOptions
	return command.Leaf(&urfave.Command{
		Name:      "send",
		Usage:     "send device-to-cloud messages",
		ArgsUsage: "[MESSAGE]",
		Description: "MESSAGE is text, @FILE or -. With --queue the agent of the same device, which \"iotdm device run\" is,\n" +
			"sends it: the command returns when the message is safe on disk, connected or not.\n" +
			"Without, a device has one connection: this ends that of an agent, which then connects again. For example:\n" +
			"   iotdm device send --device device-1 '{\"temperature\": 21.5}' --content-type application/json\n" +
			"   iotdm device send --device device-1 --queue '{\"temperature\": 21.5}' --content-type application/json\n" +
			"   iotdm device send --device device-1 hello --count 100 --interval 3s --props 'site=north;alert=false'\n" +
			"   vmstat -n 5 | iotdm device send --device device-1 --lines",
		Flags: command.Concat(command.RenameFlag(o.as.flags("the `FOLDER` that the agent has as --state, for --queue and --provision"), "data", "data-folder"), []urfave.Flag{
			&urfave.StringFlag{Name: "data", Aliases: []string{"da"}, Destination: &o.data, Usage: "the MESSAGE: `TEXT`, @FILE or -"},
			&urfave.StringFlag{Name: "data-file-path", Aliases: []string{"dfp"}, Destination: &o.file, Usage: "the MESSAGE is what `FILE` holds"},
			command.LimitFlag(),
			&urfave.BoolFlag{Name: "lines", Destination: &o.lines, DisableDefaultText: true,
				Usage: "send each line of standard input, but empty ones, as a message"},
			&urfave.IntFlag{Name: "count", Aliases: []string{"msg-count", "mc"}, Destination: &o.count, Value: 1, Usage: "send MESSAGE so many `TIMES`"},
			&urfave.GenericFlag{Name: "interval", Aliases: []string{"msg-interval", "mi"}, Value: &o.interval, DefaultText: "none",
				Usage: "wait so `LONG` between two messages"},
			&urfave.BoolFlag{Name: "queue", Destination: &o.queue, DisableDefaultText: true,
				Usage: "leave it to the agent to send"},
			command.PropertyFlag(&o.properties),
			&urfave.StringFlag{Name: "props", Aliases: []string{"p"}, Destination: &o.props, Usage: "application properties as `N1=V1;N2=V2`"},
			&urfave.StringFlag{Name: "message-id", Destination: &o.message.ID, Usage: "the message `ID`"},
			&urfave.StringFlag{Name: "correlation-id", Destination: &o.message.CorrelationID, Usage: "the correlation `ID`"},
			&urfave.StringFlag{Name: "content-type", Destination: &o.message.ContentType, Usage: "such as application/json"},
			&urfave.StringFlag{Name: "content-encoding", Destination: &o.message.ContentEncoding, Usage: "such as utf-8"},
		}),
		Action: func(ctx *urfave.Context) error {
			message, given := ctx.Args().First(), ctx.Args().Present()
			for flag, value := range map[string]string{"data": o.data, "data-file-path": o.file} {
				switch {
				case !ctx.IsSet(flag):
					continue
				case given:
					return fail.Usagef("--%s is a message, and there is another one; the folder of a local hub is --data-folder here", flag)
				}
				message, given = value, true
			}
			if err := o.check(message, given); err != nil {
				return err
			}
			if o.file != "" {
				message = "@" + o.file
			}
			if !o.lines {
				text, err := command.ReadValue(s, "MESSAGE", message)
				if err != nil {
					return err
				}
				o.message.Payload = []byte(text)
			}
			return o.send(ctx.Context, s)
		},
	})
}

func (o *deviceSendOptions) check(message string, given bool) error {
	switch {
	case o.lines && given:
		return fail.Usagef("--lines sends what comes on standard input; leave out %q", message)
	case o.lines && o.count != 1:
		return fail.Usagef("--lines sends each line once; leave out --count")
	case !o.lines && !given:
		return fail.Usagef("MESSAGE is missing; see \"iotdm device send --help\"")
	case o.count < 1:
		return fail.Usagef("--count %d is less than 1", o.count)
	case o.many() && o.message.ID != "":
		return fail.Usagef("--message-id names one message, and several are sent; leave it out, and each gets one")
	}
	var err error
	o.message.Properties, err = command.ParseProperties(o.properties, o.props)
	return err
}

// many reports whether there may be more than one message.
func (o *deviceSendOptions) many() bool { return o.lines || o.count > 1 }

func (o *deviceSendOptions) send(ctx context.Context, s output.Streams) error {
	if o.queue {
		return o.queueMessages(ctx, s)
	}
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	if o.many() {
		return o.sendMany(ctx, s, t, client)
	}
	if err := client.Send(ctx, o.message); err != nil {
		return t.ExplainDevice(ctx, err)
	}
	s.Note("Sent %s as %s", output.Count(len(o.message.Payload), "byte"), t.Identity())
	return nil
}

// queueMessages leaves the messages to the agent.
func (o *deviceSendOptions) queueMessages(ctx context.Context, s output.Streams) error {
	t, err := o.as.offline(s)
	if err != nil {
		return err
	}
	folder, err := o.as.folder(t)
	if err != nil {
		return err
	}
	began, n, size := time.Now(), 0, 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for f := o.feed(ctx, s); err == nil; {
		var messages []mqttdevice.Message
		if messages, err = f.some(ctx); len(messages) > 0 {
			if failed := agent.Queue(folder, messages...); failed != nil {
				err = fail.Errorf(fail.Failed, "%v", failed)
				break
			}
			n += len(messages)
			size += len(messages[0].Payload)
		}
	}
	if o.many() {
		s.Note("Queued %s for %s%s", output.Count(n, "message"), t.Identity(), output.Rate(n, time.Since(began)))
	} else if err == errNoMore {
		s.Note("Queued %s for %s; \"iotdm device run\" sends them", output.Count(size, "byte"), t.Identity())
	}
	if err == errNoMore {
		return nil
	}
	return err
}
