package twin

import (
	"bytes"
	"encoding/json"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// A Change is a property that differs between two documents.
type Change struct {
	Path string          // names of the members that lead to it, joined by "."
	Old  json.RawMessage // nil if it was not there
	New  json.RawMessage // nil if it is no longer there
}

// Diff returns what changed from one document to another: first what the old one has, in its
// order, then what is new, level by level. Objects that are in both are compared member by member,
// arrays and all else as a whole. $metadata and $version of the root are left out, for they change
// always. What [Merge] would refuse counts as an empty object.
func Diff(old, new []byte) []Change { return diff(nil, "", orEmpty(old), orEmpty(new)) }

func diff(changes []Change, parent string, old, new []byte) []Change {
	now := members(new)
	lookup := newIndex(now)
	for c := jsontext.Walk(old); c.Member(); {
		name := jsontext.Unquote(c.Key())
		path := parent + string(name)
		m := lookup.find(now, name)
		if m == nil {
			changes = append(changes, Change{Path: path, Old: c.Value()})
			continue
		}
		m.used = true
		switch {
		case isObject(c.Value()) && isObject(m.value):
			changes = diff(changes, path+".", c.Value(), m.value)
		case !equal(c.Value(), m.value):
			changes = append(changes, Change{Path: path, Old: c.Value(), New: m.value})
		}
	}
	for _, m := range now {
		if !m.used {
			changes = append(changes, Change{Path: parent + string(m.name), New: m.value})
		}
	}
	return changes
}

// properties returns a document without white space and without the members of its root that only
// the hub writes. No document is an empty one.
func properties(doc []byte) ([]byte, error) {
	if len(doc) == 0 {
		return []byte("{}"), nil
	}
	b, err := read(0, doc)
	if err != nil {
		return nil, err
	}
	return stripReadOnly(b), nil
}

func orEmpty(doc []byte) []byte {
	b, err := properties(doc)
	if err != nil {
		return []byte("{}")
	}
	return b
}

func members(object []byte) []member {
	list := make([]member, 0, 8)
	for c := jsontext.Walk(object); c.Member(); {
		list = append(list, member{key: c.Key(), value: c.Value(), name: jsontext.Unquote(c.Key())})
	}
	return list
}

// equal reports whether two values without white space are the same, as the package has it.
func equal(a, b []byte) bool {
	switch {
	case bytes.Equal(a, b):
		return true
	case a[0] != b[0]:
		return false
	case a[0] == '"':
		return bytes.Equal(jsontext.Unquote(a), jsontext.Unquote(b))
	case isObject(a):
		return len(diff(nil, "", a, b)) == 0
	case isArray(a):
		x, y := jsontext.Walk(a), jsontext.Walk(b)
		for {
			more := x.Element()
			if more != y.Element() {
				return false
			}
			if !more {
				return true
			}
			if !equal(x.Value(), y.Value()) {
				return false
			}
		}
	}
	return false
}
