package twin

import (
	"encoding/json"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// MergePatch returns the patch by which [Merge] makes one document of another: what it does not
// name is the same in both. Members of the root that begin with "$" are left out. What is no JSON
// object counts as an empty one. Null members of new, which no twin has, are removed by the patch.
func MergePatch(old, new []byte) json.RawMessage {
	return mergePatch(rootOf(old), rootOf(new))
}

func mergePatch(old, new []byte) []byte {
	patch := []byte{'{'}
	now := members(new)
	lookup := newIndex(now)
	for c := jsontext.Walk(old); c.Member(); {
		m := lookup.find(now, jsontext.Unquote(c.Key()))
		if m == nil || isNull(m.value) {
			if m != nil {
				m.used = true
			}
			patch = append(appendKey(patch, c.Key()), "null"...)
			continue
		}
		m.used = true
		switch {
		case equal(c.Value(), m.value):
		case isObject(c.Value()) && isObject(m.value):
			patch = append(appendKey(patch, m.key), mergePatch(c.Value(), m.value)...)
		default:
			patch = append(appendKey(patch, m.key), m.value...)
		}
	}
	for _, m := range now {
		if !m.used && !isNull(m.value) {
			patch = append(appendKey(patch, m.key), m.value...)
		}
	}
	return append(patch, '}')
}

// A Conflict is a property that two writers have changed in different ways.
type Conflict struct {
	Path               string          // names of the members that lead to it, joined by "."
	Base, Mine, Theirs json.RawMessage // nil: it is not there
}

// Reconcile returns theirs with the changes that lead from base to mine: what only one of the two
// has changed is as that one has it, be it a member deep in an object that both have changed. What
// both have changed, and not to the same, is a conflict: the merged document has it as mine.
// Members of the root that begin with "$" are left out. What is no JSON object counts as an empty
// one.
func Reconcile(base, mine, theirs []byte) (merged json.RawMessage, conflicts []Conflict) {
	return reconcile("", rootOf(base), rootOf(mine), rootOf(theirs), nil)
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

// rootOf returns a document without white space and without the members of its root that begin with
// "$".
func rootOf(doc []byte) []byte {
	b, err := read(0, doc)
	if err != nil {
		return []byte("{}")
	}
	root := []byte{'{'}
	for c := jsontext.Walk(b); c.Member(); {
		if name := jsontext.Unquote(c.Key()); len(name) == 0 || name[0] != '$' {
			root = append(appendKey(root, c.Key()), c.Value()...)
		}
	}
	return append(root, '}')
}
