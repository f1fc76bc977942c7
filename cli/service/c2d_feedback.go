package service

import (
	"context"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

// feedbackColumns are what the table of feedback shows.
var feedbackColumns = []output.Column{
	{"TIME", "enqueuedTimeUtc"},
	{"DEVICE", "deviceId"},
	{"MESSAGE", "originalMessageId"},
	{"STATUS", "statusCode"},
}

type feedbackOptions struct {
	target.Messaging
	device  string
	message string // to wait for
	follow  bool
}

func c2dFeedbackCommand(s output.Streams) *urfave.Command {
	var o feedbackOptions
	return command.Leaf(&urfave.Command{
		Name:  "feedback",
		Usage: "take the feedback of messages that were sent with --ack",
		Description: "Prints the feedback that waits, or with --follow what comes, over AMQP. Feedback\n" +
			"is gone once it is printed, and each goes to one reader. That on messages to\n" +
			"other devices than --device is taken too, and not printed. For example:\n" +
			"   iotdm service c2d feedback --follow\n" +
			"   iotdm service c2d feedback --device device-1 --wait-on-msg 7f3a",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.device, "print only what is about messages to the device `ID`"),
			&urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, DisableDefaultText: true, Usage: "go on with the feedback that comes, until Ctrl-C"},
			&urfave.StringFlag{Name: "wait-on-msg", Aliases: []string{"w"}, Destination: &o.message, Usage: "follow until there is feedback on the message `ID`"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			if o.follow || o.message != "" {
				return followFeedback(ctx.Context, s, o)
			}
			return takeFeedback(ctx.Context, s, o)
		},
	})
}

// takeFeedback prints what waits as one list. The hub forgets it once it is
// printed. It asks over REST, which tells that nothing more waits.
func takeFeedback(ctx context.Context, s output.Streams, o feedbackOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	records, locks := []hubrest.Feedback{}, []string{}
	for {
		batch, err := client.ReceiveFeedback(ctx)
		if err != nil {
			return t.Explain(ctx, err, target.NoIdentity)
		}
		if batch.LockToken == "" {
			break
		}
		locks = append(locks, batch.LockToken)
		for _, f := range batch.Records {
			if o.device == "" || o.device == f.DeviceID {
				records = append(records, f)
			}
		}
	}
	if err := o.Output.Print(s, output.Result{Value: records, Columns: feedbackColumns}); err != nil {
		return err
	}
	for _, lock := range locks {
		if err := client.CompleteFeedback(ctx, lock); err != nil {
			return t.Explain(ctx, err, target.NoIdentity)
		}
	}
	return nil
}

func followFeedback(ctx context.Context, s output.Streams, o feedbackOptions) error {
	t, client, err := o.OpenAMQP(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Check(ctx); err != nil {
		return endOrExplain(ctx, t, err)
	}
	s.Note("Waiting for feedback from %s, press Ctrl-C to exit", t.Host())
	receiver := client.Feedback()
	defer receiver.Close()
	for {
		batch, err := receiver.Receive(ctx)
		if err != nil {
			return endOrExplain(ctx, t, err)
		}
		found := false
		for _, f := range batch.Records {
			if o.device != "" && o.device != f.DeviceID {
				continue
			}
			found = found || o.message != "" && o.message == f.OriginalMessageID
			if err := printFeedback(s, o.Output, f); err != nil {
				return err
			}
		}
		if err := batch.Complete(ctx); err != nil {
			s.Note("%s; it may come again", output.OneLine(err.Error()))
		}
		if found {
			return nil
		}
	}
}

// endOrExplain is how a command fails that goes on until ctx ends.
func endOrExplain(ctx context.Context, t target.Target, err error) error {
	if ctx.Err() != nil {
		return command.WhyEnded(ctx)
	}
	return t.ExplainAMQP(ctx, err, target.NoIdentity)
}

// printFeedback prints a record in the shape of the REST API.
func printFeedback(s output.Streams, opt output.Options, f hubamqp.Feedback) error {
	value := hubrest.Feedback{OriginalMessageID: f.OriginalMessageID, EnqueuedTime: hubrest.Time{Time: f.EnqueuedTime}, StatusCode: f.StatusCode,
		Description: f.Description, DeviceID: f.DeviceID, DeviceGenerationID: f.DeviceGenerationID}
	return opt.PrintEvent(s, output.Result{Value: value, Text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s  %s  %s\n", f.EnqueuedTime.Local().Format(time.DateTime), output.OneLine(f.DeviceID), output.OneLine(f.OriginalMessageID), output.OneLine(f.StatusCode))
		return err
	}})
}
