package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/twin"
)

type twinWatchOptions struct {
	serviceOptions
	on       identityOptions
	interval seconds
}

func twinWatchCommand(s streams) *urfave.Command {
	o := twinWatchOptions{interval: seconds(2 * time.Second)}
	return leaf(&urfave.Command{
		Name:  "watch",
		Usage: "print each change of the twin, until Ctrl-C",
		Description: "Reads the twin again and again; of several changes between two readings the last one shows.\n" +
			"With --output json each change is one line. For example:\n" +
			"   iotdm service twin watch --device device-1",
		Flags: concat(o.on.flags(), []urfave.Flag{
			&urfave.GenericFlag{Name: "interval", Value: &o.interval, Usage: "`HOW` often to read the twin"},
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if o.interval == 0 {
				return usagef("--interval must be longer than 0s")
			}
			if err := firstError(o.on.check(), o.output.check()); err != nil {
				return err
			}
			return watchTwin(ctx.Context, s, o)
		},
	})
}

func watchTwin(ctx context.Context, s streams, o twinWatchOptions) error {
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	last, err := client.Twin(ctx, o.on.target())
	if err != nil {
		return t.explain(ctx, err, o.on.target())
	}
	s.note("Watching the twin of %s (version %d), press Ctrl-C to exit", o.on.target(), last.Version)
	tick := time.NewTicker(time.Duration(o.interval))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := client.Twin(ctx, o.on.target())
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return t.explain(ctx, err, o.on.target())
		}
		if err := printChanges(s, o.output, last, now); err != nil {
			return err
		}
		last = now
	}
}

// A twinEvent is one changed value of a twin.
type twinEvent struct {
	Time    time.Time       `json:"time"`
	Version int64           `json:"version"`
	Path    string          `json:"path"`
	Old     json.RawMessage `json:"old"`
	New     json.RawMessage `json:"new"`
}

func printChanges(s streams, output outputOptions, old, now hubrest.Twin) error {
	if bytes.Equal(old.Raw, now.Raw) {
		return nil
	}
	sections := []struct {
		name     string
		old, now json.RawMessage
	}{
		{"tags", old.Tags, now.Tags},
		{"desired", old.Desired, now.Desired},
		{"reported", old.Reported, now.Reported},
	}
	at := time.Now()
	for _, section := range sections {
		for _, change := range twin.Diff(section.old, section.now) {
			e := twinEvent{Time: at.UTC(), Version: now.Version, Path: section.name + "." + change.Path, Old: change.Old, New: change.New}
			err := output.printEvent(s, result{value: e, text: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s: %s -> %s\n", at.Format(time.TimeOnly), e.Path, orNothing(e.Old), orNothing(e.New))
				return err
			}})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func orNothing(value json.RawMessage) string {
	if value == nil {
		return "(none)"
	}
	return string(value)
}
