package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/iotdm/iotdm/agent/tutorial"
	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

const (
	defaultRebootGrace = 3 * time.Minute
	// tellLimit bounds the delay of a reboot by telling the twin that it begins.
	tellLimit = 5 * time.Second
	// maxRebootOutput is how much the command may print.
	maxRebootOutput = 1 << 20
)

// A machineReboot reboots the machine the agent runs on, and finds out whether it did.
//
// The steps of a reboot are: the request is on disk (accepted); it is answered; the disk and, if that
// goes quickly, the twin say that the machine is rebooting; the command runs. Whatever happens between
// two of them, the next start finds the request and the boot in which it was made. If the machine is
// in another boot, it has rebooted. If it is in the same, it has not: at once if it had not come to the
// command, and else when the grace is over.
type machineReboot struct {
	a       *Agent
	command Command
	grace   time.Duration // how long after the command has begun the machine may still be up
	file    string
	boot    func() (Boot, error)
	now     func() time.Time

	asked   wait.Signal   // the command is to run
	untold  wait.Signal   // the twin is to be told, or there is a new connection
	telling chan struct{} // of capacity 1, and full while the twin is being told
	left    Outcome       // how far an earlier start has come with a reboot; empty: there is none

	mu      sync.Mutex // guards what follows
	record  rebootRecord
	changes int  // how often record has changed
	inTurn  bool // the agent's turn is that of the request, which is pending
	blank   bool // there was no record: the twin may know of a reboot
}

func newMachineReboot(a *Agent) (*machineReboot, error) {
	opt := a.opt
	if opt.Folder == "" {
		return nil, errors.New("a real reboot needs a folder, where it is remembered")
	}
	m := &machineReboot{
		a:       a,
		command: Command{Script: opt.RebootCommand, Timeout: opt.RebootGrace},
		grace:   opt.RebootGrace,
		file:    filepath.Join(opt.Folder, "reboot.json"),
		boot:    opt.Boot,
		now:     opt.Device.Now,
		asked:   wait.NewSignal(),
		untold:  wait.NewSignal(),
		telling: make(chan struct{}, 1),
	}
	if m.grace == 0 {
		m.grace = defaultRebootGrace
		m.command.Timeout = m.grace
	}
	if m.boot == nil {
		m.boot = readBoot
	}
	if m.now == nil {
		m.now = time.Now
	}
	var err error
	if m.record, err = readJSON[rebootRecord](m.file); err != nil {
		a.log.Error("what was known of reboots cannot be read", logError, err)
	}
	m.blank = m.record.Boot == (Boot{})
	m.settle()
	if q := m.record.Request; q.pending() {
		m.left = q.Outcome
		m.inTurn = a.turn.try()
	}
	return m, nil
}

