package natsevents_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natsevents"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/eventlog"
)

// connect goes to servers of NATS until the test ends.
func connect(t testing.TB, url string) *natsconn.Conn {
	t.Helper()
	conn, err := natsconn.Connect(t.Context(), natsconn.Options{URL: url, Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// create makes the stream on one server, and goes there.
func create(t testing.TB, s natsevents.Settings) *natsconn.Conn {
	t.Helper()
	conn := connect(t, natstest.Start(t, 1).URL())
	s.Copies = 1
	if err := natsevents.Create(t.Context(), conn, s); err != nil {
		t.Fatal(err)
	}
	return conn
}

// open opens a log until the test ends.
func open(t testing.TB, conn *natsconn.Conn) *natsevents.Log {
	t.Helper()
	l, err := natsevents.Open(t.Context(), conn, natsevents.Options{Store: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// add appends records of a key, and returns when they are stored.
func add(t testing.TB, l *natsevents.Log, key string, data ...string) {
	t.Helper()
	stored := make(chan error, len(data))
	for _, d := range data {
		if err := l.Append(key, []byte(d), func(err error) { stored <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range data {
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
	}
}

// read returns what is at a position and behind it.
func read(t testing.TB, l *natsevents.Log, partition int, from eventlog.Position) (list []string) {
	t.Helper()
	err := l.Read(t.Context(), partition, from, nil, func(r eventlog.Record) error {
		list = append(list, string(r.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestWhatIsAppendedIsReadByAllNodes(t *testing.T) {
	conn := create(t, natsevents.Settings{Partitions: 3})
	a, b := open(t, conn), open(t, conn)
	if n := a.Partitions(); n != 3 {
		t.Fatalf("%d partitions, want 3", n)
	}
	if got := read(t, a, eventlog.All, eventlog.Position{}); len(got) != 0 {
		t.Errorf("a new stream has %q", got)
	}
	add(t, a, "d1", "1", "2", "")
	add(t, b, "d1", "4")
	add(t, b, "d2", strings.Repeat("x", 300<<10))
	want := []string{"1", "2", "", "4", strings.Repeat("x", 300<<10)}
	for _, l := range []*natsevents.Log{a, b} {
		if diff := cmp.Diff(want, read(t, l, eventlog.All, eventlog.Position{})); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	}
	var before eventlog.Record
	places := map[int]int{}
	err := a.Read(t.Context(), eventlog.All, eventlog.Position{}, nil, func(r eventlog.Record) error {
		if before.Sequence != 0 && (r.Offset <= before.Offset || r.Sequence <= before.Sequence || r.Time.Before(before.Time)) {
			t.Errorf("%d at %v comes behind %d at %v", r.Offset, r.Time, before.Offset, before.Time)
		}
		before = r
		places[r.Partition]++
		return nil
	})
	if err != nil || len(places) != 2 {
		t.Errorf("records of the partitions: %v, %v", places, err)
	}
	if err := a.Append("d", make([]byte, 1<<20), nil); !errors.Is(err, eventlog.ErrTooLarge) {
		t.Errorf("a record that is too large: %v", err)
	}
	if err := a.Read(t.Context(), 3, eventlog.Position{}, nil, nil); err == nil {
		t.Error("a partition is read that is not there")
	}
}

func TestPositions(t *testing.T) {
	conn := create(t, natsevents.Settings{Partitions: 1})
	l := open(t, conn)
	add(t, l, "d1", "a", "b")
	var b, c eventlog.Record
	find := func(text string, r *eventlog.Record) {
		if err := l.Read(t.Context(), 0, eventlog.Position{}, nil, func(got eventlog.Record) error {
			if string(got.Data) == text {
				*r = got
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	find("b", &b)
	time.Sleep(2 * time.Millisecond) // the stamps of the stream are of milliseconds and less
	add(t, l, "d1", "c", "d")
	find("c", &c)
	for _, tt := range []struct {
		name string
		from eventlog.Position
		want []string
	}{
		{"the oldest", eventlog.Position{}, []string{"a", "b", "c", "d"}},
		{"an offset", eventlog.Position{Offset: b.Offset}, []string{"b", "c", "d"}},
		{"behind an offset", eventlog.Position{Offset: b.Offset + 1}, []string{"c", "d"}},
		{"a number", eventlog.Position{Sequence: c.Sequence}, []string{"c", "d"}},
		{"a time", eventlog.Position{Time: c.Time}, []string{"c", "d"}},
		{"behind a time", eventlog.Position{Time: b.Time.Add(1)}, []string{"c", "d"}},
		{"a time before all", eventlog.Position{Time: time.Unix(1, 0)}, []string{"a", "b", "c", "d"}},
		{"a time that has not come", eventlog.Position{Time: time.Now().Add(time.Hour)}, nil},
		{"an offset that has not come", eventlog.Position{Offset: c.Offset + 1<<20}, nil},
		{"the largest offset", eventlog.Position{Offset: 1<<63 - 1}, nil},
		{"a negative one", eventlog.Position{Offset: -1, Sequence: -7}, []string{"a", "b", "c", "d"}},
		{"the end", eventlog.Position{End: true}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, partition := range []int{0, eventlog.All} {
				if got := read(t, l, partition, tt.from); !slices.Equal(got, tt.want) {
					t.Errorf("partition %d: %q, want %q", partition, got, tt.want)
				}
			}
		})
	}
}

func TestFollow(t *testing.T) {
	conn := create(t, natsevents.Settings{Partitions: 2})
	a, b := open(t, conn), open(t, conn)
	add(t, a, "d1", "0")
	for _, tt := range []struct {
		name string
		from eventlog.Position
		want int // the first one
	}{
		{"from the oldest", eventlog.Position{}, 0},
		{"from the end", eventlog.Position{End: true}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			got, ends, ended := make(chan string), make(chan struct{}, 1), make(chan error, 1)
			go func() {
				ended <- b.Read(ctx, eventlog.All, tt.from, func() {
					select {
					case ends <- struct{}{}:
					default:
					}
				}, func(r eventlog.Record) error { got <- string(r.Data); return nil })
			}()
			if tt.want == 0 && <-got != "0" {
				t.Error("the first is another one")
			}
			<-ends
			for _, text := range []string{"1", "2", "3"} {
				add(t, a, "d"+text, text)
				if g := <-got; g != text {
					t.Fatalf("%q comes, want %q", g, text)
				}
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Read ends with %v", err)
			}
		})
		if err := a.Clear(); err != nil {
			t.Fatal(err)
		}
		add(t, a, "d1", "0")
	}
	ended := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		ended <- b.Read(t.Context(), 0, eventlog.Position{End: true}, func() { close(began) }, func(eventlog.Record) error { return nil })
	}()
	<-began
	b.Close()
	if err := <-ended; !errors.Is(err, eventlog.ErrClosed) {
		t.Errorf("Read ends with %v when the log closes", err)
	}
	if err := b.Append("d", nil, nil); !errors.Is(err, eventlog.ErrClosed) {
		t.Errorf("Append fails with %v when the log is closed", err)
	}
}

func TestBounds(t *testing.T) {
	conn := create(t, natsevents.Settings{Partitions: 1})
	a, b := open(t, conn), open(t, conn)
	bounds := func() eventlog.Bounds {
		t.Helper()
		got, err := b.Bounds(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if diff := cmp.Diff(eventlog.Bounds{LastOffset: -1}, bounds()); diff != "" {
		t.Errorf("bounds of a new stream (-want +got):\n%s", diff)
	}
	add(t, a, "d", "1")
	add(t, a, "d", "2", "3")
	var all []eventlog.Record
	if err := a.Read(t.Context(), 0, eventlog.Position{}, nil, func(r eventlog.Record) error { all = append(all, r); return nil }); err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	got := bounds()
	want := eventlog.Bounds{First: all[0].Sequence, Next: all[2].Sequence + 1, LastOffset: all[2].Offset, LastTime: all[2].Time, End: got.End}
	if diff := cmp.Diff(want, got); diff != "" || got.End <= got.LastOffset {
		t.Errorf("bounds (-want +got):\n%s", diff)
	}
	if err := a.Clear(); err != nil {
		t.Fatal(err)
	}
	cleared := bounds()
	if cleared.First != cleared.Next || cleared.Next < got.Next || cleared.LastOffset != -1 || !cleared.LastTime.IsZero() {
		t.Errorf("bounds of a stream that was cleared: %+v, before %+v", cleared, got)
	}
	add(t, a, "d", "4")
	if got := bounds(); got.First < cleared.Next || got.Next <= got.First {
		t.Errorf("bounds behind that: %+v", got)
	}
	if got := read(t, b, 0, eventlog.Position{Sequence: cleared.Next}); !slices.Equal(got, []string{"4"}) {
		t.Errorf("behind that are %q", got)
	}
}

func TestTheStreamDropsTheOldest(t *testing.T) {
	conn := create(t, natsevents.Settings{Partitions: 1, MaxBytes: 1 << 20})
	l := open(t, conn)
	noise := make([]byte, 100_000)
	for i := range 40 {
		for j := range noise {
			noise[j] = byte(rand.Uint32())
		}
		add(t, l, "d", fmt.Sprintf("%d %s", i, noise))
	}
	b, err := l.Bounds(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var first, last string
	err = l.Read(t.Context(), 0, eventlog.Position{}, nil, func(r eventlog.Record) error {
		text, _, _ := strings.Cut(string(r.Data), " ")
		if first == "" {
			first = text
			if r.Sequence != b.First {
				t.Errorf("the first is %d, want %d", r.Sequence, b.First)
			}
		}
		last = text
		return nil
	})
	if err != nil || first == "0" || last != "39" {
		t.Errorf("kept are %s to %s, %v", first, last, err)
	}
}

// TestOwnEventsAreThereOnce has several nodes that all believe to lead, as does one
// that was expelled and does not know it yet.
func TestOwnEventsAreThereOnce(t *testing.T) {
	const nodes, events = 3, 2000
	conn := create(t, natsevents.Settings{Partitions: 3})
	var logs []*natsevents.Log
	for range nodes {
		logs = append(logs, open(t, conn))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{}, nodes)
	for _, l := range logs {
		go func() { l.PublishOwn(ctx); ended <- struct{}{} }()
	}
	for i := range events {
		for _, l := range logs {
			l.KeepOwn(uint64(1+i/2), i%2, fmt.Sprint("d", i%10), fmt.Appendf(nil, "%d", i))
		}
		if rand.IntN(20) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	for _, l := range logs {
		last := map[int]int{}
		n := 0
		err := l.Read(t.Context(), eventlog.All, eventlog.Position{}, nil, func(r eventlog.Record) error {
			var i int
			fmt.Sscan(string(r.Data), &i)
			if before, ok := last[i%10]; ok && i != before+10 || !ok && i >= 10 {
				t.Errorf("event %d of a device follows %d", i, before)
			}
			last[i%10] = i
			n++
			return nil
		})
		if err != nil || n != events {
			t.Errorf("%d events, %v, want %d", n, err, events)
		}
	}
	cancel()
	for range nodes {
		<-ended
	}
	// A new leader goes on behind them.
	l := open(t, conn)
	for i := range events + 1 {
		l.KeepOwn(uint64(1+i/2), i%2, fmt.Sprint("d", i%10), fmt.Appendf(nil, "%d", i))
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() { l.PublishOwn(ctx); ended <- struct{}{} }()
	if got := read(t, logs[0], eventlog.All, eventlog.Position{}); len(got) != events+1 && len(got) != events {
		t.Errorf("%d events behind a new leader's, want %d", len(got), events+1)
	}
	if got := read(t, l, eventlog.All, eventlog.Position{}); len(got) != events+1 || got[events] != fmt.Sprint(events) {
		t.Errorf("%d events behind a new leader's, want %d", len(got), events+1)
	}
	cancel()
	<-ended
}

func TestDamagedMessagesArePassedOver(t *testing.T) {
	conn := create(t, natsevents.Settings{Partitions: 1})
	l := open(t, conn)
	add(t, l, "d", "1")
	for _, m := range []struct{ subject, data string }{
		{"iotdm.ev.0.device", ""}, {"iotdm.ev.0.device", "\x02x"}, {"iotdm.ev.0.device", "\x01\xff\xff"}, {"iotdm.ev.7.x", "\x01\x01a"}, {"iotdm.ev.x.device", "\x01\x01a"},
	} {
		if _, err := conn.JetStream.Publish(t.Context(), m.subject, []byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	add(t, l, "d", "2")
	var got []string
	damaged := 0
	err := l.ReadOver(t.Context(), eventlog.All, eventlog.Position{}, nil, func(eventlog.Damage) error { damaged++; return nil }, func(r eventlog.Record) error {
		got = append(got, string(r.Data))
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"1", "2"}) || damaged != 5 {
		t.Errorf("%q with %d damaged, %v", got, damaged, err)
	}
	stop := errors.New("stop")
	if err := l.ReadOver(t.Context(), 0, eventlog.Position{}, nil, func(eventlog.Damage) error { return stop }, func(eventlog.Record) error { return nil }); err != stop {
		t.Errorf("the error of damaged comes as %v", err)
	}
	if err := l.Read(t.Context(), 0, eventlog.Position{}, nil, func(eventlog.Record) error { return stop }); err != stop {
		t.Errorf("the error of fn comes as %v", err)
	}
}

func TestStreams(t *testing.T) {
	conn := connect(t, natstest.Start(t, 1).URL())
	if _, err := natsevents.Open(t.Context(), conn, natsevents.Options{}); !errors.Is(err, natsconn.ErrNoHub) {
		t.Errorf("without a stream: %v", err)
	}
	for _, s := range []natsevents.Settings{{Copies: 1, Partitions: 5}, {Copies: 1, MaxAge: time.Hour}, {Copies: 1, Partitions: 5, MaxBytes: 1 << 20}} {
		if err := natsevents.Create(t.Context(), conn, s); err != nil {
			t.Fatal(err)
		}
		if n := open(t, conn).Partitions(); n != 5 {
			t.Errorf("%d partitions, want 5", n)
		}
	}
	// What is not said stays.
	want := natsevents.Settings{Copies: 1, Partitions: 5, MaxAge: time.Hour, MaxBytes: 1 << 20}
	if got, err := natsevents.Check(t.Context(), conn); got != want || err != nil {
		t.Errorf("the settings are %+v, %v, want %+v", got, err, want)
	}
	for _, s := range []natsevents.Settings{{Copies: 1, Partitions: 6}, {Copies: 1, Partitions: 33}, {Copies: 1, Partitions: -1}} {
		if err := natsevents.Create(t.Context(), conn, s); err == nil {
			t.Errorf("%+v is made", s)
		}
	}
	s, err := conn.JetStream.Stream(t.Context(), "iotdm-ev")
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	c.AllowDirect = false
	if _, err := conn.JetStream.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := natsevents.Open(t.Context(), conn, natsevents.Options{}); !errors.Is(err, natsconn.ErrSettings) || !strings.Contains(err.Error(), "allow_direct") {
		t.Errorf("with another setting: %v", err)
	}
}
