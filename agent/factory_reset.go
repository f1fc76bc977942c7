package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/mqttdevice"
)

const (
	resetMethod   = "factoryReset"
	resetProperty = "factoryReset"
	// resetTellLimit bounds the delay of a reset by telling the twin that it begins.
	resetTellLimit = 5 * time.Second
)

// The statuses of a factory reset.
const (
	resetRunning     = "resetting"
	resetRebooting   = "rebooting"
	resetDone        = "done"
	resetFailed      = "error"
	resetInterrupted = "interrupted"
)

// A resetRecord is what the agent remembers of a factory reset: the content of its file, and what it
// reports.
type resetRecord struct {
	Status string     `json:"status"`
	Start  time.Time  `json:"startTime"`
	End    *time.Time `json:"endTime,omitempty"`
	Detail string     `json:"detail,omitempty"`
}

// A factoryReset resets the machine by a command: once it has been answered, and once only, whatever
// happens meanwhile. A reset may well remove what the agent remembers of it.
type factoryReset struct {
	agent   *Agent
	command Command
	file    string
	asked   chan json.RawMessage // of capacity 1: the payload of a call that is answered

	mu     sync.Mutex // guards what follows; held while the record is written
	record *resetRecord
	busy   bool
}

// handleFactoryReset sets the handler of the direct method factoryReset, if there is a command for it.
func (a *Agent) handleFactoryReset() error {
	if a.opt.FactoryReset.isZero() {
		return nil
	}
	if a.opt.Folder == "" {
		return errors.New("a factory reset needs a folder, where it is remembered")
	}
	if _, ok := a.opt.OnMethod[resetMethod]; ok {
		return fmt.Errorf("the direct method %s is that of the factory reset; bind no other command to it", resetMethod)
	}
	f := &factoryReset{
		agent: a, command: a.opt.FactoryReset.withTimeout(defaultUpdateTimeout),
		file: filepath.Join(a.opt.Folder, "factory-reset.json"), asked: make(chan json.RawMessage, 1),
	}
	if err := f.command.check(); err != nil {
		a.log.Warn("the command of the factory reset cannot run", logError, err)
	}
	a.observe()
	a.reporter.watch(resetProperty)
	a.handleMethod(resetMethod, f.answer)
	f.resume()
	a.background(f.work)
	return nil
}

// resume says what came of a reset that was under way when the agent ended.
func (f *factoryReset) resume() {
	r, err := readJSON[resetRecord](f.file)
	if err != nil {
		f.agent.log.Error("what was known of a factory reset is forgotten", logError, err)
		return
	}
	if r.Status == "" {
		f.agent.observer.seen = append(f.agent.observer.seen, f.forgotten)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record = &r
	switch r.Status {
	case resetRunning:
		f.end(resetInterrupted, "the agent ended while the command ran")
	case resetRebooting:
		f.end(resetDone, "")
	default:
		f.agent.reporter.set(resetProperty, r, nil)
	}
}

// forgotten says what came of a reset that is under way according to the twin, but not known any more.
func (f *factoryReset) forgotten(reported json.RawMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	property := gjson.GetBytes(reported, resetProperty)
	status := property.Get("status").String()
	if f.record != nil || status != resetRunning && status != resetRebooting {
		return
	}
	f.record = &resetRecord{Start: property.Get("startTime").Time()}
	f.end(resetDone, "the device has lost what it remembered, as by a reset")
}

// answer accepts a reset. It begins once the answer is sent.
func (f *factoryReset) answer(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		return message(409, "the device is being reset already")
	}
	if !f.agent.turn.try() {
		return message(409, errNotNow.Error())
	}
	r := &resetRecord{Status: resetRunning, Start: time.Now().UTC().Truncate(time.Second)}
	if err := writeJSON(f.file, r); err != nil {
		f.agent.turn.end()
		f.agent.log.Error("the factory reset is not stored", logError, err)
		return message(500, "the device could not store that it is to be reset: "+err.Error())
	}
	f.record, f.busy = r, true
	f.agent.opt.OnEvent(ResetBegins)
	answer := message(202, "the factory reset has begun")
	answer.Sent = func(err error) {
		if err != nil {
			f.callOff(err)
			return
		}
		f.asked <- m.Payload
	}
	return answer
}

// callOff ends a reset that hasn't begun: the caller has been told that the call failed.
func (f *factoryReset) callOff(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
	f.agent.turn.end()
	f.end(resetFailed, fmt.Sprintf("called off, since the answer could not be sent: %v", why))
}

func (f *factoryReset) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case payload := <-f.asked:
			f.run(ctx, payload)
		}
	}
}

func (f *factoryReset) run(ctx context.Context, payload json.RawMessage) {
	reporter := f.agent.reporter
	reporter.set(resetProperty, f.record, nil)
	tell, cancel := context.WithTimeout(ctx, resetTellLimit)
	reporter.send(tell, resetProperty) // the command may leave no time to
	cancel()
	r := f.command.run(ctx, payload, f.agent.commandEnv("IOTDM_METHOD="+resetMethod), noOutput)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
	if !r.wantsReboot() || f.agent.reboots == nil {
		f.agent.turn.end() // before it is told
	}
	switch {
	case ctx.Err() != nil && r.err != nil: // the next start says so
	case r.err == nil:
		f.end(resetDone, "")
	case !r.wantsReboot():
		f.end(resetFailed, r.text())
	case f.agent.reboots == nil:
		f.end(resetDone, "the machine has to be rebooted")
	default:
		f.step(resetRebooting, "")
		if err := f.agent.rebootFor(resetMethod); err != nil {
			f.agent.turn.end()
			f.end(resetFailed, "the reset needs a reboot: "+err.Error())
		}
	}
}

// end is the last step. f.mu is held.
func (f *factoryReset) end(status, detail string) {
	now := time.Now().UTC().Truncate(time.Second)
	f.record.End = &now
	f.step(status, detail)
}

// step writes down and reports how far the reset is. f.mu is held.
func (f *factoryReset) step(status, detail string) {
	r := *f.record
	r.Status, r.Detail = status, clip(detail, maxDescription)
	f.record = &r
	if err := writeJSON(f.file, r); err != nil {
		f.agent.log.Error("the factory reset is not stored", logError, err)
	}
	f.agent.log.Info("factory reset", logStatus, status, logDetail, detail)
	f.agent.reporter.set(resetProperty, r, nil)
}
