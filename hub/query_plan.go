package hub

import (
	"fmt"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub/query"
)

// A name is what the keys of a row's records have in common behind their
// prefixes: "device", "device/module", or "job/device". Rows are read in the
// order of their names.

// A span is a range of names: from start, included, to end, excluded. An empty
// end is no end.
type span struct{ start, end string }

// only returns the span of one name.
func only(name string) span { return span{name, name + "\x00"} }

// exact reports whether the span has one name at most.
func (sp span) exact() bool { return len(sp.end) == len(sp.start)+1 && sp.end[len(sp.start)] == 0 }

// spansOf returns where the rows are whose id (of the device, or for devices.jobs
// of the job) is in one of the ranges.
func spansOf(from query.Collection, ranges []query.Range) []span {
	var spans []span
	for _, r := range ranges {
		id, exact := r.Exact()
		switch {
		case from == query.Devices:
			spans = append(spans, span{r.From, r.To})
		case exact:
			spans = append(spans, span{id + "/", id + "0"}) // "0" is next to "/"
		default:
			spans = append(spans, span{r.From, endOfNames(r)})
		}
	}
	return merge(spans)
}

// endOfNames returns the end of the names that begin with an id of the range and
// "/". An id that the range's end begins with is before it, but with "/" behind
// it may not be.
func endOfNames(r query.Range) string {
	end := r.To
	for n := 1; n < len(r.To); n++ {
		if id := r.To[:n]; id >= r.From {
			end = max(end, id+"0")
		}
	}
	return end
}

// merge brings spans in order, and those together that overlap.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return strings.Compare(a.start, b.start) })
	merged := spans[:0]
	for _, sp := range spans {
		n := len(merged)
		if n == 0 || merged[n-1].end != "" && merged[n-1].end < sp.start {
			merged = append(merged, sp)
		} else if last := &merged[n-1]; last.end != "" {
			last.end = max(last.end, sp.end)
			if sp.end == "" {
				last.end = ""
			}
		}
	}
	return merged
}

// behind returns what of the spans comes after a name.
func behind(spans []span, name string) []span {
	start := name + "\x00"
	for i, sp := range spans {
		if sp.end == "" || sp.end > start {
			spans = slices.Clone(spans[i:])
			spans[0].start = max(spans[0].start, start)
			return spans
		}
	}
	return nil
}

// within returns the spans of those names that are in one of the spans. The
// names need not be in order.
func within(names []string, spans []span) []span {
	slices.Sort(names)
	var list []span
	for _, name := range names {
		for len(spans) > 0 && spans[0].end != "" && spans[0].end <= name {
			spans = spans[1:]
		}
		if len(spans) == 0 {
			break
		}
		if name >= spans[0].start {
			list = append(list, only(name))
		}
	}
	return list
}

// maxConnectedNames is how many connections are gone through one by one. A
// connected device among more of them is found as fast by reading all devices.
const maxConnectedNames = 20_000

// choose decides what the scan reads: where it looks, and in which records.
func (sc *scan) choose() error {
	q, from := sc.query, sc.query.From()
	if from == query.Jobs {
		sc.main = jobRecord
		sc.spans = spansOf(from, q.Ranges(query.JobID))
		sc.plan = "jobs, " + describe(sc.spans)
		return nil
	}
	fields := q.ConditionFields()
	if q.Aggregates() {
		fields |= q.ResultFields()
	}
	sc.main, sc.plan = identityRecord, "identities"
	if fields.Has(twinFields...) {
		sc.main, sc.plan = twinsRecord, "twins"
	}
	sc.spans = spansOf(from, q.Ranges(query.DeviceID))
	how := describe(sc.spans)
	if states := q.Ranges(query.ConnectionState); len(states) == 1 {
		if state, exact := states[0].Exact(); exact && state == connectedState {
			if names, few := sc.server.links.names(from == query.Modules, maxConnectedNames); few {
				sc.spans = within(names, sc.spans)
				how = fmt.Sprintf("connected (%d)", len(sc.spans))
			}
		}
	}
	if since := minuteFrom(q.UpdatedFrom()); since > 0 {
		names, few, err := sc.updatedNames(since)
		if err != nil {
			return err
		}
		if few {
			sc.spans = within(names, sc.spans)
			how = fmt.Sprintf("updated lately (%d)", len(sc.spans))
		}
	}
	sc.plan += ", " + how
	return nil
}

func describe(spans []span) string {
	exact := 0
	for _, sp := range spans {
		if sp.exact() {
			exact++
		}
	}
	switch {
	case len(spans) == 1 && spans[0] == span{}:
		return "all"
	case exact == len(spans):
		return fmt.Sprintf("by id (%d)", exact)
	}
	return fmt.Sprintf("ranges of ids (%d)", len(spans))
}
