package natsevents_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/cluster/natsevents"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/eventlog"
)

// A device sends numbered events, many at a time, and sends again what is not
// known to be stored, from the first on.
type device struct {
	name string
	log  *natsevents.Log

	mu       sync.Mutex
	changed  sync.Cond
	sent     int  // the next number
	stored   int  // all before it are
	waiting  int  // for an answer
	failing  bool // since one was not stored
	repeated bool // ever
}

const window = 20 // of a device

func newDevice(name string, log *natsevents.Log) *device {
	d := &device{name: name, log: log}
	d.changed.L = &d.mu
	return d
}

// run sends until ctx ends, and then waits until what it has sent is stored.
func (d *device) run(t *testing.T, ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for d.waiting > 0 && (d.failing || d.waiting >= window || ctx.Err() != nil) {
			d.changed.Wait()
		}
		switch {
		case d.failing:
			d.failing, d.repeated, d.sent = false, true, d.stored
		case ctx.Err() != nil && d.stored == d.sent:
			return
		case ctx.Err() != nil && d.waiting > 0:
			continue
		}
		n := d.sent
		d.sent++
		d.waiting++
		d.mu.Unlock()
		err := d.log.Append(d.name, fmt.Appendf(nil, "%s %d", d.name, n), func(err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.waiting--
			switch {
			case err != nil && !errors.Is(err, eventlog.ErrUnwritten):
				t.Error(err)
			case err != nil:
				d.failing = true
			case !d.failing && n != d.stored:
				t.Errorf("%s: event %d is acknowledged behind %d", d.name, n, d.stored-1)
			case !d.failing:
				d.stored++
			}
			d.changed.Broadcast()
		})
		d.mu.Lock()
		if err != nil {
			t.Error(err)
			return
		}
	}
}

func (d *device) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stored
}

// faults are what servers, and the second node, suffer meanwhile.
var faults = []struct {
	name string
	do   func(c *natstest.Cluster, leader int, way *natstest.Way)
}{
	{"the leader is stopped", func(c *natstest.Cluster, leader int, _ *natstest.Way) {
		c.Servers[leader].Stop()
		time.Sleep(time.Second)
		c.Servers[leader].Start()
	}},
	{"the leader is killed", func(c *natstest.Cluster, leader int, _ *natstest.Way) {
		c.Servers[leader].Kill()
		time.Sleep(time.Second)
		c.Servers[leader].Start()
	}},
	{"the leader is paused", func(c *natstest.Cluster, leader int, _ *natstest.Way) {
		c.Servers[leader].Pause()
		time.Sleep(4 * time.Second)
		c.Servers[leader].Resume()
	}},
	{"another server is killed", func(c *natstest.Cluster, leader int, _ *natstest.Way) {
		c.Servers[(leader+1)%3].Kill()
		time.Sleep(time.Second)
		c.Servers[(leader+1)%3].Start()
	}},
	{"the leader is cut off from the others", func(c *natstest.Cluster, leader int, _ *natstest.Way) {
		c.Isolate(leader, natstest.Both)
		time.Sleep(4 * time.Second)
		c.Isolate(leader, natstest.None)
	}},
	{"a node is cut off", func(_ *natstest.Cluster, _ int, way *natstest.Way) {
		way.Cut(natstest.Both)
		time.Sleep(4 * time.Second)
		way.Cut(natstest.None)
	}},
	{"a node hears nothing", func(_ *natstest.Cluster, _ int, way *natstest.Way) {
		way.Cut(natstest.Back)
		time.Sleep(4 * time.Second)
		way.Cut(natstest.None)
	}},
}

