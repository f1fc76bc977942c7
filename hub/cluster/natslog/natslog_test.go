package natslog_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natslog"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/store"
)

func connect(t *testing.T, url string) *natsconn.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := natsconn.Connect(ctx, natsconn.Options{URL: url, Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// create makes the streams, for which a cluster that has just begun may need several
// tries.
func create(t *testing.T, conn *natsconn.Conn, copies int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := natslog.Create(ctx, conn, copies)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, conn *natsconn.Conn) (*natslog.Log, *natslog.Snapshots) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		l, s, err := natslog.Open(t.Context(), conn)
		if err == nil {
			return l, s
		}
		if !errors.Is(err, natsconn.ErrUnreachable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// one starts one server with a log.
func one(t *testing.T) (*natsconn.Conn, *natslog.Log, *natslog.Snapshots) {
	t.Helper()
	conn := connect(t, natstest.Start(t, 1).URL())
	create(t, conn, 1)
	l, s := open(t, conn)
	return conn, l, s
}

// appendOne appends until it is known that the log has it.
func appendOne(ctx context.Context, l *natslog.Log, id string, group []byte) error {
	for {
		short, cancel := context.WithTimeout(ctx, 800*time.Millisecond)
		err := l.Append(short, id, group)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// collect follows from a position until it has n groups.
func collect(t *testing.T, l *natslog.Log, from uint64, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	enough := errors.New("enough")
	if n == 0 {
		return nil
	}
	err := l.Follow(ctx, from, func(pos uint64, at time.Time, group []byte) error {
		if pos != from+uint64(len(got)) {
			t.Errorf("position %d comes where %d should", pos, from+uint64(len(got)))
		}
		if d := time.Since(at); d < -time.Second || d > time.Minute {
			t.Errorf("position %d is of %v", pos, at)
		}
		if got = append(got, string(group)); len(got) == n {
			return enough
		}
		return nil
	})
	if err != enough {
		t.Fatalf("Follow(%d) gave %d of %d groups and %v", from, len(got), n, err)
	}
	return got
}

func TestLog(t *testing.T) {
	_, l, _ := one(t)
	ctx := t.Context()
	bounds := func(first, end uint64) {
		t.Helper()
		if f, e, err := l.Bounds(ctx); err != nil || f != first || e != end {
			t.Errorf("Bounds() = %d, %d, %v, want %d, %d", f, e, err, first, end)
		}
	}
	bounds(1, 1)
	var want []string
	for i := range 600 {
		group := fmt.Sprint("group ", i)
		want = append(want, group)
		for range 1 + i%2 { // every other one twice
			if err := l.Append(ctx, fmt.Sprint(i), []byte(group)); err != nil {
				t.Fatal(err)
			}
		}
	}
	bounds(1, 601)
	for _, from := range []int{1, 2, 300, 600} {
		if diff := cmp.Diff(want[from-1:], collect(t, l, uint64(from), len(want)-from+1)); diff != "" {
			t.Errorf("from %d (-want +got):\n%s", from, diff)
		}
	}
	if err := l.Trim(ctx, 101); err != nil {
		t.Fatal(err)
	}
	bounds(101, 601)
	if diff := cmp.Diff(want[100:], collect(t, l, 101, 500)); diff != "" {
		t.Errorf("after Trim (-want +got):\n%s", diff)
	}
	err := l.Follow(ctx, 100, func(uint64, time.Time, []byte) error { return nil })
	if !errors.Is(err, store.ErrTrimmed) {
		t.Errorf("Follow of what was trimmed: %v", err)
	}
	if err := l.Trim(ctx, 601); err != nil {
		t.Fatal(err)
	}
	bounds(601, 601)
	if err := l.Append(ctx, "last", []byte("last")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"last"}, collect(t, l, 601, 1)); diff != "" {
		t.Errorf("behind what was trimmed (-want +got):\n%s", diff)
	}
}

func TestAFollowerHearsAtOnce(t *testing.T) {
	conn, l, _ := one(t)
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan uint64, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- l.Follow(ctx, 1, func(pos uint64, _ time.Time, _ []byte) error { heard <- pos; return nil })
	}()
	// Others may publish there too, and are not heard.
	if err := conn.Publish("iotdm.feed", []byte("not of the log")); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(100) {
		if err := l.Append(ctx, fmt.Sprint(i), []byte("g")); err != nil {
			t.Fatal(err)
		}
		if pos := <-heard; pos != i+1 {
			t.Fatalf("heard %d, want %d", pos, i+1)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow returned %v", err)
	}
}

func TestALogThatWentBack(t *testing.T) {
	conn, l, _ := one(t)
	for i := range 10 {
		if err := l.Append(t.Context(), fmt.Sprint(i), []byte("g")); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	reached := make(chan bool)
	go func() {
		ended <- l.Follow(t.Context(), 1, func(pos uint64, _ time.Time, _ []byte) error {
			if pos == 10 {
				close(reached)
			}
			return nil
		})
	}()
	<-reached
	if err := conn.JetStream.DeleteStream(t.Context(), "iotdm-log"); err != nil {
		t.Fatal(err)
	}
	create(t, conn, 1)
	// What is new must not be taken for what follows.
	for i := range 5 {
		if err := l.Append(t.Context(), fmt.Sprint("new", i), []byte("other")); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		if !errors.Is(err, store.ErrLogWentBack) {
			t.Errorf("Follow returned %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("nobody has noticed")
	}
}

func TestSnapshots(t *testing.T) {
	conn, _, s := one(t)
	ctx := t.Context()
	if pos, state, err := s.Latest(ctx); pos != 0 || state != nil || err != nil {
		t.Errorf("Latest() of none = %d, %v, %v", pos, state, err)
	}
	for _, pos := range []uint64{7, 20, 33, 21, 40} {
		text := make([]byte, 3<<20+pos)
		_, _ = rand.Read(text)
		if err := s.Put(ctx, pos, bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if pos == 21 { // another node was faster
			continue
		}
		at, state, err := s.Latest(ctx)
		if err != nil || at != pos {
			t.Fatalf("Latest() = %d, %v, want %d", at, err, pos)
		}
		got, err := io.ReadAll(state)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("read %d bytes, %v; want %d", len(got), err, len(text))
		}
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	}
	// What is no longer a snapshot takes no space.
	str, err := conn.JetStream.Stream(ctx, "OBJ_iotdm-snap")
	if err != nil {
		t.Fatal(err)
	}
	if size := str.CachedInfo().State.Bytes; size > 2*4<<20 {
		t.Errorf("two snapshots of 3 MiB take %d bytes", size)
	}
	// One that is cut off in the middle is none.
	broken := errors.New("broken")
	if err := s.Put(ctx, 50, io.MultiReader(bytes.NewReader(make([]byte, 2<<20)), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("Put of what cannot be read: %v", err)
	}
	if at, state, err := s.Latest(ctx); err != nil || at != 40 {
		t.Errorf("Latest() after that = %d, %v", at, err)
	} else {
		_ = state.Close()
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestStreamsWithOtherSettings(t *testing.T) {
	conn := connect(t, natstest.Start(t, 1).URL())
	ctx := t.Context()
	if _, _, err := natslog.Open(ctx, conn); !errors.Is(err, natsconn.ErrNoHub) {
		t.Errorf("Open of nothing: %v", err)
	}
	if err := natslog.Create(ctx, conn, 3); err == nil {
		t.Error("one server made three copies")
	}
	create(t, conn, 1)
	for _, tt := range []struct {
		name   string
		change func(*jetstream.StreamConfig)
	}{
		{"max_age", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }},
		{"max_msgs", func(c *jetstream.StreamConfig) { c.MaxMsgs = 1000 }},
		{"max_bytes", func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }},
		{"max_msg_size", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 }},
		{"republish", func(c *jetstream.StreamConfig) { c.RePublish = nil }},
		{"allow_direct", func(c *jetstream.StreamConfig) { c.AllowDirect = false }},
		{"no_ack", func(c *jetstream.StreamConfig) { c.NoAck = true }},
		{"subjects", func(c *jetstream.StreamConfig) { c.Subjects = []string{"iotdm.other"}; c.RePublish = nil }},
		{"duplicate_window", func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := conn.JetStream.Stream(ctx, "iotdm-log")
			if err != nil {
				t.Fatal(err)
			}
			c := s.CachedInfo().Config
			tt.change(&c)
			if _, err := conn.JetStream.UpdateStream(ctx, c); err != nil {
				t.Fatal(err)
			}
			_, _, err = natslog.Open(ctx, conn)
			if !errors.Is(err, natsconn.ErrSettings) || !bytes.Contains([]byte(fmt.Sprint(err)), []byte(tt.name)) {
				t.Errorf("Open: %v", err)
			}
			create(t, conn, 1)
			if _, _, err := natslog.Open(ctx, conn); err != nil {
				t.Errorf("after Create has set it right: %v", err)
			}
		})
	}
}

// faults are what servers suffer while a log is written.
var faults = []struct {
	name string
	do   func(c *natstest.Cluster, place int)
}{
	{"a server is stopped", func(c *natstest.Cluster, place int) {
		c.Servers[place].Stop()
		time.Sleep(time.Second)
		c.Servers[place].Start()
	}},
	{"a server is killed", func(c *natstest.Cluster, place int) {
		c.Servers[place].Kill()
		time.Sleep(time.Second)
		c.Servers[place].Start()
	}},
	{"a server is paused", func(c *natstest.Cluster, place int) {
		c.Servers[place].Pause()
		time.Sleep(3 * time.Second)
		c.Servers[place].Resume()
	}},
	{"a server is cut off from the others", func(c *natstest.Cluster, place int) {
		c.Isolate(place, natstest.Both)
		time.Sleep(3 * time.Second)
		c.Isolate(place, natstest.None)
	}},
	{"the others do not hear a server", func(c *natstest.Cluster, place int) {
		c.Isolate(place, natstest.Forth)
		time.Sleep(3 * time.Second)
		c.Isolate(place, natstest.None)
	}},
}

// TestNothingIsLostOrDoubled writes to a log from three connections, while its
// leader, or another server, has a bad time.
func TestNothingIsLostOrDoubled(t *testing.T) {
	for _, ofLeader := range []bool{true, false} {
		for _, fault := range faults {
			name := fault.name
			if ofLeader {
				name += ", the leader"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := natstest.Start(t, 3)
				create(t, connect(t, c.URL()), 3)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				var mu sync.Mutex
				var acknowledged []string
				var writers, followers sync.WaitGroup
				var until atomic.Uint64 // where followers stop
				seen := make([][]string, 3)
				for i := range 3 {
					l, _ := open(t, connect(t, c.URL()))
					writers.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							id := fmt.Sprintf("%d.%d", i, n)
							if appendOne(t.Context(), l, id, []byte(id)) != nil {
								return
							}
							mu.Lock()
							acknowledged = append(acknowledged, id)
							mu.Unlock()
						}
					})
					followers.Go(func() {
						enough := errors.New("enough")
						err := l.Follow(t.Context(), 1, func(pos uint64, _ time.Time, group []byte) error {
							if pos != uint64(len(seen[i])+1) {
								t.Errorf("follower %d: position %d comes where %d should", i, pos, len(seen[i])+1)
							}
							seen[i] = append(seen[i], string(group))
							if end := until.Load(); end > 0 && pos >= end {
								return enough
							}
							return nil
						})
						if err != enough {
							t.Errorf("follower %d: %v", i, err)
						}
					})
				}
				count := func() int {
					mu.Lock()
					defer mu.Unlock()
					return len(acknowledged)
				}
				await := func(n int) {
					for from := count(); count() < from+n && t.Context().Err() == nil; {
						time.Sleep(10 * time.Millisecond)
					}
				}
				await(100)
				place := c.Leader("iotdm-log")
				if !ofLeader {
					place = (place + 1) % 3
				}
				fault.do(c, place)
				await(100)
				cancel()
				writers.Wait()

				l, _ := open(t, connect(t, c.URL()))
				if err := appendOne(t.Context(), l, "end", []byte("end")); err != nil {
					t.Fatal(err)
				}
				_, end, err := l.Bounds(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				until.Store(end - 1)
				if err := appendOne(t.Context(), l, "behind", []byte("behind")); err != nil {
					t.Fatal(err)
				}
				followers.Wait()
				times := make(map[string]int)
				for _, id := range seen[0] {
					times[id]++
				}
				for _, id := range acknowledged {
					if times[id] != 1 {
						t.Errorf("%s was acknowledged, and is there %d times", id, times[id])
					}
				}
				for i := 1; i < 3; i++ {
					n := min(len(seen[0]), len(seen[i]))
					if diff := cmp.Diff(seen[0][:n], seen[i][:n]); diff != "" || uint64(n) < end-1 {
						t.Errorf("followers 0 and %d saw %d and %d (-0 +%d):\n%s", i, len(seen[0]), len(seen[i]), i, diff)
					}
				}
				t.Logf("%d groups were acknowledged", len(acknowledged))
			})
		}
	}
}

// TestALeaderThatIsCutOffIsNotSure asks a leader that is cut off where the log ends, until the others
// have elected another one and appended to the log.
func TestALeaderThatIsCutOffIsNotSure(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t, 3)
	create(t, connect(t, c.URL()), 3)
	place := c.Leader("iotdm-log")
	urls := strings.Split(c.URL(), ",")
	alone, _ := open(t, connect(t, urls[place]))
	others, _ := open(t, connect(t, urls[(place+1)%3]))
	if err := appendOne(t.Context(), others, "before", []byte("before")); err != nil {
		t.Fatal(err)
	}
	soon := func(ask func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		return ask(ctx)
	}
	for sure := false; !sure; { // a leader that is new has not heard of all
		err := soon(func(ctx context.Context) (err error) {
			_, sure, err = alone.End(ctx)
			return err
		})
		if err != nil {
			t.Log(err)
		}
	}
	c.Isolate(place, natstest.Both)
	began, appended, old := time.Now(), uint64(1), 0
	for n := 0; time.Since(began) < 15*time.Second; n++ {
		err := soon(func(ctx context.Context) error { return appendOne(ctx, others, fmt.Sprint(n), []byte("behind")) })
		if err == nil {
			appended++
		}
		var end uint64
		var sure bool
		err = soon(func(ctx context.Context) (err error) {
			end, sure, err = alone.End(ctx)
			return err
		})
		if err == nil && end <= appended {
			old++
			if sure {
				t.Fatalf("%v after the cut a leader was sure that the log ends before %d, and %d was appended", time.Since(began), end, appended)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if appended == 1 {
		t.Error("the others elected no leader")
	}
	t.Logf("%d answers were old, and not sure; %d were appended behind the cut", old, appended-1)
}

// TestServersThatAreAway has servers die that follow and lead, and come again.
func TestServersThatAreAway(t *testing.T) {
	c := natstest.Start(t, 3)
	conn := connect(t, c.URL())
	create(t, conn, 3)
	l, _ := open(t, conn)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// await waits until the servers that do not lead are as they should be.
	await := func(what string, ok func(natslog.Copy) bool) {
		t.Helper()
		for {
			short, cancel := context.WithTimeout(ctx, 3*time.Second) // nobody answers what a dead one was asked
			s, err := l.Status(short)
			cancel()
			if err == nil && len(s.Copies) == 2 && ok(s.Copies[0]) && ok(s.Copies[1]) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("waited in vain: %s; the status is %+v, %v", what, s, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	follows := func(c natslog.Copy) bool { return c.Current && !c.Away() }
	if err := appendOne(ctx, l, t.Name(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	await("all follow", follows)

	leads := c.Leader("iotdm-log")
	dead := c.Servers[(leads+1)%3]
	dead.Kill()
	await("one that followed has died", func(c natslog.Copy) bool {
		if c.Server != dead.Name {
			return follows(c)
		}
		return c.Away() && c.Heard > 0
	})
	dead.Start()
	await("it follows again", follows)

	dead = c.Servers[leads]
	dead.Kill()
	await("the one that led has died", func(c natslog.Copy) bool { return c.Away() == (c.Server == dead.Name) })
	dead.Start()
	await("it follows", follows)

	leads = c.Leader("iotdm-log")
	dead = c.Servers[(leads+1)%3]
	dead.Stop()
	await("one has stopped", func(c natslog.Copy) bool { return c.Away() == (c.Server == dead.Name) })
}
