// Package fleet plays many devices in one process, for people who test a back end: each device has a
// connection and a twin of its own, answers direct methods, reboots, sends telemetry, fails, is slow and
// goes away as often as it is told to.
//
//	f, err := fleet.New(fleet.Options{Devices: devices, RebootDuration: 20 * time.Second, FailRate: 0.01})
//	...
//	err = f.Run(ctx)
//	fmt.Println(f.Stats().Connects)
//
// What a device does at random depends on [Options.Seed], on its id and on how many methods it has been
// called with or messages it has sent, and on nothing else: with the same seed the third call of pump-7
// fails again.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

// Options say which devices a fleet has and how they behave. Only Devices is needed. A rate is a share
// between 0, never, and 1, always.
type Options struct {
	// Devices say how each device connects; OnState is ignored. No id may occur twice. One with Provision
	// registers before it connects for the first time, and has a DeviceID as its name until then.
	Devices []mqttdevice.Options

	// RampUp is how many devices begin to connect in a second. Zero means that as many connect as the
	// hub and this machine can take.
	RampUp float64

	// RebootDuration is how long the methods rebootDevice and reboot take. A device answers when it has
	// rebooted and reported rebootTime in its twin; with RebootOffline it answers, disconnects, and
	// reports rebootTime when it is back.
	RebootDuration time.Duration
	RebootOffline  bool

	// FailRate is the share of methods that are answered with status 500, and nothing done.
	FailRate float64

	// SlowRate is the share of methods that are answered after AnswerDelay.
	SlowRate    float64
	AnswerDelay time.Duration

	// OfflineRate is the share of the time that a device is away: it disconnects and comes back, at
	// random times, staying away for OfflineDuration on average. Zero means 30 seconds.
	OfflineRate     float64
	OfflineDuration time.Duration

	// TelemetryInterval is the time between two messages of a device; zero means that it sends none. A
	// device that is not connected when its time has come skips the message.
	TelemetryInterval time.Duration

	// Telemetry makes the n-th message of a device, or of a module of it, counting from 1. It is called
	// from many goroutines; an error ends Run. Nil means {"deviceId":"...","sequence":n}.
	Telemetry func(device, module string, n uint64) (mqttdevice.Message, error)

	// ReportDesired makes the devices report each change of their desired properties, as if they had
	// applied it.
	ReportDesired bool

	// Jitter is by which share TelemetryInterval, RebootDuration and AnswerDelay vary, up and down.
	Jitter float64

	// Seed is where all that is random begins.
	Seed uint64

	// OnTrouble, if set, is called when a device cannot connect or loses its connection for a kind of
	// reason that no device has had before. It must not block.
	OnTrouble func(device string, kind Kind, reason error)
}

const (
	defaultOfflineDuration = 30 * time.Second
	// maxAttempts is how many devices connect at once. More would only keep each other from being done
	// in time, and take memory for handshakes; fewer would wait for a hub that is far away.
	maxAttempts = 256
)

// check completes the options, or says what is wrong with them.
func (o *Options) check() error {
	if len(o.Devices) == 0 {
		return errors.New("a fleet without devices")
	}
	for _, rate := range []struct {
		name  string
		value float64
	}{{"FailRate", o.FailRate}, {"SlowRate", o.SlowRate}, {"OfflineRate", o.OfflineRate}, {"Jitter", o.Jitter}} {
		if !(rate.value >= 0 && rate.value <= 1) {
			return fmt.Errorf("%s %v is not between 0 and 1", rate.name, rate.value)
		}
	}
	if !(o.RampUp >= 0) {
		return fmt.Errorf("RampUp %v is less than 0", o.RampUp)
	}
	if slices.Min([]time.Duration{o.RebootDuration, o.AnswerDelay, o.OfflineDuration, o.TelemetryInterval}) < 0 {
		return errors.New("a duration is less than 0")
	}
	if o.OfflineRate == 1 {
		return errors.New("OfflineRate 1 leaves the devices no time to be connected")
	}
	if o.OfflineDuration == 0 {
		o.OfflineDuration = defaultOfflineDuration
	}
	if o.Telemetry == nil {
		o.Telemetry = plainTelemetry
	}
	return nil
}

// A Fleet is a number of devices. Stats may be called from any goroutine, Run once.
type Fleet struct {
	opt     Options
	devices []*device
	gate    chan struct{} // holds the devices that connect just now

	stop context.Context // of Run
	fail context.CancelCauseFunc

	counts counts
}

// New returns a fleet that does nothing yet. It fails on options that cannot work.
func New(opt Options) (*Fleet, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	f := &Fleet{opt: opt, gate: make(chan struct{}, maxAttempts)}
	seen := make(map[string]bool, len(opt.Devices))
	for _, options := range opt.Devices {
		d := newDevice(f, options)
		if seen[d.id] {
			return nil, fmt.Errorf("device %q occurs twice", d.id)
		}
		seen[d.id] = true
		c, err := mqttdevice.New(options)
		if err != nil {
			return nil, fmt.Errorf("device %q: %w", d.id, err)
		}
		c.Close()
		f.devices = append(f.devices, d)
	}
	f.counts.begin(len(f.devices), opt.Seed)
	return f, nil
}

// Run connects the devices and plays them until ctx ends; then it disconnects all of them and returns
// nil. It fails when it makes no sense to go on: with an error that wraps
// [*tls.CertificateVerificationError] when a hub is not what it should be, and with one that wraps
// [mqttdevice.ErrUnauthorized] when every single device was refused.
func (f *Fleet) Run(ctx context.Context) error {
	f.stop, f.fail = context.WithCancelCause(ctx)
	defer f.fail(nil)
	f.counts.start()
	var group sync.WaitGroup
	defer group.Wait()
	began := time.Now()
	for i, d := range f.devices {
		if f.opt.RampUp > 0 {
			at := began.Add(time.Duration(float64(i) / f.opt.RampUp * float64(time.Second)))
			if wait.For(f.stop, time.Until(at)) != nil {
				break
			}
		}
		group.Go(d.live)
		if i%maxAttempts == 0 {
			runtime.Gosched() // the first ones need not wait for the last
		}
	}
	<-f.stop.Done()
	f.counts.stop()
	if ctx.Err() == nil {
		return context.Cause(f.stop)
	}
	return nil
}

// enter waits for a turn to connect. It reports false when the fleet ends, and there are no turns.
func (f *Fleet) enter() bool {
	select {
	case f.gate <- struct{}{}:
		return true
	case <-f.stop.Done():
		return false
	}
}

func (f *Fleet) leave() { <-f.gate }
