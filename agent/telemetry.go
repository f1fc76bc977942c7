package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

const (
	outboxPoll    = 500 * time.Millisecond // for an outbox that another process makes
	outboxRetry   = time.Minute            // after a failure that may pass
	droppedPeriod = 10 * time.Second
	droppedPause  = time.Second // so that one report tells of much
)

// An outboxSender sends what the agent's source, and other processes, put into the outbox.
type outboxSender struct {
	a      *Agent
	dir    string // of the outbox
	source *source

	connected chan struct{} // closed upon the first connection
	once      sync.Once
	dropped   wait.Signal // something was

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
	t := &outboxSender{
		a: a, dir: outboxFolder(a.opt.Folder),
		connected: make(chan struct{}), dropped: wait.NewSignal(),
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

func (t *outboxSender) opened() *outbox.Box {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.box
}

func (t *outboxSender) open() error {
	box, err := outbox.Open(t.dir, outbox.Options{
		MaxBytes:  t.a.opt.OutboxBytes,
		Logger:    t.a.log,
		OnDropped: func(uint64) { t.dropped.Set() },
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
func (t *outboxSender) close() {
	if box := t.opened(); box != nil {
		if err := box.Close(); err != nil {
			t.a.log.Warn("what was sent may be sent again", logError, err)
		}
	}
}

// run does all there is to do until ctx ends.
func (t *outboxSender) run(ctx context.Context) {
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
func (t *outboxSender) await(ctx context.Context) bool {
	delay := time.Duration(0)
	for t.opened() == nil {
		if wait.For(ctx, delay) != nil {
			return false
		}
		delay = outboxPoll
		if _, err := os.Stat(t.dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := t.open(); err != nil {
			t.a.log.Error("messages that are queued are not sent", logError, err, logRetry, outboxRetry)
			delay = outboxRetry
		}
	}
	return true
}

// send sends what the outbox has, from the first connection on.
func (t *outboxSender) send(ctx context.Context) {
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
		t.a.log.Error("the outbox is not sent", logError, err, logRetry, outboxRetry)
		if wait.For(ctx, outboxRetry) != nil {
			return
		}
	}
}

// reportDropped tells the twin what could not be kept, and the status file how it goes. The operator
// hears of what is dropped from the outbox.
func (t *outboxSender) reportDropped(ctx context.Context) {
	var known, last outbox.Stats
	for {
		s := t.box.Stats()
		if s != last {
			last = s
			t.a.status.changed.Set()
		}
		if s.Dropped+s.Damaged > known.Dropped+known.Damaged {
			patch := map[string]any{"outbox": map[string]uint64{"dropped": s.Dropped, "damaged": s.Damaged}}
			if _, err := t.a.client.PatchReported(ctx, patch); err == nil {
				known = s
			} else if ctx.Err() == nil && !errors.Is(err, mqttdevice.ErrConnectionLost) && !errors.Is(err, mqttdevice.ErrNotConnected) {
				t.a.log.Warn("dropped messages are not reported", logError, err)
				known = s
			}
		}
		select {
		case <-t.dropped:
		case <-ctx.Done():
		case <-time.After(droppedPeriod): // what is damaged shows when it is to be sent
		}
		if wait.For(ctx, droppedPause) != nil {
			return
		}
	}
}

// produce puts a message into the outbox at each interval.
func (t *outboxSender) produce(ctx context.Context) {
	tick := time.NewTicker(t.source.interval)
	defer tick.Stop()
	var last string
	for {
		err := t.produceOne(ctx)
		// A source that fails at each interval is logged once.
		if text := fmt.Sprint(err); text != last {
			if err != nil && ctx.Err() == nil {
				t.a.log.Warn("the source of telemetry failed", logError, err)
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

func (t *outboxSender) produceOne(ctx context.Context) error {
	m, err := t.source.message(ctx, time.Now())
	if err != nil {
		return err
	}
	return t.box.Add(m)
}
