package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// maxDesiredOutput is how much a command may print as a reported value. IoT Hub allows all reported
	// properties together 32 KiB.
	maxDesiredOutput = 32 << 10
	// acknowledgeAfter is how long a command may take until the twin says that it is under way.
	acknowledgeAfter = 2 * time.Second
)

// observeCommands makes the agent act upon the desired properties that are bound to commands.
func (a *Agent) observeCommands() error {
	if len(a.opt.OnDesired) == 0 {
		return nil
	}
	memory, err := openMemory(a.opt.Folder)
	if err != nil {
		a.log.Error("which desired properties were carried out is forgotten", logError, err)
	}
	for _, path := range slices.Sorted(maps.Keys(a.opt.OnDesired)) {
		c := a.opt.OnDesired[path]
		if err := checkPath(path); err != nil {
			return err
		}
		switch {
		case c.isZero():
			return fmt.Errorf("the desired property %s is bound to no command", path)
		case c.Concurrent:
			return fmt.Errorf("the command of the desired property %s cannot be concurrent: of two values the older might win", path)
		}
		if err := c.check(); err != nil {
			a.log.Warn("the command of a desired property cannot run", logProperty, path, logError, err)
		}
		d := &desiredCommand{agent: a, command: c, path: path, memory: memory}
		if err := a.watchDesired(&desiredProperty{path: path, act: d.act, done: d.done}); err != nil {
			return err
		}
	}
	return nil
}

// A desiredCommand carries out a desired property by a command. It is run at least once for the newest
// value: again if the agent ended before that was acknowledged.
type desiredCommand struct {
	agent   *Agent
	command Command
	path    string
	memory  *memory
}

// done says yes to a wish that was acknowledged, for better or worse, as of its version; and to one
// whose value was carried out as of an older version: then another property has changed. A property that
// is gone was carried out before if nothing is acknowledged; but an acknowledgement may not have come
// through, so that the device has to remember nothing either.
func (d *desiredCommand) done(w wish, acknowledged json.RawMessage) bool {
	a, ok := readAck(acknowledged)
	switch {
	case w.value == nil && ok:
		return a.Version == w.version && a.Code != ackInProgress
	case w.value == nil:
		return !d.memory.knows(d.path)
	}
	if !ok || a.Code == ackInProgress {
		return false
	}
	return a.Version == w.version || a.Code < 300 && d.memory.has(d.path, w.value, a.Version)
}

func (d *desiredCommand) act(ctx context.Context, w wish) {
	input := w.value
	if input == nil {
		input = json.RawMessage("null")
	}
	reporter := d.agent.reporter
	before, _ := readAck(reporter.current(d.path))
	stop := d.afterAWhile(func() {
		d.report(ack{before.Value, ackInProgress, w.version, "in progress"})
	})
	began := time.Now()
	r := d.command.run(ctx, input, d.agent.commandEnv("IOTDM_DESIRED_PATH="+d.path,
		"IOTDM_DESIRED_VERSION="+strconv.FormatInt(w.version, 10)), maxDesiredOutput).wantJSON()
	stop()
	if ctx.Err() != nil && r.err != nil {
		return // the next start carries it out
	}
	d.agent.log.Info("desired property carried out", logProperty, d.path, logVersion, w.version, logStatus, r.status(),
		logTook, time.Since(began).Round(time.Millisecond), logResult, r.text())
	result := ack{Value: r.value(), Code: r.status(), Version: w.version, Description: "done"}
	if r.err != nil {
		result.Description = clip(r.text(), maxDescription)
		if result.Value == nil {
			result.Value = before.Value
		}
		d.report(result)
		return
	}
	if err := d.memory.store(d.path, w); err != nil {
		d.agent.log.Error("that a desired property was carried out is not stored", logProperty, d.path, logError, err)
	}
	if w.value == nil {
		reporter.set(d.path, nil, nil)
		return
	}
	if result.Value == nil || string(result.Value) == "null" {
		result.Value = w.value
	}
	d.report(result)
}

// report acknowledges. If the hub does not take the value, because it is too large or too deep, it is
// left out and the twin says so.
func (d *desiredCommand) report(a ack) {
	d.agent.reporter.set(d.path, a, func(refusal error) {
		a.Value, a.Description = nil, clip(a.Description+"; the value is not shown: "+refusal.Error(), maxDescription)
		d.agent.log.Warn("a property is not reported", logProperty, d.path, logError, refusal)
		d.agent.reporter.set(d.path, a, nil)
	})
}

// afterAWhile calls fn once, unless what it returns is called before, and not while that is called.
func (d *desiredCommand) afterAWhile(fn func()) (stop func()) {
	var mu sync.Mutex
	stopped := false
	timer := time.AfterFunc(acknowledgeAfter, func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			fn()
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}
