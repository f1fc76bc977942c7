package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

var (
	crashFor  = flag.Duration("crash.for", 12*time.Second, "how long TestCrash runs, shared by its kinds of faults")
	crashSeed = flag.Uint64("crash.seed", 0, "what TestCrash does at random; 0 is another each time, which it prints")
)

// TestCrash has writers of all kinds write to a hub, the real program, at the
// same time, and breaks it: by SIGKILL, by a full disk, by a power cut, by bytes
// that change on the disk. After each round whatever the hub acknowledged must be
// there, and nothing else than what it was asked for. docs/RELIABILITY.md says
// what is checked, and how to run it for hours.
//
// What the writers do is decided by the seed, but for when they are interrupted:
// the same seed brings the same kind of round again, not the same instant.
func TestCrash(t *testing.T) {
	kinds := []struct {
		name  string
		share time.Duration // of all time, in tenths
		run   func(*crash)
	}{
		{"SIGKILL", 4, (*crash).killRounds},
		{"power cut", 2, (*crash).powerRounds},
		{"full disk", 3, (*crash).fullRounds},
		{"damage", 1, (*crash).damageRounds},
	}
	for i, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			c := newCrash(t, uint64(i), *crashFor*kind.share/10)
			kind.run(c)
			t.Logf("%d rounds; %d requests were acknowledged to the twin writers, %d messages of telemetry, %d of provisioning; the events of %d readings agreed",
				c.rounds, c.acknowledged(), c.telemetryAcked(), c.provisioningAcked(), c.rounds)
		})
	}
}

// A crash is the rounds of one kind of fault.
type crash struct {
	t       *testing.T
	r       *rand.Rand
	until   time.Time
	hub     *crashHub
	writers []crashWriter
	events  *eventChecker
	rounds  int
}

// newCrash begins the rounds of a test, whose choices depend on the seed and on n.
func newCrash(t *testing.T, n uint64, span time.Duration) *crash {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	t.Logf("to do the same again: -crash.seed %d", seed)
	return &crash{t: t, r: rand.New(rand.NewPCG(seed, n)), until: time.Now().Add(span)}
}

// begin starts a hub at a place, and makes what the writers need.
func (c *crash) begin(p place) {
	h := newCrashHub(c.t, p)
	h.start()
	c.prepare(h)
}

// prepare makes what the writers need on a hub.
func (c *crash) prepare(h *crashHub) {
	c.hub = h
	c.events = &eventChecker{telemetry: make(map[string]*telemetryWriter), next: make(map[string]int64)}
	for i := range 3 {
		c.writers = append(c.writers,
			&twinWriter{id: fmt.Sprintf("twin-%d", i)},
			&identityWriter{id: fmt.Sprintf("identity-%d", i)},
			&messageWriter{id: fmt.Sprintf("message-%d", i)})
		w := &telemetryWriter{id: fmt.Sprintf("telemetry-%d", i)}
		c.events.telemetry[w.id] = w
		c.writers = append(c.writers, w)
	}
	c.writers = append(c.writers, newBulkWriter("bulk", 4), newJobWriter(5), &configurationWriter{id: "configured"},
		&provisionWriter{id: "provisioned-0"}, &provisionWriter{id: "provisioned-1"}, newProvisionGroupWriter("provisioned-group", 4))
	for _, w := range c.writers {
		if err := w.setup(c.hub); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *crash) acknowledged() (n int) {
	for _, w := range c.writers {
		if w, ok := w.(*twinWriter); ok {
			n += w.acked
		}
	}
	return n
}

func (c *crash) telemetryAcked() (n int) {
	for _, w := range c.writers {
		if w, ok := w.(*telemetryWriter); ok {
			n += w.acked
		}
	}
	return n
}

func (c *crash) provisioningAcked() (n int) {
	for _, w := range c.writers {
		switch w := w.(type) {
		case *provisionWriter:
			n += w.acked
		case *provisionGroupWriter:
			n += w.acked
		}
	}
	return n
}

// more reports whether there is time for another round. There is always one.
func (c *crash) more() bool {
	c.rounds++
	return !c.t.Failed() && (c.rounds == 1 || time.Now().Before(c.until))
}

// writing has all writers write until stop is called, which waits for them.
func (c *crash) writing() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, w := range c.writers {
		r := rand.New(rand.NewPCG(c.r.Uint64(), 0))
		all.Go(func() { w.write(ctx, c.hub, r) })
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// check has a hub that was just started looked at by all.
func (c *crash) check() {
	c.t.Helper()
	if err := c.events.check(c.hub); err != nil {
		c.fail(err)
	}
	c.checkWriters(func(crashWriter) bool { return true })
	if err := crashIndexes(c.hub); err != nil {
		c.fail(err)
	}
}

// checkWriters has some of the writers look at the hub, side by side, since some of them wait.
func (c *crash) checkWriters(which func(crashWriter) bool) {
	c.t.Helper()
	found := make([]error, len(c.writers))
	var all sync.WaitGroup
	for i, w := range c.writers {
		if which(w) {
			all.Go(func() { found[i] = w.check(c.hub) })
		}
	}
	all.Wait()
	for _, err := range found {
		if err != nil {
			c.fail(err)
		}
	}
}

func (c *crash) fail(err error) {
	c.t.Helper()
	c.t.Errorf("round %d: %v", c.rounds, err)
	if !c.hub.running() {
		c.t.Fatalf("the hub has ended:\n%s", c.hub.tail())
	}
}

// between returns a duration at random.
func (c *crash) between(least, most time.Duration) time.Duration {
	return least + time.Duration(c.r.Int64N(int64(most-least)))
}

func (c *crash) wait(least, most time.Duration) { pause(context.Background(), c.between(least, most)) }

// end has the jobs end, looks at everything once more, and stops the hub.
func (c *crash) end() {
	c.t.Helper()
	c.finish()
	c.hub.stop(false)
}

// finish has the jobs end, and looks at everything once more.
func (c *crash) finish() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), crashPatience)
	defer cancel()
	for _, w := range c.writers {
		if w, ok := w.(*jobWriter); ok {
			var devices sync.WaitGroup
			connected, disconnect := context.WithCancel(ctx)
			for _, id := range w.ids {
				devices.Go(func() { w.answer(connected, c.hub, id) })
			}
			if !w.await(ctx, c.hub) {
				c.t.Errorf("jobs have not ended: %v", w.open)
			}
			disconnect()
			devices.Wait()
		}
	}
	c.check()
}

