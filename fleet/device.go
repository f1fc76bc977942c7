package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/agent/tutorial"
	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

// refusedPause is about how long a device waits that was refused at its first attempt. It may have been
// disabled, and be enabled again.
const refusedPause = 30 * time.Second

// A device is one of the fleet. Its goroutine is in live; what it answers runs on those of its client.
type device struct {
	fleet   *Fleet
	options mqttdevice.Options
	id      string // with the module, if it is one

	// Sources of what is random, each for one thing, so that one does not depend on the other.
	mu      sync.Mutex // guards calls
	calls   *rand.Rand // which methods fail or are slow
	comings *rand.Rand // when it is away
	beats   *rand.Rand // when it sends telemetry

	online    atomic.Bool
	rebooting atomic.Bool
	reboots   chan time.Duration // of capacity 1: go away for so long, to reboot
	rebooted  bool               // it is back, and has not reported that
	messages  uint64             // sent so far, or skipped

	// provision is that of the options as they were given; assigned is what came of it last, for the next
	// time that the device is there. Its client calls, or the goroutine in live when there is none.
	provision func(context.Context, error) (mqttdevice.Endpoint, error)
	assigned  *mqttdevice.Endpoint

	// What follows belongs to the goroutine that connects: see onState.
	state  state
	inGate bool
	began  time.Time // of the last attempt since it was gone
	again  bool      // it has been connected before
}

func newDevice(f *Fleet, options mqttdevice.Options) *device {
	d := &device{fleet: f, options: options, reboots: make(chan time.Duration, 1), state: waiting}
	d.id = options.ConnectionString.DeviceID
	if m := options.ConnectionString.ModuleID; m != "" {
		d.id += "/" + m
	}
	d.options.OnState = d.onState
	if options.Provision != nil {
		d.options.Provision = d.register
		d.provision = options.Provision
	}
	h := fnv.New64a()
	h.Write([]byte(d.id))
	random := func(what uint64) *rand.Rand { return rand.New(rand.NewPCG(f.opt.Seed, h.Sum64()+what)) }
	d.calls, d.comings, d.beats = random(0), random(1), random(2)
	return d
}

// live plays the device until the fleet ends.
func (d *device) live() {
	for ctx := d.fleet.stop; ctx.Err() == nil; {
		away := d.connected(ctx)
		d.enter(gone)
		if wait.For(ctx, away) != nil {
			return
		}
	}
}

// connected is one stay of the device at the hub, broken connections included. It returns how long the
// device is to be away.
func (d *device) connected(ctx context.Context) (away time.Duration) {
	options := d.options
	if e := d.assigned; e != nil {
		options.ConnectionString, options.Addr, options.WebSocketAddr = e.ConnectionString, e.Addr, e.WebSocketAddr
	}
	c, err := mqttdevice.New(options)
	if err != nil {
		d.fleet.fail(err) // New has tried that
		return 0
	}
	defer c.Close()
	d.serve(c)
	if err := c.Connect(ctx); err != nil {
		if ctx.Err() == nil {
			d.fleet.refused(d, err)
		}
		return refusedPause + rand.N(refusedPause)
	}
	if d.rebooted {
		d.report(ctx, c)
	}
	var leave, beat <-chan time.Time // never, until they are set
	if d.fleet.opt.OfflineRate > 0 {
		leave = time.After(d.stay())
	}
	if interval := d.fleet.opt.TelemetryInterval; interval > 0 {
		// Somewhere in the interval: a fleet that starts at one moment does not send at one moment.
		beat = time.After(time.Duration(d.beats.Float64() * float64(interval)))
	}
	for {
		select {
		case <-ctx.Done():
			return 0
		case away := <-d.reboots:
			d.rebooted = true
			return away
		case <-leave:
			return d.absence()
		case <-beat:
			next := time.Now().Add(vary(d.beats, d.fleet.opt.TelemetryInterval, d.fleet.opt.Jitter))
			d.send(ctx, c)
			beat = time.After(time.Until(next))
		}
	}
}

// register finds out where the device belongs, and counts that.
func (d *device) register(ctx context.Context, reason error) (mqttdevice.Endpoint, error) {
	began := time.Now()
	e, err := d.provision(ctx, reason)
	if err == nil {
		d.assigned = &e
		d.fleet.counts.register(time.Since(began))
	}
	return e, err
}

// absence is how long the device is to be away, and stay how long it is to be there in between: on
// average so long that it is away for OfflineRate of the time.
func (d *device) absence() time.Duration {
	return time.Duration(d.comings.ExpFloat64() * float64(d.fleet.opt.OfflineDuration))
}

func (d *device) stay() time.Duration {
	rate := d.fleet.opt.OfflineRate
	return time.Duration(d.comings.ExpFloat64() * float64(d.fleet.opt.OfflineDuration) * (1 - rate) / rate)
}

// vary returns duration, or up to share more or less.
func vary(r *rand.Rand, duration time.Duration, share float64) time.Duration {
	if share == 0 {
		return duration
	}
	return time.Duration(float64(duration) * (1 + share*(2*r.Float64()-1)))
}

// report reports a reboot, on a later connection if it must.
func (d *device) report(ctx context.Context, c *mqttdevice.Client) {
	patch := tutorial.Report(time.Now())
	for ctx.Err() == nil {
		err := d.patch(ctx, c, patch)
		if _, refused := errors.AsType[*mqttdevice.Error](err); err == nil || refused {
			break // the same patch would be refused again
		}
	}
	d.rebooted = false
	d.rebooting.Store(false)
}

// patch reports properties and counts that.
func (d *device) patch(ctx context.Context, c *mqttdevice.Client, patch any) error {
	began := time.Now()
	_, err := c.PatchReported(ctx, patch)
	d.fleet.counts.patch(time.Since(began), err)
	return err
}

// refused is called for a device whose first attempt was refused for good.
func (f *Fleet) refused(d *device, err error) {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || f.counts.refuse(d) {
		f.fail(err)
	}
}
