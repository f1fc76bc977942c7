package hubamqp

import (
	"cmp"
	"context"
	"slices"
)

// lastEvents returns the last events of a query, the oldest first, and the offsets behind which those come that are
// newer. How far back they lie nobody knows: a hub may number events that readers don't get, and those that the query
// doesn't want are numbered too. So it looks back farther until they are enough.
func (c *Client) lastEvents(ctx context.Context, q EventQuery) (last []Event, offsets map[string]string, err error) {
	past := q
	past.Follow, past.Latest, past.Begun = false, false, nil
	const farther = 16
	for tail := q.Last; ; tail *= farther {
		last = nil
		r := &reader{c: c, q: past, ways: c.dialer(hubPath), tail: tail, fn: func(e Event) error {
			if q.Wants == nil || q.Wants(e) {
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
		if len(last) < q.Last && !r.whole {
			continue
		}
		offsets = make(map[string]string)
		for _, p := range r.partitions {
			offsets[p.id] = cmp.Or(p.offset, "-1")
		}
		return newest(last, q.Last), offsets, nil
	}
}

// newest returns the n newest of events, the oldest first.
func newest(events []Event, n int) []Event {
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(a.Enqueued.Compare(b.Enqueued), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Sequence, b.Sequence))
	})
	return slices.Clone(events[max(0, len(events)-n):])
}