// killRounds kill the hub while it works, and while it starts, and stop it now
// and then in the orderly way.
func (c *crash) killRounds() {
	c.begin(plainPlace(c.t))
	for c.more() {
		stop := c.writing()
		c.wait(30*time.Millisecond, 700*time.Millisecond)
		if c.r.IntN(6) == 0 {
			c.hub.stop(false)
		} else {
			c.hub.kill()
		}
		stop()
		for c.r.IntN(4) == 0 { // it reads its log: another kill
			c.hub.begin()
			c.wait(time.Millisecond, 150*time.Millisecond)
			c.hub.kill()
		}
		c.hub.start()
		c.check()
	}
	c.end()
}

// fullSize is that of the disk that gets full. Below a tenth of it the store
// takes nothing.
const fullSize = 96 << 20

// fullRounds fill the disk while the hub works. It answers, refuses changes, and
// stops when it is told to; once there is space it goes on by itself.
func (c *crash) fullRounds() {
	p, err := mounted(c.t, `mount -t tmpfs -o size="$2" tmpfs "$1"`, fmt.Sprint(fullSize))
	if err != nil {
		skip(c.t, "a small file system cannot be mounted, for which one has to be root: "+err.Error())
	}
	c.begin(p)
	c.events.gaps = true
	ballast := filepath.Join(filepath.Dir(p.seen), "ballast")
	for c.more() {
		stop := c.writing()
		c.wait(30*time.Millisecond, 300*time.Millisecond)
		if err := fill(ballast); err != nil {
			c.t.Fatal(err)
		}
		c.awaitRefusal()
		switch what := c.r.IntN(3); what {
		case 0: // space comes back, and writers that hang on go on
			c.wait(10*time.Millisecond, 300*time.Millisecond)
			c.free(ballast)
			before := c.acknowledged()
			c.awaitWritten()
			c.wait(10*time.Millisecond, 200*time.Millisecond)
			c.hub.kill()
			stop()
			c.t.Logf("round %d: space came back; twin writers went on from %d to %d", c.rounds, before, c.acknowledged())
		default: // it is killed, or told to stop, and starts again on a full disk
			if what == 1 {
				c.hub.kill()
			} else {
				c.hub.stop(true)
			}
			stop()
			c.hub.start()
			c.checkReading()
			if c.r.IntN(2) == 0 {
				c.hub.stop(true)
				c.free(ballast)
				c.hub.start()
			} else {
				c.free(ballast)
			}
			c.awaitWritten()
			c.hub.kill()
			c.t.Logf("round %d: the hub ended and began on a full disk; by SIGKILL: %v", c.rounds, what == 1)
		}
		c.hub.start()
		c.check()
	}
	c.end()
}

