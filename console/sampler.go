package console

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

const (
	sampleEvery = 5 * time.Second
	sampleSpan  = time.Hour // what the pictures show
	sampleWait  = 5 * time.Second

	// countEvery is how often the registry is counted, which on a hub of iotdm reads all of it: no more than a fiftieth of
	// the time is spent on it.
	countEvery = 30 * time.Second
	countShare = 50
	countWait  = time.Minute
)

// A sample is what the hub told at a time. What it did not tell is NaN.
type sample struct {
	at                            time.Time
	connected                     float64
	messages, methods, unanswered float64 // in a second
}

// A sampler reads how much goes through the hub, again and again while somebody uses the console, for the pictures of
// the overview.
type sampler struct {
	client *hubrest.Client
	live   *live
	now    func() time.Time

	mu      sync.Mutex
	used    time.Time // when somebody last looked
	running bool
	samples []sample // of the last sampleSpan
	problem error    // of the last one; nil: it went well
	count   registryCount
}

// A registryCount is how many devices there are, and when that was.
type registryCount struct {
	hubrest.DeviceStatistics
	At    time.Time // zero: never
	Error error
}

// use says that somebody looks. It begins sampling if need be.
func (s *sampler) use(ctx context.Context, start func(func())) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = s.now()
	if !s.running {
		s.running = true
		start(func() { s.run(ctx) })
	}
}

// wanted reports whether somebody has looked within the span of the pictures. Else sampling ends.
func (s *sampler) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = s.running && s.now().Sub(s.used) < sampleSpan
	return s.running
}

func (s *sampler) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var counting sync.WaitGroup
	counting.Go(func() { s.runCount(ctx) })
	defer counting.Wait()
	defer cancel()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	var last reading
	for s.wanted() {
		last = s.take(ctx, last)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// A reading is what counters showed.
type reading struct {
	hubrest.Traffic
	at    time.Time // by the machine's clock; zero: there is none
	heard uint64    // telemetry that came over the subscription
	live  bool      // which was there
}

// take reads the hub and keeps a sample.
func (s *sampler) take(ctx context.Context, last reading) reading {
	ctx, cancel := context.WithTimeout(ctx, sampleWait)
	defer cancel()
	r := reading{at: time.Now(), heard: s.live.counted.Load(), live: s.live.state().On}
	point := sample{at: s.now(), connected: math.NaN(), messages: math.NaN(), methods: math.NaN(), unanswered: math.NaN()}
	var err error
	own := s.client.OwnHub()
	if own {
		r.Traffic, err = s.client.Traffic(ctx)
	} else {
		r.ConnectedDevices, err = s.client.ConnectedDevices(ctx)
	}
	rate := func(now, before uint64) float64 {
		passed := r.at.Sub(last.at).Seconds()
		if last.at.IsZero() || now < before || passed <= 0 { // less: the hub has started anew
			return math.NaN()
		}
		return float64(now-before) / passed
	}
	switch {
	case err != nil:
		r.at = time.Time{}
	case own:
		point.connected = float64(r.ConnectedDevices)
		point.messages = rate(r.Telemetry, last.Telemetry)
		point.methods = rate(r.MethodCalls, last.MethodCalls)
		point.unanswered = rate(r.MethodFailures, last.MethodFailures)
	default:
		point.connected = float64(r.ConnectedDevices)
		if r.live && last.live {
			point.messages = rate(r.heard, last.heard)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = err
	s.samples = append(s.samples, point)
	for len(s.samples) > 1 && point.at.Sub(s.samples[0].at) > sampleSpan {
		s.samples = s.samples[1:]
	}
	return r
}

func (s *sampler) runCount(ctx context.Context) {
	for {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, countWait)
		n, err := s.client.DeviceStatistics(limited)
		cancel()
		s.mu.Lock()
		if s.count.Error = err; err == nil {
			s.count.DeviceStatistics, s.count.At = n, s.now()
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(countEvery, countShare*time.Since(began))):
		}
	}
}

// history returns what was read within the span, and how the last reading went.
func (s *sampler) history() ([]sample, registryCount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]sample(nil), s.samples...), s.count, s.problem
}

// thin returns at most n samples, each the mean of its neighbours.
func thin(all []sample, n int) []sample {
	if len(all) <= n {
		return all
	}
	size := (len(all) + n - 1) / n
	var thinned []sample
	for i := 0; i < len(all); i += size {
		group := all[i:min(i+size, len(all))]
		mean := func(value func(sample) float64) float64 {
			sum, known := 0.0, 0
			for _, s := range group {
				if v := value(s); !math.IsNaN(v) {
					sum, known = sum+v, known+1
				}
			}
			return sum / float64(known) // NaN without any
		}
		thinned = append(thinned, sample{
			at:         group[len(group)-1].at,
			connected:  mean(func(s sample) float64 { return s.connected }),
			messages:   mean(func(s sample) float64 { return s.messages }),
			methods:    mean(func(s sample) float64 { return s.methods }),
			unanswered: mean(func(s sample) float64 { return s.unanswered }),
		})
	}
	return thinned
}
