package console

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/twinwatch"
)

const (
	twinPoll = 2 * time.Second // between two readings of a twin whose hub does not tell of changes
	maxPolls = 20              // pages that have a twin read again and again
)

// A liveChange is what a browser gets of a change of a twin.
type liveChange struct {
	Version int64       `json:"version"`
	At      string      `json:"at"`
	By      string      `json:"by,omitempty"`
	What    string      `json:"what,omitempty"` // created, deleted; empty: the changes are all there is
	Changes []changeDoc `json:"changes"`
}

type changeDoc struct {
	Path string `json:"path"`
	Old  string `json:"old"` // JSON; empty: it was not there
	New  string `json:"new"` // JSON; empty: it is gone
}

// followTwin streams the changes of a twin as they come, with who made them; from a hub that does not tell, by reading the
// twin again and again.
func (c *Console) followTwin(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	t, err := c.opt.Client.Twin(r.Context(), on)
	if err != nil {
		return about(on, err)
	}
	f := &twinFollower{console: c, on: on, state: twinwatch.StateOf(t)}
	if !c.opt.Client.OwnHub() {
		return f.poll(w, r)
	}
	sources := twinwatch.Sources
	wants := func(e *liveEvent) bool {
		return e.Device == on.DeviceID && e.Module == on.ModuleID && slices.Contains(sources, hubrest.EventSource(e.Source))
	}
	return c.stream(w, r, wants, func(e liveEvent) any { return f.event(r.Context(), twinwatch.Parse(e.Doc)) })
}

// A twinFollower knows what one browser has seen of a twin.
type twinFollower struct {
	console *Console
	on      hubrest.Target
	state   twinwatch.State
}

// event returns what changes by an event; with no changes if that is nothing.
func (f *twinFollower) event(ctx context.Context, e twinwatch.Event) liveChange {
	if e.Gone() {
		f.state = twinwatch.State{}
		return f.change(e, "deleted", f.state)
	}
	now, what, err := e.After(f.state)
	if what == twinwatch.Unsure || err != nil {
		t, readErr := f.console.opt.Client.Twin(ctx, f.on)
		if readErr != nil { // the next event will tell
			return liveChange{}
		}
		now, what = twinwatch.StateOf(t), twinwatch.New
	}
	if what == twinwatch.Old {
		return liveChange{}
	}
	words := ""
	if f.state.Version == 0 {
		words = "created"
	}
	return f.change(e, words, now)
}

func (f *twinFollower) change(e twinwatch.Event, what string, now twinwatch.State) liveChange {
	at := e.At
	if at.IsZero() {
		at = f.console.now()
	}
	change := liveChange{Version: now.Version, At: at.UTC().Format(time.TimeOnly), By: e.By, What: what, Changes: []changeDoc{}}
	for _, d := range f.state.Diff(now) {
		change.Changes = append(change.Changes, changeDoc{d.Path, cut(string(d.Old), maxCallText), cut(string(d.New), maxCallText)})
	}
	f.state = now
	return change
}

// poll streams what differs between two readings.
func (f *twinFollower) poll(w http.ResponseWriter, r *http.Request) error {
	c := f.console
	if c.polls.Add(1) > maxPolls {
		c.polls.Add(-1)
		return &problem{status: http.StatusServiceUnavailable, text: "too many pages follow twins already; close one"}
	}
	defer c.polls.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	out := &eventWriter{to: w, control: http.NewResponseController(w)}
	out.event("status", "", liveStatus{On: true})
	tick := time.NewTicker(twinPoll)
	defer tick.Stop()
	for out.err == nil {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		case <-c.ctx.Done():
			return nil
		}
		if c.doors.find(r, c.now()) == nil { // the session has ended
			return nil
		}
		t, err := c.opt.Client.Twin(r.Context(), f.on)
		if err != nil {
			out.event("status", "", liveStatus{Problem: c.explain(r.Context(), about(f.on, err))})
			continue
		}
		if now := twinwatch.StateOf(t); now.Version != f.state.Version {
			out.event("", "", f.change(twinwatch.Event{}, "", now))
		} else {
			out.print(": the same\n\n")
		}
	}
	return nil
}