// settle compares the boot with the one that is remembered.
func (m *machineReboot) settle() {
	b, err := m.boot()
	if err != nil {
		m.a.log.Warn("the boot of the machine is not known", logError, err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before, pending := m.record.Boot, m.record.Request.pending()
	if !m.record.settle(m.now(), b) {
		return
	}
	m.save()
	switch q := m.record.Request; {
	case pending && q.Outcome == Rebooted:
		m.a.opt.OnEvent(RebootEnds)
	case m.record.Unasked && !before.same(b):
		m.a.log.Info("the machine has booted, and nobody had asked for it", logBooted, b.Time)
	}
}

// save stores the record, which has changed, and has the twin told. What cannot be stored is told
// nevertheless. With the request its turn ends. m.mu is held.
func (m *machineReboot) save() {
	m.changes++
	if m.inTurn && !m.record.Request.pending() {
		m.inTurn = false
		m.a.turn.end()
	}
	m.a.status.changed.Set()
	m.record.Told = false
	if err := m.store(); err != nil {
		m.a.log.Error("what has come of a reboot is not stored", logError, err)
	}
	m.untold.Set()
}

// store writes the record. m.mu is held.
func (m *machineReboot) store() error {
	return writeJSON(m.file, m.record)
}

// handle answers the method. The machine reboots once the answer is sent.
func (m *machineReboot) handle(_ context.Context, call mqttdevice.Method) mqttdevice.Response {
	id, err := m.request(call.Name, false)
	switch {
	case err == errRebooting:
		return tutorial.Response(409, tutorial.Busy)
	case err == errNotNow:
		return tutorial.Response(409, "The device is being updated or reset")
	case err != nil:
		return tutorial.Response(500, fmt.Sprintf("The device cannot reboot: %v", err))
	}
	return mqttdevice.Response{
		Status:  200,
		Payload: map[string]string{"Response": tutorial.Answer, "requestId": id},
		Sent:    m.answered,
	}
}

// errRebooting means that a reboot is under way.
var errRebooting = errors.New("the device is already rebooting")

// request stores that a reboot is asked for, by a direct method or whatever by names. It happens when
// answered is called. A caller that is inTurn hands its turn on, unless there is an error.
func (m *machineReboot) request(by string, inTurn bool) (id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.record.Request
	if last.pending() {
		return "", errRebooting
	}
	if !inTurn && !m.a.turn.try() {
		return "", errNotNow
	}
	m.inTurn = true
	m.a.opt.OnEvent(RebootBegins)
	q := &RebootRequest{ID: rand.Text(), Method: by, RequestedAt: m.now().UTC(), Attempt: 1, Outcome: accepted}
	if last != nil && last.Outcome != Rebooted {
		q.Attempt = last.Attempt + 1
	}
	old := m.record
	b, err := m.boot()
	if err == nil {
		m.record.settle(m.now(), b) // which it is already, unless the boot could not be read before
		m.record.Request = q
		if err = m.store(); err == nil {
			m.changes++
			return q.ID, nil
		}
		err = fmt.Errorf("what is asked of it cannot be stored: %w", err)
	}
	m.a.log.Error("the machine does not reboot", logError, err)
	m.inTurn = !inTurn
	m.record = old
	q.end(m.now(), m.record.Boot, Refused, err.Error())
	m.record.Request = q
	m.save()
	return "", err
}

// answered goes on when the answer is sent, and calls the reboot off if it could not be: the caller has
// been told that the call failed.
func (m *machineReboot) answered(err error) {
	if err != nil {
		m.conclude(NotRebooted, fmt.Sprintf("called off, since the answer could not be sent: %v", err))
		return
	}
	m.asked.Set()
}

// conclude ends the request that is pending. The machine may have rebooted after all.
func (m *machineReboot) conclude(o Outcome, reason string) {
	m.settle()
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.record.Request
	if !q.pending() {
		return
	}
	q.end(m.now(), m.record.Boot, o, reason)
	m.a.log.Warn("the machine has not rebooted", logReason, reason)
	m.save()
}

// work carries out what is asked for, beginning with what an earlier start has left.
func (m *machineReboot) work(ctx context.Context) {
	switch m.left {
	case accepted:
		m.conclude(NotRebooted, "the agent was started again before it ran the reboot command")
	case Rebooting:
		m.mu.Lock()
		left := m.grace - m.now().Sub(m.record.Request.RequestedAt)
		m.mu.Unlock()
		// A clock that has been set must not make this longer than the grace.
		if wait.For(ctx, min(left, m.grace)) != nil {
			return
		}
		m.conclude(NotRebooted, "the agent was started again, and the machine is still up")
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.asked:
			m.carryOut(ctx)
		}
	}
}

// carryOut runs the command. If all goes well it doesn't return before the machine goes down.
func (m *machineReboot) carryOut(ctx context.Context) {
	m.mu.Lock()
	m.record.Request.Outcome, m.record.Request.BootID = Rebooting, m.record.Boot.ID
	m.save()
	m.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, tellLimit)
	// The hub takes what a device sends in order: once the twin is told, the answer has arrived too.
	if err := m.tell(limited); err != nil {
		m.a.log.Warn("the twin is not told that the machine reboots", logError, err)
	}
	cancel()

	limited, cancel = context.WithTimeout(ctx, m.grace)
	defer cancel()
	r := m.command.run(limited, nil, nil, maxRebootOutput)
	failure := "the reboot command failed: " + r.text()
	switch {
	case ctx.Err() != nil:
		return // perhaps the machine is going down: the next start finds out
	case errors.Is(r.err, errTooLong) || limited.Err() != nil:
		m.conclude(NotRebooted, fmt.Sprintf("the reboot command had not ended after %v and was stopped", m.grace))
		return
	case r.err != nil && !r.killed():
		m.conclude(CommandFailed, failure)
		return
	}
	// A command may return long before the machine goes down, which may begin with killing the command.
	<-limited.Done()
	switch {
	case ctx.Err() != nil:
	case r.err != nil:
		m.conclude(CommandFailed, failure)
	default:
		m.conclude(NotRebooted, fmt.Sprintf("the reboot command succeeded, but the machine is still up %v later", m.grace))
	}
}
