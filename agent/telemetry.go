package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/mqttdevice"
)

const (
	outboxPoll    = 500 * time.Millisecond // for an outbox that another process makes
	outboxRetry   = time.Minute            // after a failure that may pass
	droppedPeriod = 10 * time.Second
	droppedPause  = time.Second // so that one report tells of much
)

// A telemetry sends what the agent's source, and other processes, put into the outbox.
type telemetry struct {
	a      *Agent
	dir    string // of the outbox
	source *source

	connected chan struct{} // closed upon the first connection
	once      sync.Once
	dropped   chan struct{} // of capacity 1: something was

	mu  sync.Mutex
	box *outbox.Box // nil until there is one
}

// handleTelemetry opens the outbox if there is a source, and otherwise as soon as there is one on disk.
func (a *Agent) handleTelemetry() error {
	opt := a.opt.Telemetry
	if a.opt.Folder == "" {
		if !opt.isZero() {
			return errors.New("telemetry needs a folder, where it waits to be sent")
		}
		return nil
	}
	t := &telemetry{
		a: a, dir: outboxFolder(a.opt.Folder),
		connected: make(chan struct{}), dropped: make(chan struct{}, 1),
	}
	if !opt.isZero() {
		var err error
		if t.source, err = a.newSource(); err != nil {
			return err
		}
		if err := t.open(); err != nil {
			return err
		}
	}
	a.telemetry = t
	a.describe("outbox", func() any {
		if t.opened() == nil {
			return nil
		}
		return a.Outbox()
	})
	a.onConnected(func(context.Context) error {
		t.once.Do(func() { close(t.connected) })
		return nil
	})
	a.background(t.run)
	return nil
}

// outboxFolder is where an agent with that folder has its outbox.
func outboxFolder(folder string) string { return filepath.Join(folder, "outbox") }

// Queue leaves messages for the agent with the folder, which must be that of its Options, to send. They
// are durable when it returns, whether the agent runs and is connected or not.
func Queue(folder string, messages ...mqttdevice.Message) error {
	return outbox.Spool(outboxFolder(folder), messages...)
}

// Outbox returns the numbers of messages that wait, were sent, and were dropped; zero if there is no
// outbox.
func (a *Agent) Outbox() outbox.Stats {
	if a.telemetry == nil {
		return outbox.Stats{}
	}
	if box := a.telemetry.opened(); box != nil {
		return box.Stats()
	}
	return outbox.Stats{}
}

func (t *telemetry) opened() *outbox.Box {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.box
}

func (t *telemetry) open() error {
	box, err := outbox.Open(t.dir, outbox.Options{
		MaxBytes: t.a.opt.OutboxBytes,
		Logger:   slog.New(noteHandler{t.a.note}),
		OnDropped: func(uint64) {
			select {
			case t.dropped <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.box = box
	t.mu.Unlock()
	return nil
}

// close closes the outbox, if there is one, when nothing of the agent uses it any more.
func (t *telemetry) close() {
	if box := t.opened(); box != nil {
		if err := box.Close(); err != nil {
			t.a.note("iotdm: %v", err)
		}
	}
}

// run does all there is to do until ctx ends.
func (t *telemetry) run(ctx context.Context) {
	if !t.await(ctx) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { t.send(ctx) })
	wg.Go(func() { _ = t.box.Collect(ctx) }) // ends with ctx; it logs what fails
	wg.Go(func() { t.reportDropped(ctx) })
	if t.source != nil {
		wg.Go(func() { t.produce(ctx) })
	}
	wg.Wait()
}

// await waits until there is an outbox. A device that has no telemetry is to leave nothing on disk.
func (t *telemetry) await(ctx context.Context) bool {
	wait := time.Duration(0)
	for t.opened() == nil {
		if !pause(ctx, wait) {
			return false
		}
		wait = outboxPoll
		if _, err := os.Stat(t.dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := t.open(); err != nil {
			t.a.note("iotdm: %v; messages that are queued are not sent", err)
			wait = outboxRetry
		}
	}
	return true
}

// pause waits for d and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// send sends what the outbox has, from the first connection on.
func (t *telemetry) send(ctx context.Context) {
	select {
	case <-t.connected:
	case <-ctx.Done():
		return
	}
	for {
		err := t.box.Send(ctx, t.a.client)
		if ctx.Err() != nil || errors.Is(err, mqttdevice.ErrClosed) {
			return
		}
		t.a.note("iotdm: %v; trying again in %v", err, outboxRetry)
		if !pause(ctx, outboxRetry) {
			return
		}
	}
}

// reportDropped tells the twin what could not be kept, and the status file how it goes. The operator
// hears of what is dropped from the outbox.
func (t *telemetry) reportDropped(ctx context.Context) {
	var known, last outbox.Stats
	for {
		s := t.box.Stats()
		if s != last {
			last = s
			t.a.status.signal()
		}
		if s.Dropped+s.Damaged > known.Dropped+known.Damaged {
			patch := map[string]any{"outbox": map[string]uint64{"dropped": s.Dropped, "damaged": s.Damaged}}
			if _, err := t.a.client.PatchReported(ctx, patch); err == nil {
				known = s
			} else if ctx.Err() == nil && !errors.Is(err, mqttdevice.ErrConnectionLost) && !errors.Is(err, mqttdevice.ErrNotConnected) {
				t.a.note("iotdm: report dropped messages: %v", err)
				known = s
			}
		}
		select {
		case <-t.dropped:
		case <-ctx.Done():
		case <-time.After(droppedPeriod): // what is damaged shows when it is to be sent
		}
		if !pause(ctx, droppedPause) {
			return
		}
	}
}

// produce puts a message into the outbox at each interval.
func (t *telemetry) produce(ctx context.Context) {
	tick := time.NewTicker(t.source.interval)
	defer tick.Stop()
	var last string
	for {
		err := t.produceOne(ctx)
		// A source that fails at each interval is noted once.
		if text := fmt.Sprint(err); text != last {
			if err != nil && ctx.Err() == nil {
				t.a.note("iotdm: telemetry: %v", err)
			}
			last = text
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (t *telemetry) produceOne(ctx context.Context) error {
	m, err := t.source.message(ctx, time.Now())
	if err != nil {
		return err
	}
	return t.box.Add(m)
}

// A noteHandler makes notes of what the outbox logs.
type noteHandler struct{ note func(string, ...any) }

func (noteHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (h noteHandler) Handle(_ context.Context, r slog.Record) error {
	text := "iotdm: " + r.Message
	sep := ": "
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf("%s%s %v", sep, a.Key, a.Value)
		sep = ", "
		return true
	})
	h.note("%s", text)
	return nil
}

func (h noteHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h noteHandler) WithGroup(string) slog.Handler      { return h }
