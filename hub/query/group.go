package query

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
)

// An aggregate is what COUNT, AVG, SUM, MIN and MAX make of the rows of a group.
type aggregate byte

const (
	noAggregate aggregate = iota
	count
	avg
	sum
	minimum
	maximum
)

var aggregates = map[string]aggregate{"COUNT": count, "AVG": avg, "SUM": sum, "MIN": minimum, "MAX": maximum}

func (a aggregate) String() string {
	return [...]string{"", "COUNT", "AVG", "SUM", "MIN", "MAX"}[a]
}

// Groups collects the rows of a query that aggregates, and makes the result of them. A query without GROUP BY has one
// group, even of no rows.
//
// Groups are ordered: by the type of the value they share, then by the value. Of more groups than asked for the first
// are kept, so that memory is bounded by the number asked for; the others are found by a second pass over the rows that
// begins behind the last group of the first. It must not be used concurrently.
type Groups struct {
	q     *Query
	after string // keys up to this one are out, if not empty
	most  int
	byKey map[string]*group
	last  string // keys from this one on are out, if not empty
	key   []byte // of the row being added
}

type group struct {
	by    Value
	cells []cell // one for each item
}

// A cell is what an aggregate has seen.
type cell struct {
	rows    int64
	sum     float64
	extreme float64
	text    []byte // of extreme
}

// A GroupRow is a row of the result. Its Key, of at most 82 bytes, is for NewGroups.
type GroupRow struct {
	Key  string
	JSON []byte
}

// NewGroups returns Groups for the groups whose key is above after ("" is below all), up to most of them.
func (q *Query) NewGroups(after string, most int) *Groups {
	g := &Groups{q: q, after: after, most: most, byKey: map[string]*group{}}
	if q.group == nil {
		g.byKey["*"] = g.newGroup(Value{})
	}
	return g
}

func (g *Groups) newGroup(by Value) *group {
	by.raw = bytes.Clone(by.raw)
	return &group{by: by, cells: make([]cell, len(g.q.items))}
}

// Add adds a row that matches the query.
func (g *Groups) Add(d Doc) {
	var by Value
	if g.q.group == nil {
		g.key = append(g.key[:0], '*')
	} else {
		by = g.q.group.eval(d)
		g.key = appendKey(g.key[:0], by)
		if string(g.key) <= g.after || g.last != "" && string(g.key) >= g.last {
			return
		}
	}
	row := g.byKey[string(g.key)]
	if row == nil {
		row = g.newGroup(by)
		g.byKey[string(g.key)] = row
		g.prune()
	}
	for i := range g.q.items {
		row.cells[i].add(&g.q.items[i], d)
	}
}

func (c *cell) add(it *item, d Doc) {
	switch it.aggregate {
	case noAggregate:
		return
	case count:
		c.rows++
		return
	}
	v := it.path.eval(d)
	if v.kind != number {
		return
	}
	f := v.float()
	c.rows++
	c.sum += f
	if c.rows == 1 || it.aggregate == minimum && f < c.extreme || it.aggregate == maximum && f > c.extreme {
		c.extreme = f
		c.text = bytes.Clone(v.raw)
	}
}

// merge adds what another cell has seen of later rows.
func (c *cell) merge(it *item, other cell) {
	if other.rows == 0 {
		return
	}
	if c.rows == 0 || it.aggregate == minimum && other.extreme < c.extreme || it.aggregate == maximum && other.extreme > c.extreme {
		c.extreme, c.text = other.extreme, other.text
	}
	c.rows += other.rows
	c.sum += other.sum
}

// Merge adds the rows of another Groups of the same query, which must come behind those of g. The other one must not be
// used afterwards.
func (g *Groups) Merge(other *Groups) {
	for key, theirs := range other.byKey {
		if g.last != "" && key >= g.last {
			continue
		}
		ours := g.byKey[key]
		if ours == nil {
			g.byKey[key] = theirs
			continue
		}
		for i := range g.q.items {
			ours.cells[i].merge(&g.q.items[i], theirs.cells[i])
		}
	}
	if other.last != "" && (g.last == "" || other.last < g.last) {
		g.last = other.last
		for key := range g.byKey {
			if key >= g.last {
				delete(g.byKey, key)
			}
		}
	}
	g.prune()
}

// prune drops groups when there are twice as many as needed: those asked for, and one that tells that there are more.
func (g *Groups) prune() {
	if len(g.byKey) <= 2*(g.most+1) {
		return
	}
	keys := g.keys()
	g.last = keys[g.most+1]
	for _, key := range keys[g.most+1:] {
		delete(g.byKey, key)
	}
}

func (g *Groups) keys() []string {
	keys := make([]string, 0, len(g.byKey))
	for key := range g.byKey {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Rows returns the result, and whether there are more groups behind its last one: it ends early when the rows have most
// bytes. The only error is [ErrRowTooLarge].
func (g *Groups) Rows(most int) (rows []GroupRow, more bool, err error) {
	keys := g.keys()
	size := 0
	for n, key := range keys {
		if n == g.most || size >= most {
			return rows, true, nil
		}
		row, err := g.byKey[key].row(g.q)
		if err != nil {
			return nil, false, err
		}
		size += len(row)
		rows = append(rows, GroupRow{key, row})
	}
	return rows, false, nil
}

func (g *group) row(q *Query) ([]byte, error) {
	return q.appendRow(nil, func(i int) Value {
		if a := q.items[i].aggregate; a != noAggregate {
			return g.cells[i].value(a)
		}
		return g.by
	})
}

// value is undefined for the average and extremes of no numbers, and for results that are no number.
func (c *cell) value(a aggregate) Value {
	v := Value{}
	switch {
	case a == count:
		v = Number(float64(c.rows))
	case a == sum:
		v = Number(c.sum)
	case c.rows == 0:
	case a == avg:
		v = Number(c.sum / float64(c.rows))
	case c.text != nil:
		v = Value{kind: number, raw: c.text}
	default:
		v = Number(c.extreme)
	}
	if v.raw == nil && !finite(v.num) {
		return Value{}
	}
	return v
}

// maxKey bounds the keys of groups that are printed in full. Longer ones, of long texts and of objects, are cut and
// end with a hash.
const maxKey = 65

// appendKey appends a text that stands for the value: equal for equal values only, and ordered as they are.
func appendKey(dst []byte, v Value) []byte {
	dst = append(dst, '0'+byte(v.kind))
	switch v.kind {
	case boolean:
		dst = append(dst, byte(v.num))
	case number:
		bits := math.Float64bits(v.float() + 0) // -0 is 0
		if bits>>63 == 0 {
			bits |= 1 << 63
		} else {
			bits = ^bits
		}
		dst = binary.BigEndian.AppendUint64(dst, bits)
	case text:
		dst = append(dst, v.chars()...)
	case object, array:
		// The order of members is of no importance, nor how numbers are spelled. Documents are rarely grouped by
		// whole objects.
		var any any
		if err := json.Unmarshal(v.raw, &any); err == nil {
			canonical, _ := json.Marshal(any)
			dst = append(dst, canonical...)
		} else {
			dst = append(dst, v.raw...)
		}
	}
	if len(dst) > maxKey {
		hash := sha256.Sum256(dst)
		dst = append(append(dst[:maxKey], 0xff), hash[:16]...)
	}
	return dst
}
