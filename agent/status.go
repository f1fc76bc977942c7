package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

const (
	// statusPause is the least time between two writes of the status file.
	statusPause = time.Second
	// statusPeriod is the most: readers tell by updatedAt that the agent runs, and other parts change
	// without a word.
	statusPeriod = 30 * time.Second
	// statusMethods is how many calls of direct methods it tells of.
	statusMethods = 10
	// maxStatusName bounds their names; IoT Hub has 100.
	maxStatusName = 100
	// lateBy is how long an event of the connection may be overdue before the agent counts as hung.
	lateBy = 5 * time.Minute
)

// A statusFile tells other programs of this machine how the agent is: a JSON document that is replaced
// as a whole, may be read by everybody, and holds no secret and no payload.
type statusFile struct {
	device  mqttdevice.Options
	file    string // empty: none is written
	changed wait.Signal
	started time.Time
	life    time.Duration         // the most that a connection can last; 0: for ever
	parts   map[string]func() any // what others have to tell, by name

	mu      sync.Mutex // guards what follows
	state   mqttdevice.State
	reason  string         // why the connection was lost last, or is
	retryAt time.Time      // of the next attempt
	due     time.Time      // when the next event of the connection is expected; zero: not known
	up      time.Time      // since when it is connected; zero: it is not
	busy    time.Time      // since when it does something upon a connection; zero: it does not
	methods []methodStatus // oldest first
}

// A statusDocument is the content of the file. The parts that others tell are members besides.
type statusDocument struct {
	Device     string           `json:"device"`
	Module     string           `json:"module,omitempty"`
	Hub        string           `json:"hub"`
	PID        int              `json:"pid"`
	StartedAt  time.Time        `json:"startedAt"`
	UpdatedAt  time.Time        `json:"updatedAt"`
	Connection connectionStatus `json:"connection"`
	Methods    []methodStatus   `json:"methods"` // the last ones, oldest first
}

type connectionStatus struct {
	State     string     `json:"state"`                // connecting, connected, disconnected or provisioning
	Since     time.Time  `json:"since"`                // when it became connected, or ceased to be
	Transport string     `json:"transport,omitempty"`  // while connected
	Addr      string     `json:"addr,omitempty"`       // while connected: what was dialed
	Blocked   string     `json:"tcpBlocked,omitempty"` // while connected by WebSocket: why not by TCP
	Attempts  int        `json:"attempts,omitempty"`   // while not connected: how often it has tried
	Reason    string     `json:"reason,omitempty"`     // why it is, or was last, not connected
	RetryAt   *time.Time `json:"retryAt,omitempty"`    // when it tries again
}

type methodStatus struct {
	Name     string    `json:"name"`
	At       time.Time `json:"at"`
	Status   int       `json:"status"`
	Duration float64   `json:"duration"` // seconds
}

func newStatusFile(opt Options) *statusFile {
	return &statusFile{
		device: opt.Device, life: tokenLife(opt), file: opt.StatusFile, changed: wait.NewSignal(), started: time.Now(), parts: make(map[string]func() any),
	}
}

// heard takes an event of the connection.
func (f *statusFile) heard(s mqttdevice.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.state, f.retryAt, f.due = s, time.Time{}, time.Time{}
	switch s.Status {
	case mqttdevice.Connecting, mqttdevice.Provisioning:
		f.due = now.Add(lateBy)
	case mqttdevice.Connected:
		if f.up.IsZero() {
			f.up = now
		}
		if f.life > 0 { // the token is replaced before it ends
			f.due = now.Add(f.life + lateBy)
		}
	case mqttdevice.Disconnected:
		f.up = time.Time{}
		f.reason = fmt.Sprint(s.Reason)
		if s.Retry > 0 {
			f.retryAt = now.Add(s.Retry)
			f.due = f.retryAt.Add(lateBy)
		}
	}
	f.changed.Set()
}

// working takes that what is to be done upon a connection begins, or has ended.
func (f *statusFile) working(begins bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = time.Time{}
	if begins {
		f.busy = time.Now()
	}
}

