package service

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func c2dCommands(s output.Streams) *urfave.Command {
	c := command.Group("c2d", "cloud-to-device messages", c2dSendCommand(s), c2dFeedbackCommand(s), c2dPurgeCommand(s))
	c.Aliases = []string{"c2d-message"} // as "az iot device"
	return c
}

type c2dSendOptions struct {
	deviceOptions
	message    hubrest.Message
	data       string
	ack        string
	expiry     string
	properties command.Texts
	props      string
}

// Flags has the data folder of the hub as --data-folder: --data is the message
// here, as it is for "az iot device".
func (o *c2dSendOptions) Flags() []urfave.Flag {
	flags := o.deviceOptions.Flags()
	for _, f := range flags {
		if f, ok := f.(*urfave.StringFlag); ok && f.Name == "data" {
			f.Name = "data-folder"
		}
	}
	return flags
}

func c2dSendCommand(s output.Streams) *urfave.Command {
	var o c2dSendOptions
	return command.Leaf(&urfave.Command{
		Name:  "send",
		Usage: "send a message to a device, which gets it when it is connected",
		Description: "For example:\n" +
			"   iotdm service c2d send --device device-1 --data '{\"interval\": 60}' --property urgent=true\n" +
			"   iotdm service c2d send --device device-1 --data @update.json --ack full --expiry 10m",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "data", Aliases: []string{"da"}, Destination: &o.data, Usage: "the `TEXT` to send, @FILE or -"},
			command.PropertyFlag(&o.properties),
			&urfave.StringFlag{Name: "props", Aliases: []string{"p"}, Destination: &o.props, Usage: "application properties as `N1=V1;N2=V2`"},
			&urfave.StringFlag{Name: "ack", Destination: &o.ack, Usage: "ask for feedback: positive (delivered), negative (not delivered) or full (both)"},
			&urfave.StringFlag{Name: "expiry", Destination: &o.expiry, Usage: "drop it after so `LONG` (10m) or at a time (RFC 3339)", DefaultText: "1h"},
			&urfave.StringFlag{Name: "message-id", Destination: &o.message.MessageID, Usage: "the message `ID`, which feedback names"},
			&urfave.StringFlag{Name: "correlation-id", Destination: &o.message.CorrelationID, Usage: "the correlation `ID`"},
			&urfave.StringFlag{Name: "user-id", Destination: &o.message.UserID, Usage: "the user `ID`"},
			&urfave.StringFlag{Name: "content-type", Destination: &o.message.ContentType, Usage: "such as application/json"},
			&urfave.StringFlag{Name: "content-encoding", Destination: &o.message.ContentEncoding, Usage: "such as utf-8"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.Check(), o.complete(s, time.Now())); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				err := client.SendMessage(ctx, o.device, o.message)
				if err == nil {
					s.Note("Sent %s to device %s", output.Count(len(o.message.Body), "byte"), o.device)
				}
				return nil, err
			})
		},
	})
}

// complete fills in what has to be parsed.
func (o *c2dSendOptions) complete(s output.Streams, now time.Time) error {
	if o.data == "" {
		return fail.Usagef("--data is missing; give the text to send, for example --data hello")
	}
	text, err := command.ReadValue(s, "--data", o.data)
	if err != nil {
		return err
	}
	o.message.Body = []byte(text)
	switch ack := hubrest.Ack(strings.ToLower(o.ack)); ack {
	case "", hubrest.AckNone, hubrest.AckPositive, hubrest.AckNegative, hubrest.AckFull:
		o.message.Ack = ack
	default:
		return fail.Usagef("--ack %q is none of positive, negative, full", o.ack)
	}
	if o.message.Expiry, err = parseExpiry(o.expiry, now); err != nil {
		return err
	}
	o.message.Properties, err = command.ParseProperties(o.properties, o.props)
	return err
}

// parseExpiry takes a duration, a time, or the milliseconds since 1970 that
// "az iot device c2d-message send" takes.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	var in command.Seconds
	if text == "" {
		return time.Time{}, nil
	}
	if in.Set(text) == nil {
		return now.Add(time.Duration(in)), nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.UnixMilli(ms), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fail.Usagef("--expiry %q is neither a time such as 2026-01-31T08:00:00Z nor a duration such as 10m", text)
	}
	return t, nil
}

func c2dPurgeCommand(s output.Streams) *urfave.Command {
	var o deviceOptions
	return target.OneCall(s, &urfave.Command{
		Name:        "purge",
		Usage:       "throw away the messages that wait for a device",
		Description: "For example:\n   iotdm service c2d purge --device device-1",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		n, err := client.PurgeCommands(ctx, o.device)
		v := struct {
			Device string `json:"deviceId"`
			Purged int    `json:"totalMessagesPurged"`
		}{o.device, n}
		return output.Result{Value: v, Text: func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "Messages thrown away: %d\n", n)
			return err
		}}, err
	})
}
