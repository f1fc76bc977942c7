package service

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

func c2dCommands(s output.Streams) *urfave.Command {
	c := command.Group("c2d", "cloud-to-device messages", c2dSendCommand(s), c2dFeedbackCommand(s), c2dPurgeCommand(s))
	c.Aliases = []string{"c2d-message"} // as "az iot device"
	return c
}

type c2dSendOptions struct {
	target.Messaging
	device     string
	message    hubamqp.Message
	data       string
	file       string
	ack        string
	expiry     string
	properties command.Texts
	props      string
	wait       bool
}

// Flags has the data folder of the hub as --data-folder: --data is the message
// here, as it is for "az iot device".
func (o *c2dSendOptions) Flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{command.DeviceFlag(&o.device, "the device `ID`")}, command.RenameFlag(o.Messaging.Flags(), "data", "data-folder"))
}

// Check refuses options that make no sense.
func (o *c2dSendOptions) Check() error {
	return fail.First(command.RequireDevice(o.device), o.Messaging.Check())
}

// About returns the device.
func (o *c2dSendOptions) About() hubrest.Target { return hubrest.Target{DeviceID: o.device} }

func c2dSendCommand(s output.Streams) *urfave.Command {
	var o c2dSendOptions
	return command.Leaf(&urfave.Command{
		Name:      "send",
		ArgsUsage: "[DEVICE]",
		Usage:     "send a message to a device, which gets it when it is connected",
		Description: "Sends it over AMQP, to Azure IoT Hub too. With --wait it stays until the device\n" +
			"has taken the message, or will not, and takes the feedback on other messages\n" +
			"meanwhile. For example:\n" +
			"   iotdm service c2d send --device device-1 --data '{\"interval\": 60}' --property urgent=true\n" +
			"   iotdm service c2d send --device device-1 --data @update.json --ack full --expiry 10m\n" +
			"   iotdm service c2d send --device device-1 --data hello --wait --timeout 1m",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "data", Aliases: []string{"da"}, Destination: &o.data, Usage: "the `TEXT` to send, @FILE or -"},
			&urfave.StringFlag{Name: "data-file-path", Aliases: []string{"dfp"}, Destination: &o.file, Usage: "send `FILE` as it is, whatever is in it"},
			command.PropertyFlag(&o.properties),
			&urfave.StringFlag{Name: "props", Aliases: []string{"p"}, Destination: &o.props, Usage: "application properties as `N1=V1;N2=V2`"},
			&urfave.StringFlag{Name: "ack", Destination: &o.ack, Usage: "ask for feedback: positive (delivered), negative (not delivered) or full (both)"},
			&urfave.BoolFlag{Name: "wait", Aliases: []string{"w"}, Destination: &o.wait, DisableDefaultText: true, Usage: "wait for the feedback, with --ack full unless it is given"},
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
			return sendMessage(ctx.Context, s, o)
		},
	})
}

// complete fills in what has to be parsed.
func (o *c2dSendOptions) complete(s output.Streams, now time.Time) (err error) {
	switch {
	case o.file != "" && o.data != "":
		return fail.Usagef("--data and --data-file-path are two messages; give one of them")
	case o.file != "":
		if o.message.Body, err = readFile(o.file); err != nil {
			return err
		}
	case o.data == "":
		return fail.Usagef("--data is missing; give the text to send, for example --data hello")
	default:
		text, err := command.ReadValue(s, "--data", o.data)
		if err != nil {
			return err
		}
		o.message.Body = []byte(text)
	}
	switch ack := hubamqp.Ack(strings.ToLower(o.ack)); ack {
	case "", hubamqp.AckNone, hubamqp.AckPositive, hubamqp.AckNegative, hubamqp.AckFull:
		o.message.Ack = ack
	default:
		return fail.Usagef("--ack %q is none of positive, negative, full", o.ack)
	}
	if o.wait {
		switch o.message.Ack {
		case "":
			o.message.Ack = hubamqp.AckFull
		case hubamqp.AckNone:
			return fail.Usagef("--wait is for feedback, which --ack none does without")
		}
		if o.message.MessageID == "" {
			o.message.MessageID = rand.Text()
		}
	}
	if o.message.Expiry, err = parseExpiry(o.expiry, now); err != nil {
		return err
	}
	o.message.Properties, err = command.ParseProperties(o.properties, o.props)
	return err
}

// readFile reads a message that may be anything.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fail.Usagef("--data-file-path: %v", fail.PlainPathError(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, command.MaxInput+1))
	if err != nil {
		return nil, fail.Errorf(fail.Failed, "--data-file-path: %v", fail.PlainPathError(err))
	}
	if len(b) > command.MaxInput {
		return nil, fail.Usagef("--data-file-path: more than %d KiB", command.MaxInput>>10)
	}
	return b, nil
}

func sendMessage(ctx context.Context, s output.Streams, o c2dSendOptions) error {
	t, client, err := o.OpenAMQP(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Send(ctx, hubamqp.Target{DeviceID: o.device}, o.message); err != nil {
		return t.ExplainAMQP(ctx, err, o.About())
	}
	s.Note("Sent %s to device %s", output.Count(len(o.message.Body), "byte"), o.device)
	if !o.wait {
		return nil
	}
	return awaitFeedback(ctx, s, o, t, client)
}

// awaitFeedback waits for what becomes of the message that was sent.
func awaitFeedback(ctx context.Context, s output.Streams, o c2dSendOptions, t target.Target, client *hubamqp.Client) error {
	s.Note("Waiting for feedback, press Ctrl-C to exit")
	receiver := client.Feedback()
	defer receiver.Close()
	for {
		batch, err := receiver.Receive(ctx)
		if err != nil && ctx.Err() != nil {
			return fail.Errorf(fail.Interrupted, "interrupted; the message waits for device %q, and what becomes of it shows \"iotdm service c2d feedback\"", o.device)
		}
		if err != nil {
			return t.ExplainAMQP(ctx, err, target.NoIdentity)
		}
		var found *hubamqp.Feedback
		for i, f := range batch.Records {
			if f.DeviceID == o.device && f.OriginalMessageID == o.message.MessageID {
				found = &batch.Records[i]
				continue
			}
			s.Note("Feedback on another message: %s %s %s", output.OneLine(f.DeviceID), output.OneLine(f.OriginalMessageID), output.OneLine(f.StatusCode))
		}
		if found != nil {
			if err := printFeedback(s, o.Output, *found); err != nil {
				return err
			}
		}
		if err := batch.Complete(ctx); err != nil {
			s.Note("%s; it may come again", output.OneLine(err.Error()))
		}
		switch {
		case found == nil:
		case found.StatusCode != "Success":
			return fail.Errorf(fail.Failed, "device %q has not taken the message: %s", o.device, output.OneLine(found.StatusCode))
		default:
			return nil
		}
	}
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
		ArgsUsage:   "[DEVICE]",
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
