package fleet

import (
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// A state is what a device is just now.
type state int

const (
	waiting     state = iota // for its turn in the ramp-up
	registering              // an attempt is under way, or waits for its turn, and has the device registered first
	connecting               // the same, without that or after it
	connected
	lost // between two attempts
	gone // of its own will
	states
)

// enter notes that d is in another state, until the fleet ends: Stats show how it was then. It is for the
// goroutine that connects.
func (d *device) enter(s state) {
	if d.fleet.stop.Err() != nil {
		return
	}
	d.fleet.counts.move(d.state, s)
	d.state = s
	d.online.Store(s == connected)
	if s == gone {
		d.began = time.Time{}
	}
}

// onState follows the connection of d. It makes the client wait before an attempt until it is its turn.
func (d *device) onState(s mqttdevice.State) {
	f := d.fleet
	switch s.Status {
	case mqttdevice.Provisioning:
		d.enter(registering)
		d.inGate = f.enter()
	case mqttdevice.Connecting:
		if d.state != connected { // not for a new token
			d.enter(connecting)
		}
		if !d.inGate {
			d.inGate = f.enter()
		}
		if !d.inGate {
			return
		}
		before := d.began
		d.began = time.Now()
		f.counts.attempt(before, d.began)
	case mqttdevice.Connected:
		d.leaveGate()
		f.counts.connect(time.Since(d.began), d.again)
		d.again = true
		d.enter(connected)
	case mqttdevice.Disconnected:
		attempt := d.leaveGate()
		if s.Retry == 0 && s.Reason == mqttdevice.ErrClosed {
			d.enter(gone)
			return
		}
		if f.stop.Err() != nil {
			return
		}
		during := d.state
		d.enter(lost)
		if kind := kindOf(s.Reason); f.counts.trouble(kind, during, attempt) && f.opt.OnTrouble != nil {
			f.opt.OnTrouble(d.id, kind, s.Reason)
		}
	}
}

// leaveGate ends an attempt. It reports whether there was one.
func (d *device) leaveGate() bool {
	attempt := d.inGate
	if d.inGate {
		d.inGate = false
		d.fleet.leave()
	}
	return attempt
}
