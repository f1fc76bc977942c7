package cli

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/mqttdevice"
)

type deviceSendOptions struct {
	as         actAsOptions
	message    mqttdevice.Message
	properties urfave.StringSlice
}

func deviceSendCommand(s streams) *urfave.Command {
	var o deviceSendOptions
	return leaf(&urfave.Command{
		Name:      "send",
		Usage:     "send one device-to-cloud message",
		ArgsUsage: "MESSAGE",
		Description: "MESSAGE is text, @FILE or -.\n" + onceHelp +
			"   iotdm device send --device device-1 '{\"temperature\": 21.5}' --content-type application/json",
		Flags: concat(o.as.flags(), []urfave.Flag{
			&urfave.StringSliceFlag{Name: "property", Destination: &o.properties, Usage: "an application property `NAME=VALUE`, repeatable"},
			&urfave.StringFlag{Name: "message-id", Destination: &o.message.ID, Usage: "the message `ID`"},
			&urfave.StringFlag{Name: "correlation-id", Destination: &o.message.CorrelationID, Usage: "the correlation `ID`"},
			&urfave.StringFlag{Name: "content-type", Destination: &o.message.ContentType, Usage: "such as application/json"},
			&urfave.StringFlag{Name: "content-encoding", Destination: &o.message.ContentEncoding, Usage: "such as utf-8"},
		}),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			text, err := readValue(s, "MESSAGE", ctx.Args().First())
			if err != nil {
				return err
			}
			o.message.Payload = []byte(text)
			return sendMessage(ctx.Context, s, o)
		},
	})
}

func (o *deviceSendOptions) check() error {
	var err error
	o.message.Properties, err = parseProperties(o.properties.Value())
	return err
}

func sendMessage(ctx context.Context, s streams, o deviceSendOptions) error {
	t, client, err := o.as.connectOnce(ctx, s)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Send(ctx, o.message); err != nil {
		return t.explainDevice(ctx, err)
	}
	s.note("Sent %d bytes as %s", len(o.message.Payload), t.identity())
	return nil
}
