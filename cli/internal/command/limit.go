package command

import (
	"context"
	"errors"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// A limit is how long a command may take in all; zero is for ever.
type limit struct{ Seconds }

// LimitFlag lets a command give up. In a command with a --timeout of its own
// that one counts (see Leaf).
func LimitFlag() urfave.Flag {
	return &urfave.GenericFlag{Name: "timeout", Value: new(limit), DefaultText: "none", Usage: "give up after this `LONG`, with exit status 5"}
}

// limitOf takes the limit's flag out of flags that have another one of its
// name, and returns the limit otherwise.
func limitOf(flags []urfave.Flag) ([]urfave.Flag, *limit) {
	var kept []urfave.Flag
	var found *limit
	own := false
	for _, f := range flags {
		if g, ok := f.(*urfave.GenericFlag); ok && g.Name == "timeout" {
			if l, ok := g.Value.(*limit); ok {
				found = l
				continue
			}
			own = true
		}
		kept = append(kept, f)
	}
	if found == nil || own {
		return kept, nil
	}
	return flags, found
}

// run runs a command that gives up when it takes too long.
func (l *limit) run(ctx *urfave.Context, action urfave.ActionFunc) error {
	d := time.Duration(l.Seconds)
	if d == 0 {
		return action(ctx)
	}
	tooLong := fail.Errorf(fail.TimedOut, "gave up after %v, as --timeout says", &l.Seconds)
	limited, cancel := context.WithTimeoutCause(ctx.Context, d, tooLong)
	defer cancel()
	ctx.Context = limited
	err := action(ctx)
	if err == nil || context.Cause(limited) != tooLong {
		return err
	}
	f, ok := errors.AsType[*fail.Error](err)
	if !ok || strings.Contains(f.Error(), tooLong.Error()) {
		return tooLong
	}
	left := strings.TrimLeft(strings.TrimPrefix(f.Error(), "interrupted"), ":; ") // such as what goes on
	return fail.Errorf(fail.TimedOut, "%v: %s", tooLong, left)
}

// UntilStopped is how a command ends that is meant to run until it is stopped: that
// it was while it was starting is no failure.
func UntilStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return WhyEnded(ctx)
	}
	return err
}

// WhyEnded is how a command fails that goes on until ctx ends: not at all after
// Ctrl-C, which is meant to end it, and by --timeout.
func WhyEnded(ctx context.Context) error {
	if tooLong, ok := errors.AsType[*fail.Error](context.Cause(ctx)); ok {
		return tooLong
	}
	return nil
}
