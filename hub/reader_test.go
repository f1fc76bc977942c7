package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
)

// A readerHub is a hub in memory with what its readers need.
type readerHub struct {
	*hub.Server
	t      *testing.T
	events *eventlog.Log
	clock  *clock.Clock
}

func newReaderHub(t *testing.T, log eventlog.Options, groups ...string) *readerHub {
	t.Helper()
	c := clock.Stopped(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	log.Now = c.Now
	db, err := store.OpenMemory(nil)
	events, eventErr := eventlog.OpenMemory(log)
	if err := errors.Join(err, eventErr); err != nil {
		t.Fatal(err)
	}
	s, err := hub.New(hub.Options{Store: db, Events: events, Clock: c, ConsumerGroups: groups})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := errors.Join(events.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return &readerHub{Server: s, t: t, events: events, clock: c}
}

// send stores telemetry of a device.
func (h *readerHub) send(device string, bodies ...string) {
	h.t.Helper()
	for _, body := range bodies {
		stored := make(chan error, 1)
		err := h.ReceiveTelemetry(hub.Peer{ID: hub.ID{Device: device}}, hub.Telemetry{Body: []byte(body)}, func(err error) { stored <- err })
		if err == nil {
			err = <-stored
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// create registers a device, of which an event tells.
func (h *readerHub) create(device string) {
	h.t.Helper()
	if _, err := h.PutIdentity(hub.ID{Device: device}, hub.IdentitySpec{}, hub.Match{}); err != nil {
		h.t.Fatal(err)
	}
}

// touch patches a twin, of which an event tells.
func (h *readerHub) touch(device string, n int) {
	h.t.Helper()
	if _, err := h.PatchReported(hub.ID{Device: device}, fmt.Appendf(nil, `{"n":%d}`, n), hub.AnyVersion); err != nil {
		h.t.Fatal(err)
	}
}

func (h *readerHub) partition(n int) hub.EventPartition {
	h.t.Helper()
	p, err := h.EventPartition(h.t.Context(), n, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// read returns what a reader reads until the end: the bodies of telemetry, and
// the operations of other events.
func (h *readerHub) read(q hub.EventQuery) (list []string) {
	h.t.Helper()
	for e, err := range h.Events(h.t.Context(), q) {
		if err != nil {
			h.t.Fatal(err)
		}
		text := string(e.Body)
		for _, p := range e.Properties {
			if p.Name == "opType" {
				text = p.Value
			}
		}
		list = append(list, text)
	}
	return list
}

func TestReadersOfOnePartition(t *testing.T) {
	type attach struct {
		group string
		epoch int64 // -1 is none
	}
	const none = -1
	for _, tt := range []struct {
		name  string
		there []attach
		next  attach
		want  error
		left  []int // of there
	}{
		{"five without an epoch", []attach{{"$Default", none}, {"$Default", none}, {"$Default", none}, {"$Default", none}}, attach{"$default", none}, nil, []int{0, 1, 2, 3}},
		{"six without an epoch", []attach{{"$Default", none}, {"$Default", none}, {"$Default", none}, {"$Default", none}, {"$Default", none}}, attach{"$DEFAULT", none}, hub.ErrTooManyReaders, []int{0, 1, 2, 3, 4}},
		{"of another group", []attach{{"$Default", 7}}, attach{"other", none}, nil, []int{0}},
		{"a group in another case", []attach{{"OTHER", 7}}, attach{"other", none}, hub.ErrReaderStolen, []int{0}},
		{"a higher epoch", []attach{{"other", 1}}, attach{"other", 2}, nil, nil},
		{"the same epoch", []attach{{"other", 0}}, attach{"other", 0}, nil, nil},
		{"a lower epoch", []attach{{"other", 2}}, attach{"other", 1}, hub.ErrReaderStolen, []int{0}},
		{"none beside an epoch", []attach{{"other", 0}}, attach{"other", none}, hub.ErrReaderStolen, []int{0}},
		{"an epoch beside none", []attach{{"other", none}, {"other", none}}, attach{"other", 0}, nil, nil},
		{"an unknown group", nil, attach{"third", none}, hub.ErrNoConsumerGroup, nil},
		{"no group", nil, attach{"", none}, hub.ErrNoConsumerGroup, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newReaderHub(t, eventlog.Options{}, "Other")
			left := map[int]bool{}
			add := func(i int, a attach) (*hub.Reader, error) {
				r := &hub.Reader{Group: a.group, Partition: 2, End: func(reason error) {
					if !errors.Is(reason, hub.ErrReaderStolen) {
						t.Errorf("reader %d was ended by %v", i, reason)
					}
					delete(left, i)
				}}
				if a.epoch != none {
					r.Epoch = new(a.epoch)
				}
				err := h.AttachReader(r)
				if err == nil {
					left[i] = true
				}
				return r, err
			}
			var there []*hub.Reader
			for i, a := range tt.there {
				r, err := add(i, a)
				if err != nil {
					t.Fatal(err)
				}
				there = append(there, r)
			}
			r, err := add(len(there), tt.next)
			if !errors.Is(err, tt.want) {
				t.Fatalf("attach: %v, want %v", err, tt.want)
			}
			want := map[int]bool{}
			for _, i := range tt.left {
				want[i] = true
			}
			if tt.want == nil {
				want[len(there)] = true
			}
			if diff := cmp.Diff(want, left); diff != "" {
				t.Errorf("readers that stay (-want +got):\n%s", diff)
			}
			if got := h.Readers(); got != len(want) {
				t.Errorf("%d readers are counted, want %d", got, len(want))
			}
			for range 2 {
				for _, r := range append(there, r) {
					h.DetachReader(r)
				}
			}
			if got := h.Readers(); got != 0 {
				t.Errorf("%d readers are counted behind the last", got)
			}
			if _, err := add(9, attach{"other", none}); err != nil {
				t.Errorf("attach when all have gone: %v", err)
			}
		})
	}
}

func TestReaderThatWasStolenLeavesTheOtherAlone(t *testing.T) {
	h := newReaderHub(t, eventlog.Options{})
	reader := func() *hub.Reader {
		return &hub.Reader{Group: "$Default", Epoch: new(int64(1)), End: func(error) {}}
	}
	first, second := reader(), reader()
	for _, r := range []*hub.Reader{first, second} {
		if err := h.AttachReader(r); err != nil {
			t.Fatal(err)
		}
	}
	h.DetachReader(first)
	third := reader()
	third.Epoch = nil
	if err := h.AttachReader(third); !errors.Is(err, hub.ErrReaderStolen) {
		t.Errorf("attach: %v, want %v", err, hub.ErrReaderStolen)
	}
}

func TestReaderPositions(t *testing.T) {
	for _, tt := range []struct {
		name string
		q    func(last hub.EventPartition, between time.Time) hub.EventQuery
		want []string
		err  error
	}{
		{"the oldest", func(hub.EventPartition, time.Time) hub.EventQuery {
			return hub.EventQuery{}
		}, []string{"a", "b", "c", "d"}, nil},
		{"a number", func(hub.EventPartition, time.Time) hub.EventQuery {
			return hub.EventQuery{Sequence: 1}
		}, []string{"b", "c", "d"}, nil},
		{"the next number", func(p hub.EventPartition, _ time.Time) hub.EventQuery {
			return hub.EventQuery{Sequence: p.Last + 1}
		}, []string{"d"}, nil},
		{"a number that has not come", func(p hub.EventPartition, _ time.Time) hub.EventQuery {
			return hub.EventQuery{Sequence: p.Last + 2}
		}, nil, hub.ErrNoPosition},
		{"an offset", func(hub.EventPartition, time.Time) hub.EventQuery {
			return hub.EventQuery{Offset: 1}
		}, []string{"b", "c", "d"}, nil},
		{"behind the last offset", func(p hub.EventPartition, _ time.Time) hub.EventQuery {
			return hub.EventQuery{Offset: p.LastOffset + 1}
		}, []string{"d"}, nil},
		{"an offset that has not come", func(p hub.EventPartition, _ time.Time) hub.EventQuery {
			return hub.EventQuery{Offset: p.LastOffset + 10_000}
		}, nil, hub.ErrNoPosition},
		{"a time", func(_ hub.EventPartition, between time.Time) hub.EventQuery {
			return hub.EventQuery{Since: between}
		}, []string{"c", "d"}, nil},
		{"a time that has not come", func(_ hub.EventPartition, between time.Time) hub.EventQuery {
			return hub.EventQuery{Since: between.Add(time.Hour)}
		}, nil, nil},
		{"the end", func(hub.EventPartition, time.Time) hub.EventQuery {
			return hub.EventQuery{Latest: true}
		}, []string{"d"}, nil},
		{"two sources", func(hub.EventPartition, time.Time) hub.EventQuery {
			return hub.EventQuery{Sequence: 1, Sources: []hub.EventSource{hub.SourceTelemetry, hub.SourceDeviceLifecycle}}
		}, []string{"b", "createDeviceIdentity", "c", "d"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newReaderHub(t, eventlog.Options{Partitions: 1})
			h.send("d1", "a", "b")
			h.create("d1")
			h.clock.Advance(time.Second)
			between := h.Now()
			h.clock.Advance(time.Second)
			h.send("d1", "c")
			r := &hub.Reader{Group: hub.DefaultConsumerGroup, Query: tt.q(h.partition(0), between)}
			if err := h.AttachReader(r); !errors.Is(err, tt.err) {
				t.Fatalf("attach: %v, want %v", err, tt.err)
			}
			if tt.err != nil {
				return
			}
			h.send("d1", "d")
			if diff := cmp.Diff(tt.want, h.read(r.Query)); diff != "" {
				t.Errorf("%+v reads (-want +got):\n%s", r.Query, diff)
			}
		})
	}
}

func TestReaderReadsItsPartition(t *testing.T) {
	h := newReaderHub(t, eventlog.Options{Partitions: 3})
	want, got := map[string]int{}, map[string]int{}
	for i := range 30 {
		device := fmt.Sprint("device-", i)
		h.send(device, device, device)
		want[device] = 2
	}
	for partition := range 3 {
		r := &hub.Reader{Group: hub.DefaultConsumerGroup, Partition: partition}
		if err := h.AttachReader(r); err != nil {
			t.Fatal(err)
		}
		for e, err := range h.Events(t.Context(), r.Query) {
			if err != nil || e.Partition != partition {
				t.Fatalf("an event of partition %d, %v, want one of %d", e.Partition, err, partition)
			}
			got[string(e.Body)]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, partition := range []int{-1, 3} {
		if err := h.AttachReader(&hub.Reader{Group: hub.DefaultConsumerGroup, Partition: partition}); !errors.Is(err, hub.ErrNoPartition) {
			t.Errorf("partition %d: %v, want %v", partition, err, hub.ErrNoPartition)
		}
		if _, err := h.EventPartition(t.Context(), partition, nil); !errors.Is(err, hub.ErrNoPartition) {
			t.Errorf("partition %d: %v, want %v", partition, err, hub.ErrNoPartition)
		}
	}
}

func TestEventPartition(t *testing.T) {
	h := newReaderHub(t, eventlog.Options{Partitions: 1, MaxAge: time.Hour})
	telemetry := []hub.EventSource{hub.SourceTelemetry}
	check := func(when string, sources []hub.EventSource, want hub.EventPartition) {
		t.Helper()
		got, err := h.EventPartition(t.Context(), 0, sources)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(hub.EventPartition{}, "LastOffset")); diff != "" {
			t.Errorf("partition %s (-want +got):\n%s", when, diff)
		}
		if (got.LastOffset < 0) != want.Empty {
			t.Errorf("the last offset %s is %d", when, got.LastOffset)
		}
	}
	none := hub.EventPartition{Last: -1, Empty: true}
	check("that is new", nil, none)
	check("that is new", telemetry, none)
	h.create("d1")
	first := h.Now().Local()
	check("without telemetry", nil, hub.EventPartition{LastTime: first})
	check("without telemetry", telemetry, none)
	h.send("d1", "a", "b")
	check("with telemetry", telemetry, hub.EventPartition{Last: 2, LastTime: first})
	h.clock.Advance(time.Minute)
	for i := range 5000 { // more than it looks through at once
		h.touch("d1", i)
	}
	check("that goes on without", nil, hub.EventPartition{Last: 5002, LastTime: h.Now().Local()})
	check("that goes on without", telemetry, hub.EventPartition{Last: 2, LastTime: first})
	check("asked for something else", []hub.EventSource{hub.SourceDeviceLifecycle}, hub.EventPartition{LastTime: first})
	h.clock.Advance(2 * time.Hour)
	h.events.Trim()
	check("whose events have gone", nil, hub.EventPartition{First: 5003, Last: 5002, Empty: true})
	check("whose events have gone", telemetry, hub.EventPartition{First: 5003, Last: 5002, Empty: true})
	h.send("d1", "c")
	check("that goes on", telemetry, hub.EventPartition{First: 5003, Last: 5003, LastTime: h.Now().Local()})
}

func TestConsumerGroupNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "my.Group_1-x": true, strings.Repeat("a", 50): true,
		"": false, strings.Repeat("a", 51): false, "$Default": false, "a b": false, "a/b": false, "é": false, "a\n": false,
	} {
		if err := hub.ValidateConsumerGroup(name); (err == nil) != ok {
			t.Errorf("ValidateConsumerGroup(%q) = %v", name, err)
		}
	}
	if _, err := hub.New(hub.Options{ConsumerGroups: []string{"$default", "a b"}}); err == nil {
		t.Error("a hub with a wrong consumer group is made")
	}
}
