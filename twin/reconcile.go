package twin

import (
	"bytes"
	"encoding/json"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// MergePatch returns the patch by which [Merge] makes one document of another. It names nothing that
// is the same in both, so it is {} if and only if all of them is. $metadata and $version of the root
// are left out. A document of no bytes is an empty object, and a member that is null, which no twin
// has, is absent. The error is an [*Error] if Merge would refuse one of the two.
func MergePatch(old, new []byte) (json.RawMessage, error) {
	old, err := properties(old)
	if err != nil {
		return nil, err
	}
	if new, err = properties(new); err != nil {
		return nil, err
	}
	return appendPatch(make([]byte, 0, len(new)+2), old, new, false), nil
}

// Replacement returns what a device is told when new takes the place of old, which are properties of a
// [Section]: all of new, and each name that is gone as null, beside those that were its neighbours. So
// a device that merges it has new, as long as it had old (Azure/azure-iot-sdk-csharp issue 954; that it
// holds at every depth is assumed).
func Replacement(old, new []byte) json.RawMessage {
	return appendPatch(make([]byte, 0, len(old)+len(new)+2), orEmpty(old), orEmpty(new), true)
}

// appendPatch appends the patch that makes one object of another. It names what is the same in both
// only if all is asked for.
func appendPatch(b, old, new []byte, all bool) []byte {
	b = append(b, '{')
	if !all && bytes.Equal(old, new) {
		return append(b, '}')
	}
	now := members(new)
	lookup := newIndex(now)
	for c := jsontext.Walk(old); c.Member(); {
		m := lookup.find(now, jsontext.Unquote(c.Key()))
		if m != nil {
			m.used = true
		}
		gone := m == nil || isNull(m.value)
		switch {
		case gone && isNull(c.Value()):
		case gone:
			b = append(appendKey(b, c.Key()), "null"...)
		case isObject(c.Value()) && isObject(m.value):
			before := len(b)
			b = appendKey(b, m.key)
			empty := len(b) + len("{}")
			if b = appendPatch(b, c.Value(), m.value, all); len(b) == empty && !all {
				b = b[:before]
			}
		case all || !equal(c.Value(), m.value):
			b = append(appendKey(b, m.key), m.value...)
		}
	}
	for _, m := range now {
		if !m.used && !isNull(m.value) {
			b = append(appendKey(b, m.key), m.value...)
		}
	}
	return append(b, '}')
}

// A Conflict is a property that two writers have changed in different ways.
type Conflict struct {
	Path               string          // names of the members that lead to it, joined by "."
	Base, Mine, Theirs json.RawMessage // nil: it is not there
}

// Reconcile returns theirs with the changes that lead from base to mine: what only one of the two
// has changed is as that one has it, be it a member deep in an object that both have changed. What
// both have changed, and not to the same, is a conflict: the merged document has it as mine.
// $metadata and $version of the root are left out. What [Merge] would refuse counts as an empty
// object.
func Reconcile(base, mine, theirs []byte) (merged json.RawMessage, conflicts []Conflict) {
	return reconcile("", orEmpty(base), orEmpty(mine), orEmpty(theirs), nil)
}

func reconcile(parent string, base, mine, theirs []byte, conflicts []Conflict) ([]byte, []Conflict) {
	merged := []byte{'{'}
	before, ours, other := members(base), members(mine), members(theirs)
	lookBefore, lookOurs, lookOther := newIndex(before), newIndex(ours), newIndex(other)
	settle := func(key, name []byte) {
		b, m, t := valueOf(lookBefore.find(before, name)), valueOf(lookOurs.find(ours, name)), valueOf(lookOther.find(other, name))
		out := m
		switch {
		case same(m, t), same(b, m):
			out = t
		case same(b, t):
		case isObject(m) && isObject(t) && (b == nil || isObject(b)):
			out, conflicts = reconcile(parent+string(name)+".", b, m, t, conflicts)
		default:
			conflicts = append(conflicts, Conflict{Path: parent + string(name), Base: b, Mine: m, Theirs: t})
		}
		if out != nil {
			merged = append(appendKey(merged, key), out...)
		}
	}
	for _, m := range other {
		settle(m.key, m.name)
	}
	for _, m := range ours {
		if lookOther.find(other, m.name) == nil {
			settle(m.key, m.name)
		}
	}
	return append(merged, '}'), conflicts
}

func valueOf(m *member) []byte {
	if m == nil {
		return nil
	}
	return m.value
}

func same(a, b []byte) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return equal(a, b)
}
