package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

func c2dCommands(s streams) *urfave.Command {
	c := group("c2d", "cloud-to-device messages", c2dSendCommand(s), c2dFeedbackCommand(s), c2dPurgeCommand(s))
	c.Aliases = []string{"c2d-message"} // as "az iot device"
	return c
}

type c2dSendOptions struct {
	deviceOptions
	message    hubrest.Message
	data       string
	ack        string
	expiry     string
	properties texts
	props      string
}

// flags has the data folder of the hub as --data-folder: --data is the message
// here, as it is for "az iot device".
func (o *c2dSendOptions) flags() []urfave.Flag {
	flags := o.deviceOptions.flags()
	for _, f := range flags {
		if f, ok := f.(*urfave.StringFlag); ok && f.Name == "data" {
			f.Name = "data-folder"
		}
	}
	return flags
}

func c2dSendCommand(s streams) *urfave.Command {
	var o c2dSendOptions
	return leaf(&urfave.Command{
		Name:  "send",
		Usage: "send a message to a device, which gets it when it is connected",
		Description: "For example:\n" +
			"   iotdm service c2d send --device device-1 --data '{\"interval\": 60}' --property urgent=true\n" +
			"   iotdm service c2d send --device device-1 --data @update.json --ack full --expiry 10m",
		Flags: concat([]urfave.Flag{
			&urfave.StringFlag{Name: "data", Aliases: []string{"da"}, Destination: &o.data, Usage: "the `TEXT` to send, @FILE or -"},
			propertyFlag(&o.properties),
			&urfave.StringFlag{Name: "props", Aliases: []string{"p"}, Destination: &o.props, Usage: "application properties as `N1=V1;N2=V2`"},
			&urfave.StringFlag{Name: "ack", Destination: &o.ack, Usage: "ask for feedback: positive (delivered), negative (not delivered) or full (both)"},
			&urfave.StringFlag{Name: "expiry", Destination: &o.expiry, Usage: "drop it after so `LONG` (10m) or at a time (RFC 3339)", DefaultText: "1h"},
			&urfave.StringFlag{Name: "message-id", Destination: &o.message.MessageID, Usage: "the message `ID`, which feedback names"},
			&urfave.StringFlag{Name: "correlation-id", Destination: &o.message.CorrelationID, Usage: "the correlation `ID`"},
			&urfave.StringFlag{Name: "user-id", Destination: &o.message.UserID, Usage: "the user `ID`"},
			&urfave.StringFlag{Name: "content-type", Destination: &o.message.ContentType, Usage: "such as application/json"},
			&urfave.StringFlag{Name: "content-encoding", Destination: &o.message.ContentEncoding, Usage: "such as utf-8"},
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := firstError(o.check(), o.complete(s, time.Now())); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				err := client.SendMessage(ctx, o.device, o.message)
				if err == nil {
					s.note("Sent %s to device %s", count(len(o.message.Body), "byte"), o.device)
				}
				return nil, err
			})
		},
	})
}

// complete fills in what has to be parsed.
func (o *c2dSendOptions) complete(s streams, now time.Time) error {
	if o.data == "" {
		return usagef("--data is missing; give the text to send, for example --data hello")
	}
	text, err := readValue(s, "--data", o.data)
	if err != nil {
		return err
	}
	o.message.Body = []byte(text)
	switch ack := hubrest.Ack(strings.ToLower(o.ack)); ack {
	case "", hubrest.AckNone, hubrest.AckPositive, hubrest.AckNegative, hubrest.AckFull:
		o.message.Ack = ack
	default:
		return usagef("--ack %q is none of positive, negative, full", o.ack)
	}
	if o.message.Expiry, err = parseExpiry(o.expiry, now); err != nil {
		return err
	}
	o.message.Properties, err = parseProperties(o.properties, o.props)
	return err
}

// parseExpiry takes a duration, a time, or the milliseconds since 1970 that
// "az iot device c2d-message send" takes.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	var in seconds
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
		return t, usagef("--expiry %q is neither a time such as 2026-01-31T08:00:00Z nor a duration such as 10m", text)
	}
	return t, nil
}

func c2dPurgeCommand(s streams) *urfave.Command {
	var o deviceOptions
	return leaf(&urfave.Command{
		Name:        "purge",
		Usage:       "throw away the messages that wait for a device",
		Description: "For example:\n   iotdm service c2d purge --device device-1",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			t, client, err := o.open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			n, err := client.PurgeCommands(ctx.Context, o.device)
			if err != nil {
				return t.explain(ctx.Context, err, o.target())
			}
			v := struct {
				Device string `json:"deviceId"`
				Purged int    `json:"totalMessagesPurged"`
			}{o.device, n}
			return o.output.print(s, result{value: v, text: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "Messages thrown away: %d\n", n)
				return err
			}})
		},
	})
}
