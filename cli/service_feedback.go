package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

// feedbackColumns are what the table of feedback shows.
var feedbackColumns = []column{
	{"TIME", "enqueuedTimeUtc"},
	{"DEVICE", "deviceId"},
	{"MESSAGE", "originalMessageId"},
	{"STATUS", "statusCode"},
}

// feedbackInterval is how often "c2d feedback --follow" asks. The hub hands
// out feedback in batches, 15 seconds apart.
const feedbackInterval = 5 * time.Second

type feedbackOptions struct {
	serviceOptions
	follow bool
}

func c2dFeedbackCommand(s streams) *urfave.Command {
	var o feedbackOptions
	return leaf(&urfave.Command{
		Name:  "feedback",
		Usage: "take the feedback of messages that were sent with --ack",
		Description: "Feedback is gone once it is printed, and each goes to one reader. For example:\n" +
			"   iotdm service c2d feedback --follow",
		Flags: concat([]urfave.Flag{
			&urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, DisableDefaultText: true, Usage: "go on with the feedback that comes, until Ctrl-C"},
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.check(); err != nil {
				return err
			}
			return takeFeedback(ctx.Context, s, o)
		},
	})
}

func takeFeedback(ctx context.Context, s streams, o feedbackOptions) error {
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if !o.follow {
		return t.explain(ctx, takeWaitingFeedback(ctx, s, o.output, client), noIdentity)
	}
	s.note("Waiting for feedback from %s, press Ctrl-C to exit", t.host())
	tick := time.NewTicker(feedbackInterval)
	defer tick.Stop()
	for {
		batch, err := client.ReceiveFeedback(ctx)
		if err == nil && batch.LockToken != "" {
			for _, record := range batch.Records {
				if err := printFeedback(s, o.output, record); err != nil {
					return err
				}
			}
			err = client.CompleteFeedback(ctx, batch.LockToken)
		}
		if ctx.Err() != nil {
			return whyEnded(ctx)
		}
		if err != nil {
			return t.explain(ctx, err, noIdentity)
		}
		select {
		case <-ctx.Done():
			return whyEnded(ctx)
		case <-tick.C:
		}
	}
}

// takeWaitingFeedback prints what waits as one list. The hub forgets it once it
// is printed.
func takeWaitingFeedback(ctx context.Context, s streams, opt outputOptions, client *hubrest.Client) error {
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
	if err := opt.print(s, result{value: records, columns: feedbackColumns}); err != nil {
		return err
	}
	for _, lock := range locks {
		if err := client.CompleteFeedback(ctx, lock); err != nil {
			return err
		}
	}
	return nil
}

func printFeedback(s streams, opt outputOptions, f hubrest.Feedback) error {
	return opt.printEvent(s, result{value: f, text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s  %s  %s  %s\n", f.EnqueuedTime.Local().Format(time.DateTime), oneLine(f.DeviceID), oneLine(f.OriginalMessageID), oneLine(f.StatusCode))
		return err
	}})
}
