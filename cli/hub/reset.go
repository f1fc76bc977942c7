package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
)

type hubResetOptions struct {
	target.Service
	confirm command.Confirmation
	seed    string
}

func hubResetCommand(s output.Streams) *urfave.Command {
	var o hubResetOptions
	return command.Leaf(&urfave.Command{
		Name:  "reset",
		Usage: "make a hub what it was at first, or delete one that is stopped",
		Description: "A hub that runs with --test-controls goes on, with its seed and nothing else: no device, message, job or\n" +
			"event of before. Its clock shows the machine's time, and faults and journal are cleared. Connections of\n" +
			"devices end, readers of events stay. Policies, certificates and snapshots are as before. --seed has it\n" +
			"begin with another seed this time, whose policies and consumer groups must be those of the hub.\n\n" +
			"Of a hub on this machine that is stopped all is deleted, keys, certificates and snapshots too.\n" +
			"For example:\n" +
			"   iotdm hub reset --yes\n" +
			"   iotdm hub reset --yes --seed '{\"devices\": [{\"deviceId\": \"d1\"}]}'",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "seed", Destination: &o.seed,
				Usage: "reset to what `FILE` (YAML, JSON) has, or a text that begins with \"{\" or has more than a line"},
			o.confirm.Flag(),
		}, o.HubFlags()),
		Action: func(ctx *urfave.Context) error {
			running, err := o.running(s)
			if err != nil {
				return err
			}
			if running {
				return o.reset(ctx.Context, s)
			}
			if o.seed != "" {
				return fail.Usagef("--seed is for a hub that runs; start this one with \"iotdm hub run --seed\" when it is reset")
			}
			return o.delete(ctx.Context, s)
		},
	})
}

// running reports whether the hub can be asked to reset itself: one that was
// named, or one on this machine that is not stopped.
func (o *hubResetOptions) running(s output.Streams) (bool, error) {
	if _, given, err := o.Hub.Given(s, target.ServiceVariables); given || err != nil || o.HubName != "" {
		return true, err
	}
	info, err := localhub.ReadRunning(o.Hub.Data)
	if err == nil && !info.TestControls {
		return false, fail.Errorf(fail.Failed, "the hub (process %d) runs without test controls: start it with --test-controls to reset it while it runs, or stop it to delete it", info.PID)
	}
	return err == nil, nil
}

// reset resets a hub that runs.
func (o *hubResetOptions) reset(ctx context.Context, s output.Streams) error {
	to := "but for its seed"
	var seed []byte
	var name string
	if o.seed != "" {
		var err error
		if seed, name, err = seedText(o.seed); err != nil {
			return err
		}
		to = "and begin with the seed given"
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := o.confirm.Ask(ctx, s, fmt.Sprintf("Delete all that the hub at %s has, %s", t.Host(), to)); err != nil {
		return err
	}
	if o.seed == "" {
		err = client.Reset(ctx)
	} else {
		err = client.ResetTo(ctx, seed)
	}
	if refused, ok := errors.AsType[*hubrest.Error](err); ok && refused.Status == http.StatusBadRequest {
		return fail.Usagef("%s: %s", name, refused.Message)
	}
	if err != nil {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	s.Note("Reset the hub at %s", t.Host())
	return nil
}

// delete deletes the hub on this machine, which is stopped.
func (o *hubResetOptions) delete(ctx context.Context, s output.Streams) error {
	dir, err := localhub.Folder(o.Hub.Data)
	if err != nil {
		return err
	}
	if err := o.confirm.Ask(ctx, s, fmt.Sprintf("Delete the hub in %s with all its devices, twins, keys and certificates", dir)); err != nil {
		return err
	}
	err = node.Reset(dir)
	if errors.Is(err, node.ErrNeverRun) {
		return fail.Errorf(fail.NotFound, "%v; there is nothing to delete", err)
	}
	if err != nil {
		return fail.Errorf(fail.Failed, "%v", err)
	}
	s.Note("Deleted the hub in %s", dir)
	return nil
}
