package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/twinwatch"
)

// A twinWatcher prints what changes of twins.
type twinWatcher struct {
	output.Streams
	target target.Target
	client *hubrest.Client
	o      twinWatchOptions

	twins  map[hubrest.Target]twinwatch.State // nil before the first reading
	broken error                              // why nothing more can be printed
}

// A twinChange is a value of a twin that has changed, or a twin that has come
// or gone.
type twinChange struct {
	Time     time.Time       `json:"time"`
	DeviceID string          `json:"deviceId"`
	ModuleID string          `json:"moduleId,omitempty"`
	Version  int64           `json:"version"`
	By       string          `json:"by,omitempty"`     // as "policy service"; empty: unknown
	Change   string          `json:"change,omitempty"` // "created" or "deleted"; empty: Path has changed
	Path     string          `json:"path,omitempty"`
	Old      json.RawMessage `json:"old"` // null if it was not there
	New      json.RawMessage `json:"new"` // null if it is no longer there
}

// run watches until ctx ends.
func (w *twinWatcher) run(ctx context.Context) error {
	const shortest, longest = 500 * time.Millisecond, 30 * time.Second
	pause := shortest
	for {
		began := time.Now()
		err := w.follow(ctx)
		if ctx.Err() != nil {
			return command.WhyEnded(ctx)
		}
		_, refused := asAnswer(err)
		_, explained := errors.AsType[*fail.Error](err)
		switch {
		case w.broken != nil:
			return w.broken
		case refused && w.twins == nil:
			return w.poll(ctx)
		case refused, explained, w.twins == nil:
			return w.target.Explain(ctx, err, w.o.on.target())
		case time.Since(began) > longest:
			pause = shortest
		}
		w.Note("The stream of changes has ended; connecting again")
		select {
		case <-ctx.Done():
			return command.WhyEnded(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// follow reads the hub's events. The twins are read when the stream has begun,
// so that no change falls between the two.
func (w *twinWatcher) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := hubrest.EventQuery{
		Device: w.o.on.device, Sources: twinwatch.Sources,
		Latest: true, Follow: true,
	}
	begun := func() {
		if err := w.look(ctx, time.Now()); err != nil {
			if _, ok := asAnswer(err); ok { // not the stream's
				err = w.target.Explain(ctx, err, w.o.on.target())
			}
			cancel(err)
		}
	}
	err := w.client.Events(ctx, q, begun, func(event json.RawMessage) error { return w.event(ctx, event) })
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// poll reads the twins again and again.
func (w *twinWatcher) poll(ctx context.Context) error {
	w.Note("%s does not stream changes: reading every %v, which does not tell who made them", w.target.Host(), &w.o.interval)
	tick := time.NewTicker(time.Duration(w.o.interval))
	defer tick.Stop()
	for {
		err := w.look(ctx, time.Now())
		if ctx.Err() != nil {
			return command.WhyEnded(ctx)
		}
		if err != nil {
			return w.target.Explain(ctx, err, w.o.on.target())
		}
		select {
		case <-ctx.Done():
			return command.WhyEnded(ctx)
		case <-tick.C:
		}
	}
}

// look reads the twins and prints what differs from what was known.
func (w *twinWatcher) look(ctx context.Context, at time.Time) error {
	now, err := w.o.read(ctx, w.client)
	if errors.Is(err, hubrest.ErrNotFound) && w.twins != nil {
		now, err = nil, nil
	}
	if err != nil {
		return err
	}
	if w.twins == nil {
		w.twins = make(map[hubrest.Target]twinwatch.State)
		for on, t := range now {
			w.twins[on] = twinwatch.StateOf(t)
		}
		return w.introduce()
	}
	for _, on := range slices.SortedFunc(maps.Keys(w.twins), compareTargets) {
		t, found := now[on]
		if !found && w.o.where == "" {
			if err := w.gone(on, at, ""); err != nil {
				return err
			}
		}
		if found {
			if err := w.become(on, at, "", twinwatch.StateOf(t)); err != nil {
				return err
			}
		}
	}
	return nil
}

func compareTargets(a, b hubrest.Target) int { return strings.Compare(a.String(), b.String()) }

func (w *twinWatcher) introduce() error {
	switch {
	case w.o.where == "":
		w.Note("Watching the twin of %s (version %d), press Ctrl-C to exit", w.o.on.target(), w.twins[w.o.on.target()].Version)
	case len(w.twins) == 0:
		return fail.Errorf(fail.NotFound, "no device on %s matches --where %q", w.target.Host(), w.o.where)
	default:
		w.Note("Watching the twins of %s, press Ctrl-C to exit", output.Count(len(w.twins), "device"))
	}
	return nil
}

// event takes an event of the hub.
func (w *twinWatcher) event(ctx context.Context, event json.RawMessage) error {
	e := twinwatch.Parse(event)
	before, watched := w.twins[e.On]
	if !watched {
		return nil
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if e.Gone() {
		return w.gone(e.On, e.At, e.By)
	}
	now, what, err := e.After(before)
	if what == twinwatch.Unsure { // what the hub does not tell of lies between
		var t hubrest.Twin
		if t, err = w.client.Twin(ctx, e.On); errors.Is(err, hubrest.ErrNotFound) {
			return nil // an event will say so
		}
		now = twinwatch.StateOf(t)
	}
	if err != nil || what == twinwatch.Old {
		return err
	}
	return w.become(e.On, e.At, e.By, now)
}

// become prints what changed of a twin.
func (w *twinWatcher) become(on hubrest.Target, at time.Time, by string, now twinwatch.State) error {
	before := w.twins[on]
	w.twins[on] = now
	change := twinChange{Time: at.UTC(), DeviceID: on.DeviceID, ModuleID: on.ModuleID, Version: now.Version, By: by}
	if before.Version == 0 {
		created := change
		created.Change = "created"
		if err := w.print(on, created); err != nil {
			return err
		}
	}
	for _, c := range before.Diff(now) {
		change.Path, change.Old, change.New = c.Path, c.Old, c.New
		if err := w.print(on, change); err != nil {
			return err
		}
	}
	return nil
}

// gone says once that a twin is no longer there.
func (w *twinWatcher) gone(on hubrest.Target, at time.Time, by string) error {
	before := w.twins[on]
	if before.Version == 0 {
		return nil
	}
	w.twins[on] = twinwatch.State{}
	return w.print(on, twinChange{Time: at.UTC(), DeviceID: on.DeviceID, ModuleID: on.ModuleID, Version: before.Version, By: by, Change: "deleted"})
}

func (w *twinWatcher) print(on hubrest.Target, c twinChange) error {
	w.broken = w.o.Output.PrintEvent(w.Streams, output.Result{Value: c, Text: func(out io.Writer) error {
		line := c.Time.Local().Format(time.TimeOnly) + "  "
		if w.o.where != "" {
			line += output.OneLine(on.String()) + "  "
		}
		if c.Change != "" {
			line += output.OneLine(target.Noun(on)) + " was " + c.Change
		} else {
			line += output.OneLine(c.Path) + ": " + c.values(output.Colours(out))
		}
		if c.By != "" {
			line += "  (" + output.OneLine(c.By) + ")"
		}
		_, err := fmt.Fprintln(output.Unguarded(out), line)
		return err
	}})
	return w.broken
}

// values are the old value and the new one.
func (c twinChange) values(coloured bool) string {
	old, now := output.Visible(orNothing(c.Old)), output.Visible(orNothing(c.New))
	if coloured {
		old, now = "\x1b[31m"+old+"\x1b[0m", "\x1b[32m"+now+"\x1b[0m"
	}
	return old + " -> " + now
}

func orNothing(value json.RawMessage) string {
	if value == nil {
		return "(none)"
	}
	return string(value)
}