// fill takes all space of a file system.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2] // the last bytes too
		}
	}
	return nil
}

func (c *crash) free(ballast string) {
	c.t.Helper()
	if err := os.Remove(ballast); err != nil {
		c.t.Fatal(err)
	}
}

// probe makes a write that nobody depends on.
func (c *crash) probe() (crashAnswer, error) {
	return c.hub.do("PATCH", "/twins/job-0", `{"tags":{"probe":1}}`)
}

// awaitRefusal returns when a write is refused.
func (c *crash) awaitRefusal() {
	c.t.Helper()
	for deadline := time.Now().Add(crashPatience); ; {
		a, err := c.probe()
		if err == nil && a.status == 503 {
			if a.header.Get("Retry-After") == "" {
				c.t.Errorf("a write is refused without Retry-After: %v", a)
			}
			return
		}
		if err != nil || !a.ok() || time.Now().After(deadline) {
			c.t.Fatalf("a write to a full disk: %v, %v; want 503\n%s", a, err, c.hub.tail())
		}
	}
}

// awaitWritten returns when a write succeeds again.
func (c *crash) awaitWritten() {
	c.t.Helper()
	for deadline := time.Now().Add(crashPatience); ; {
		a, err := c.probe()
		if err == nil && a.ok() {
			return
		}
		if err != nil || a.status != 503 || time.Now().After(deadline) {
			c.t.Fatalf("a write when there is space again: %v, %v\n%s", a, err, c.hub.tail())
		}
		pause(context.Background(), 20*time.Millisecond)
	}
}

// checkReading checks a hub that can only be read.
func (c *crash) checkReading() {
	c.t.Helper()
	c.awaitRefusal()
	c.checkWriters(func(w crashWriter) bool { _, ok := w.(*twinWriter); return ok })
}

// damageRounds change bytes of the event log while the hub is stopped. The
// events that they belong to are lost, those behind them are not, the damage is
// counted, and no number is given out twice.
func (c *crash) damageRounds() {
	c.begin(plainPlace(c.t))
	// Of telemetry that was damaged not all is there.
	others := func(w crashWriter) bool { _, ok := w.(*telemetryWriter); return !ok }
	for c.more() {
		stop := c.writing()
		c.wait(100*time.Millisecond, 400*time.Millisecond)
		c.hub.kill()
		stop()
		c.hub.start()
		all := &eventChecker{telemetry: nil, next: make(map[string]int64), damaged: true}
		if err := all.check(c.hub); err != nil {
			c.fail(err)
		}
		c.checkWriters(others)
		before := len(all.records)
		c.hub.stop(false)
		flips := c.flip(1 + c.r.IntN(3))
		c.hub.start()
		if err := all.check(c.hub); err != nil {
			c.fail(err)
		}
		counted, err := c.hub.metric("iotdm_hub_event_log_damage_total")
		if err != nil {
			c.fail(err)
		}
		tail, err := c.hub.metric("iotdm_hub_event_log_tail_bytes") // the last event cannot be told from one that was cut off
		if err != nil {
			c.fail(err)
		}
		// A byte of a record, or in the header of a segment, which is there twice.
		if all.missing > flips || all.missing > 0 && counted == 0 && tail == 0 {
			c.fail(fmt.Errorf("%d flipped bytes cost %d of %d events; %v places were counted", flips, all.missing, before, counted))
		}
		c.t.Logf("round %d: %d flipped bytes cost %d of %d events; %v places were counted", c.rounds, flips, all.missing, before, counted)
		stop = c.writing()
		c.wait(100*time.Millisecond, 200*time.Millisecond)
		c.hub.kill()
		stop()
		c.hub.start()
		if err := all.check(c.hub); err != nil {
			c.fail(err)
		}
		c.checkWriters(others)
	}
	c.hub.stop(false)
}

// flip changes bytes of the event log's files, far from each other, and returns
// how many.
func (c *crash) flip(n int) (flipped int) {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.hub.seen, "events", "*.events"))
	if err != nil || len(names) == 0 {
		c.t.Fatalf("the event log has no files: %v", err)
	}
	slices.Sort(names)
	for range n {
		name := names[c.r.IntN(len(names))]
		data, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(data) < 512 {
			continue
		}
		data[c.r.IntN(len(data))] ^= 1 << c.r.IntN(8)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			c.t.Fatal(err)
		}
		flipped++
	}
	return flipped
}
