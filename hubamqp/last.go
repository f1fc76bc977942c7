package hubamqp

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// lastEvents returns the last events of a query, the oldest first, and the offsets behind which those come that are
// newer. How far back they lie nobody knows: a hub may number events that readers don't get, or leave numbers out, and
// those that the query doesn't want are numbered too. So it looks back farther until they are enough.
func (c *Client) lastEvents(ctx context.Context, q EventQuery) (last []Event, offsets map[string]string, err error) {
	past := q
	past.Follow, past.Latest, past.Begun = false, false, nil
	const farther = 16
	for tail := q.Last; ; tail *= farther {
		last = nil
		seen := make(map[string]*tailSeen)
		r := &reader{c: c, q: past, ways: c.dialer(hubPath), tail: tail, fn: func(e Event) error {
			s := seen[e.Partition]
			if s == nil {
				s = &tailSeen{since: e.Enqueued}
				seen[e.Partition] = s
			}
			if q.Wants == nil || q.Wants(e) {
				s.wanted++
				last = append(last, e)
			}
			if len(last) >= 2*q.Last+prefetch { // what cannot be among them is forgotten
				last = newest(last, q.Last)
			}
			return nil
		}}
		if err := r.run(ctx); err != nil {
			return nil, nil, err
		}
		last = newest(last, q.Last)
		if !r.tellLast(last, seen) {
			continue
		}
		offsets = make(map[string]string)
		for _, p := range r.partitions {
			offsets[p.id] = cmp.Or(p.offset, "-1")
		}
		return last, offsets, nil
	}
}

// tailSeen is what was seen of the end of a partition.
type tailSeen struct {
	since  time.Time // when its first event came
	wanted int       // how many of its events the query wants
}

// tellLast reports whether the last events of the query are last: no partition has one that was not read and is newer.
func (r *reader) tellLast(last []Event, seen map[string]*tailSeen) bool {
	n := r.q.Last
	for _, p := range r.partitions {
		if p.behind < 0 || r.q.Offsets[p.id] != "" { // it was read from where the query begins
			continue
		}
		s := seen[p.id]
		if s == nil || s.wanted < n && (len(last) < n || !s.since.Before(last[0].Enqueued)) {
			return false
		}
	}
	return true
}

// newest returns the n newest of events, the oldest first.
func newest(events []Event, n int) []Event {
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(a.Enqueued.Compare(b.Enqueued), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Sequence, b.Sequence))
	})
	return slices.Clone(events[max(0, len(events)-n):])
}
