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
	"github.com/iotdm/iotdm/hubrest"
)

// feedbackColumns are what the table of feedback shows.
var feedbackColumns = []output.Column{
	{"TIME", "enqueuedTimeUtc"},
	{"DEVICE", "deviceId"},
	{"MESSAGE", "originalMessageId"},
	{"STATUS", "statusCode"},
}

// feedbackInterval is how often "c2d feedback --follow" asks. The hub hands
// out feedback in batches, 15 seconds apart.
const feedbackInterval = 5 * time.Second

type feedbackOptions struct {
	target.Service
	follow bool
}

func c2dFeedbackCommand(s output.Streams) *urfave.Command {
	var o feedbackOptions
	return command.Leaf(&urfave.Command{
		Name:  "feedback",
		Usage: "take the feedback of messages that were sent with --ack",
		Description: "Feedback is gone once it is printed, and each goes to one reader. For example:\n" +
			"   iotdm service c2d feedback --follow",
		Flags: command.Concat([]urfave.Flag{
			&urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, DisableDefaultText: true, Usage: "go on with the feedback that comes, until Ctrl-C"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Output.Check(); err != nil {
				return err
			}
			return takeFeedback(ctx.Context, s, o)
		},
	})
}

func takeFeedback(ctx context.Context, s output.Streams, o feedbackOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if !o.follow {
		return t.Explain(ctx, takeWaitingFeedback(ctx, s, o.Output, client), target.NoIdentity)
	}
	s.Note("Waiting for feedback from %s, press Ctrl-C to exit", t.Host())
	tick := time.NewTicker(feedbackInterval)
	defer tick.Stop()
	for {
		batch, err := client.ReceiveFeedback(ctx)
		if err == nil && batch.LockToken != "" {
			for _, record := range batch.Records {
				if err := printFeedback(s, o.Output, record); err != nil {
					return err
				}
			}
			err = client.CompleteFeedback(ctx, batch.LockToken)
		}
		if ctx.Err() != nil {
			return command.WhyEnded(ctx)
		}
		if err != nil {
			return t.Explain(ctx, err, target.NoIdentity)
		}
		select {
		case <-ctx.Done():
			return command.WhyEnded(ctx)
		case <-tick.C:
		}
	}
}

// takeWaitingFeedback prints what waits as one list. The hub forgets it once it
// is printed.
func takeWaitingFeedback(ctx context.Context, s output.Streams, opt output.Options, client *hubrest.Client) error {
	records, locks := []hubrest.Feedback{}, []string{}
	for {
		batch, err := client.ReceiveFeedback(ctx)
		if err != nil {
			return err
		}
		if batch.LockToken == "" {
			break
		}
		records, locks = append(records, batch.Records...), append(locks, batch.LockToken)
	}
	if err := opt.Print(s, output.Result{Value: records, Columns: feedbackColumns}); err != nil {
		return err
	}
	for _, lock := range locks {
		if err := client.CompleteFeedback(ctx, lock); err != nil {
			return err
		}
	}
	return nil
}

func printFeedback(s output.Streams, opt output.Options, f hubrest.Feedback) error {
	return opt.PrintEvent(s, output.Result{Value: f, Text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s  %s  %s\n", f.EnqueuedTime.Local().Format(time.DateTime), output.OneLine(f.DeviceID), output.OneLine(f.OriginalMessageID), output.OneLine(f.StatusCode))
		return err
	}})
}