// TestNoEventIsLostOrDoubled has two nodes append what devices send, and both of
// them, one after the other and at the same time, the hub's own events.
func TestNoEventIsLostOrDoubled(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			c := natstest.Start(t, 3)
			if err := natsevents.Create(t.Context(), connect(t, c.URL()), natsevents.Settings{Copies: 3}); err != nil {
				t.Fatal(err)
			}
			way := c.NewWay()
			logs := []*natsevents.Log{open(t, connect(t, c.URL())), open(t, connect(t, way.URL()))}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var senders, leaders sync.WaitGroup
			var devices []*device
			for i := range 8 {
				d := newDevice(fmt.Sprintf("d%d", i), logs[i%2])
				devices = append(devices, d)
				senders.Go(func() { d.run(t, ctx) })
			}
			own := 0 // of the hub
			senders.Go(func() {
				for ; ctx.Err() == nil; own++ {
					for _, l := range logs {
						l.KeepOwn(uint64(own+1), 0, fmt.Sprintf("hub%d", own%5), fmt.Appendf(nil, "hub%d %d", own%5, own/5))
					}
					time.Sleep(2 * time.Millisecond)
				}
			})
			lead := func(i int) (end func()) {
				ctx, cancel := context.WithCancel(t.Context())
				leaders.Go(func() { logs[i].PublishOwn(ctx) })
				return cancel
			}
			endFirst := lead(0)

			follower := follow(t, logs[1])

			more := func(n int) {
				for _, d := range devices {
					for from := d.count(); d.count() < from+n && !t.Failed(); {
						time.Sleep(10 * time.Millisecond)
					}
				}
			}
			more(100)
			leader := c.Leader("iotdm-ev")
			fault.do(c, leader, way)
			endSecond := lead(1)
			more(20)
			endFirst()
			more(100)
			cancel()
			senders.Wait()

			all := map[string][]int{}
			for settled := false; !settled; { // the hub's own events come a moment later
				all = collect(t, logs[0])
				n := 0
				for i := range 5 {
					n += len(all[fmt.Sprintf("hub%d", i)])
				}
				settled = n >= own
			}
			endSecond()
			leaders.Wait()
			for _, d := range devices {
				checkNumbers(t, d.name, all[d.name], d.sent, d.repeated)
				if d.repeated {
					t.Logf("%s has sent some again", d.name)
				}
			}
			for i := range 5 {
				checkNumbers(t, fmt.Sprintf("hub%d", i), all[fmt.Sprintf("hub%d", i)], (own+4-i)/5, false)
			}
			if diff := cmp.Diff(all, follower(all)); diff != "" {
				t.Errorf("who follows saw others (-all +seen):\n%s", diff)
			}
			t.Logf("%d events of a device, %d of the hub", devices[0].sent, own)
		})
	}
}

func collect(t *testing.T, l *natsevents.Log) map[string][]int {
	all := map[string][]int{}
	if err := l.Read(t.Context(), eventlog.All, eventlog.Position{}, nil, note(all)); err != nil {
		t.Fatal(err)
	}
	return all
}

// follow reads from now on until it is told how many events of everybody there are.
func follow(t *testing.T, l *natsevents.Log) func(all map[string][]int) map[string][]int {
	seen := map[string][]int{}
	var mu sync.Mutex
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	add := note(seen)
	go func() {
		ended <- l.Read(ctx, eventlog.All, eventlog.Position{}, func() {}, func(r eventlog.Record) error {
			mu.Lock()
			defer mu.Unlock()
			return add(r)
		})
	}()
	return func(all map[string][]int) map[string][]int {
		missing := func() bool {
			mu.Lock()
			defer mu.Unlock()
			for name := range all {
				if len(seen[name]) < len(all[name]) {
					return true
				}
			}
			return false
		}
		for missing() && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("who follows ends with %v", err)
		}
		return seen
	}
}

func note(all map[string][]int) func(eventlog.Record) error {
	return func(r eventlog.Record) error {
		var name string
		var n int
		if _, err := fmt.Sscan(string(r.Data), &name, &n); err != nil {
			return err
		}
		all[name] = append(all[name], n)
		return nil
	}
}

// checkNumbers wants the numbers up to n, in order and once, or, if the sender had
// to send some again, at least once.
func checkNumbers(t *testing.T, name string, numbers []int, n int, repeated bool) {
	t.Helper()
	if repeated {
		times := map[int]bool{}
		for _, i := range numbers {
			times[i] = true
		}
		if len(times) != n {
			t.Errorf("%s: %d different events, want %d", name, len(times), n)
		}
		return
	}
	for i, got := range numbers {
		if got != i {
			t.Errorf("%s: event %d stands where %d should", name, got, i)
			return
		}
	}
	if len(numbers) != n {
		t.Errorf("%s: %d events, want %d", name, len(numbers), n)
	}
}
