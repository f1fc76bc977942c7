package hub

import (
	"context"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func clockCommands(s output.Streams) *urfave.Command {
	return command.Group("clock", "move the clock of a hub under test",
		clockGetCommand(s), clockAdvanceCommand(s), clockResetCommand(s))
}

// clockResult is a hub's clock for people and programs.
func clockResult(c hubrest.Clock) output.Result {
	return output.Result{Value: c, Text: func(w io.Writer) error {
		ahead := ", which is its machine's time"
		if by := time.Duration(c.AheadSeconds * float64(time.Second)); by != 0 {
			by := command.Seconds(by)
			ahead = fmt.Sprintf(", %s ahead of its machine's time", &by)
		}
		_, err := fmt.Fprintf(w, "The hub's clock shows %s%s\n", c.Time.UTC().Format(time.RFC3339), ahead)
		return err
	}}
}

func clockGetCommand(s output.Streams) *urfave.Command {
	var o target.Service
	return target.OneCall(s, &urfave.Command{
		Name:        "get",
		Usage:       "print what the hub's clock shows",
		Description: "For example:\n   iotdm hub clock get",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		now, err := client.Clock(ctx)
		return clockResult(now), err
	})
}

func clockAdvanceCommand(s output.Streams) *urfave.Command {
	var o target.Service
	return command.Leaf(&urfave.Command{
		Name:      "advance",
		Usage:     "move the hub's clock forward, and all that waits for it",
		ArgsUsage: "DURATION",
		Description: "Tokens expire, and with them connections; so do messages; locks end, jobs start, events grow old. Our\n" +
			"own commands sign for a hub on this machine by its clock. The hub's certificate goes by the machine's\n" +
			"time. For example:\n" +
			"   iotdm hub clock advance 2h",
		Flags: o.Flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			var by command.Seconds
			if err := by.Set(ctx.Args().First()); err != nil || by == 0 {
				return fail.Usagef("%q is not how long the clock is to move, such as 30s, 2h or 90 (seconds)", ctx.Args().First())
			}
			return o.Call(ctx.Context, s, target.NoIdentity, func(ctx context.Context, client *hubrest.Client) (any, error) {
				now, err := client.AdvanceClock(ctx, time.Duration(by))
				return clockResult(now), err
			})
		},
	})
}

func clockResetCommand(s output.Streams) *urfave.Command {
	var o target.Service
	return target.OneCall(s, &urfave.Command{
		Name:        "reset",
		Usage:       "have the hub's clock show its machine's time again",
		Description: "What has happened because it was moved stays as it is. For example:\n   iotdm hub clock reset",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		now, err := client.ResetClock(ctx)
		return clockResult(now), err
	})
}
