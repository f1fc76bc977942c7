package fleet

import (
	"maps"
	"strconv"
	"sync"
	"time"
)

// Stats are what a fleet has done so far. Durations are in seconds or milliseconds, as their JSON names
// say.
type Stats struct {
	Devices int     `json:"devices"`
	Seconds float64 `json:"seconds"` // that the fleet has run
	Seed    uint64  `json:"seed"`

	// How many devices are in which state just now: not started yet, registering with a provisioning
	// service, trying to connect, connected, between two attempts, and away of their own will. When Run has
	// ended they are as before its end.
	Waiting     int `json:"waiting"`
	Registering int `json:"registering"`
	Connecting  int `json:"connecting"`
	Connected   int `json:"connected"`
	Lost        int `json:"lost"`
	Away        int `json:"away"`

	Registrations    uint64          `json:"registrations"`    // that ended with an assignment
	RegisterMs       Latency         `json:"registerMs"`       // of these, with all that was asked again
	RegisterFailures map[Kind]uint64 `json:"registerFailures"` // attempts that ended without, by reason

	Attempts   uint64  `json:"attempts"`   // to connect
	Connects   uint64  `json:"connects"`   // that succeeded, reconnects and new tokens included
	Reconnects uint64  `json:"reconnects"` // of devices that had been connected before
	ConnectMs  Latency `json:"connectMs"`  // of one attempt that succeeded, from dialling to the subscriptions
	// LeastRetryMs is the shortest time between two attempts of one device; 0 when none tried twice.
	LeastRetryMs float64 `json:"leastRetryMs"`

	ConnectFailures map[Kind]uint64 `json:"connectFailures"` // attempts that failed, by reason
	Disconnects     map[Kind]uint64 `json:"disconnects"`     // connections that broke, by reason

	Calls   uint64            `json:"calls"`   // of methods
	Methods map[string]uint64 `json:"methods"` // answers, by status
	Reboots uint64            `json:"reboots"` // begun

	Patches      uint64  `json:"patches"` // of reported properties that the hub took
	PatchesLost  uint64  `json:"patchesLost"`
	PatchMs      Latency `json:"patchMs"`
	Telemetry    uint64  `json:"telemetry"` // messages that the hub took
	TelemetryMs  Latency `json:"telemetryMs"`
	LostMessages uint64  `json:"telemetryLost"`    // nobody knows whether the hub took them
	SkippedBeats uint64  `json:"telemetrySkipped"` // not sent for want of a connection
}

// Answered is the number of methods answered, whatever the status.
func (s Stats) Answered() (n uint64) {
	for _, count := range s.Methods {
		n += count
	}
	return n
}

// counts is where the devices count.
type counts struct {
	mu    sync.Mutex // guards what follows
	stats Stats      // but for Seconds and what comes from below
	began time.Time
	ended time.Time // zero: still running

	states              [states]int
	registers, connects histogram
	patches, sends      histogram
	leastRetry          time.Duration
	seen                map[Kind]bool
	refused             map[*device]bool // at its first attempt; nil once one was taken
}

func (c *counts) begin(devices int, seed uint64) {
	c.stats = Stats{
		Devices: devices, Seed: seed,
		RegisterFailures: make(map[Kind]uint64), ConnectFailures: make(map[Kind]uint64), Disconnects: make(map[Kind]uint64), Methods: make(map[string]uint64),
	}
	c.seen, c.refused = make(map[Kind]bool), make(map[*device]bool)
	c.states[waiting] = devices
}

func (c *counts) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Now()
}

func (c *counts) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = time.Now()
}

// Stats returns what the devices have done so far.
func (f *Fleet) Stats() Stats {
	c := &f.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	switch {
	case c.began.IsZero():
	case c.ended.IsZero():
		s.Seconds = time.Since(c.began).Seconds()
	default:
		s.Seconds = c.ended.Sub(c.began).Seconds()
	}
	s.Waiting, s.Connecting, s.Connected = c.states[waiting], c.states[connecting], c.states[connected]
	s.Registering, s.RegisterMs, s.RegisterFailures = c.states[registering], c.registers.latency(), maps.Clone(s.RegisterFailures)
	s.Lost, s.Away = c.states[lost], c.states[gone]
	s.ConnectMs, s.PatchMs, s.TelemetryMs = c.connects.latency(), c.patches.latency(), c.sends.latency()
	s.LeastRetryMs = milliseconds(c.leastRetry)
	s.ConnectFailures, s.Disconnects, s.Methods = maps.Clone(s.ConnectFailures), maps.Clone(s.Disconnects), maps.Clone(s.Methods)
	return s
}

func (c *counts) move(from, to state) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[from]--
	c.states[to]++
}

// attempt counts an attempt to connect; before is when the device's last one began, if there was one.
func (c *counts) attempt(before, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Attempts++
	if gap := now.Sub(before); !before.IsZero() && (c.leastRetry == 0 || gap < c.leastRetry) {
		c.leastRetry = gap
	}
}

func (c *counts) connect(took time.Duration, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = nil
	c.stats.Connects++
	if again {
		c.stats.Reconnects++
	}
	c.connects.add(took)
}

// register counts a registration that has ended with an assignment.
func (c *counts) register(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Registrations++
	c.registers.add(took)
}

// trouble counts a failed attempt or a broken connection of a device in the state during. It reports
// whether it is the first of its kind.
func (c *counts) trouble(kind Kind, during state, attempt bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if during == registering {
		c.stats.RegisterFailures[kind]++
	} else if attempt {
		c.stats.ConnectFailures[kind]++
	} else {
		c.stats.Disconnects[kind]++
	}
	first := !c.seen[kind]
	c.seen[kind] = true
	return first
}

// refuse notes that d was refused at its first attempt. It reports whether that has become of every device.
func (c *counts) refuse(d *device) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		return false
	}
	c.refused[d] = true
	return len(c.refused) == c.stats.Devices
}

func (c *counts) call() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Calls++
}

func (c *counts) answer(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Methods[strconv.Itoa(status)]++
}

func (c *counts) reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Reboots++
}

func (c *counts) patch(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.stats.PatchesLost++
		return
	}
	c.stats.Patches++
	c.patches.add(took)
}

func (c *counts) send(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.stats.LostMessages++
		return
	}
	c.stats.Telemetry++
	c.sends.add(took)
}

func (c *counts) skip() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.SkippedBeats++
}