// called takes a call of a direct method.
func (f *statusFile) called(name string, began time.Time, status int) {
	m := methodStatus{clip(name, maxStatusName), began.UTC(), cmp.Or(status, 200), math.Round(time.Since(began).Seconds()*1000) / 1000}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.methods) == statusMethods {
		f.methods = slices.Delete(f.methods, 0, 1)
	}
	f.methods = append(f.methods, m)
	f.changed.Set()
}

// document is what the file is to hold now.
func (f *statusFile) document() ([]byte, error) {
	f.mu.Lock()
	d := statusDocument{
		Device: f.deviceLocked(), Module: f.device.ConnectionString.ModuleID, Hub: cmp.Or(f.state.Hub, f.device.ConnectionString.HostName), PID: os.Getpid(),
		StartedAt: f.started.UTC(), UpdatedAt: time.Now().UTC(),
		Connection: connectionStatus{State: f.state.Status.String(), Since: f.state.Since.UTC(), Reason: f.reason},
		Methods:    slices.Clone(f.methods),
	}
	c := &d.Connection
	switch f.state.Status {
	case 0:
		c.State, c.Since = mqttdevice.Disconnected.String(), d.StartedAt
	case mqttdevice.Connected:
		c.Transport, c.Addr = f.state.Transport.String(), f.state.Addr
		if f.state.Reason != nil {
			c.Blocked = f.state.Reason.Error()
		}
	default:
		c.Attempts = f.state.Attempts
	}
	if !f.retryAt.IsZero() {
		at := f.retryAt.UTC()
		c.RetryAt = &at
	}
	f.mu.Unlock()
	if d.Methods == nil {
		d.Methods = []methodStatus{}
	}
	all := make(map[string]any)
	for name, part := range f.parts {
		if v := part(); v != nil {
			all[name] = v
		}
	}
	doc, err := json.Marshal(d)
	if err == nil {
		err = json.Unmarshal(doc, &all)
	}
	if err != nil {
		return nil, err
	}
	doc, err = json.MarshalIndent(all, "", "  ")
	return append(doc, '\n'), err
}

// describe adds a member to the status file: what part returns, nil for nothing. It is for before Connect.
func (a *Agent) describe(name string, part func() any) { a.status.parts[name] = part }

// keepStatus writes the file whenever something has changed, and now and then.
func (a *Agent) keepStatus(ctx context.Context) {
	failed := false
	period := time.NewTicker(statusPeriod)
	defer period.Stop()
	for {
		err := a.writeStatus()
		if err != nil && !failed {
			a.log.Warn("the status is not written", logError, err)
		}
		failed = err != nil
		if wait.For(ctx, statusPause) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-a.status.changed:
		case <-period.C:
		}
	}
}

func (a *Agent) writeStatus() error {
	doc, err := a.status.document()
	if err != nil {
		return err
	}
	return replaceFile(a.status.file, doc, 0o644, false)
}

// Alive returns an error if the agent has stopped doing what it should do in time: to try again to
// connect, to replace its token, or to report upon a connection. A watchdog may ask now and then. That
// there is no connection is no error.
func (a *Agent) Alive() error {
	f := a.status
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	switch {
	case !f.due.IsZero() && now.After(f.due):
		return fmt.Errorf("the device hangs: it has been %v for too long", f.state.Status)
	case !f.busy.IsZero() && !f.up.IsZero() && now.Sub(f.busy) > lateBy && now.Sub(f.up) > lateBy:
		return fmt.Errorf("the device hangs: what it does upon a connection has not ended in %v", lateBy)
	}
	return nil
}

// tokenLife is how long a connection can last at most; zero is for ever.
func tokenLife(opt Options) time.Duration {
	if opt.Device.ConnectionString.SharedAccessKey == "" && (opt.Provision == nil || opt.Provision.Registration.Key == "") {
		return 0
	}
	return cmp.Or(opt.Device.TokenLife, mqttdevice.DefaultTokenLife)
}

// deviceID is the device that the agent is now: with Provision that may change.
func (f *statusFile) deviceID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deviceLocked()
}

func (f *statusFile) deviceLocked() string {
	return cmp.Or(f.state.Device, f.device.ConnectionString.DeviceID)
}
