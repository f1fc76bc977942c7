package twin

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// errDamaged is not an [*Error]: not the patch is to blame. Only what a merge looks at is noticed.
var errDamaged = errors.New("twin: stored section is not JSON")

// Merge returns doc with a merge patch applied, as IoT Hub merges twin properties: an object that
// meets anything but an object replaces it, without its null members. It checks no limits except
// for the depth of both, 64, and treats $version and $metadata as any other member. Without a doc the
// patch meets an empty object. The error is an [*Error].
func Merge(doc, patch []byte) ([]byte, error) {
	if len(doc) == 0 {
		doc = []byte("{}")
	}
	doc, err := read(0, doc)
	if err != nil {
		return nil, err
	}
	if patch, err = read(0, patch); err != nil {
		return nil, err
	}
	return merge(doc, patch)
}

// MergeTags returns tags with a merge patch applied. The error is an [*Error] if the patch breaks
// a rule or the tags would become too large.
func MergeTags(tags, patch []byte) (json.RawMessage, error) {
	patch, err := read(Tags, patch)
	if err != nil {
		return nil, err
	}
	merged, err := merge(tags, patch)
	if err != nil {
		return nil, err
	}
	if err := checkSize(Tags, tags, merged); err != nil {
		return nil, err
	}
	return merged, nil
}

// ReplaceTags returns doc as the tags that a PUT of it leaves. The error is an [*Error] if it breaks a
// rule, has a member that is null, or is too large.
func ReplaceTags(doc []byte) (json.RawMessage, error) {
	tags, err := readWhole(Tags, doc)
	if err != nil {
		return nil, err
	}
	if err := checkSize(Tags, nil, tags); err != nil {
		return nil, err
	}
	return tags, nil
}

// merge merges two documents that were read before.
func merge(doc, patch []byte) ([]byte, error) {
	m := merger{props: make([]byte, 0, len(doc)+len(patch)+8)}
	if err := m.root(doc, nil, patch); err != nil {
		return nil, err
	}
	return m.props, nil
}

// A merger writes the result of a merge.
type merger struct {
	props []byte
	meta  []byte
	stamp []byte // of the nodes of meta that change; nil where no metadata is kept

	members []member // of the patch objects on the way to the current one, innermost last
	damaged bool
}

// A member is one of a patch.
type member struct {
	key, value []byte
	name       []byte // key without quotes and escapes
	used       bool
}

// root writes the object that patch makes of a stored document and its metadata.
func (m *merger) root(doc, meta, patch []byte) error {
	doc, meta = bytes.TrimSpace(doc), bytes.TrimSpace(meta)
	for _, stored := range [][]byte{doc, meta} {
		if n := len(stored); n > 0 && (stored[0] != '{' || stored[n-1] != '}') {
			return errDamaged
		}
	}
	if m.object(doc, meta, patch); m.damaged {
		return errDamaged
	}
	return nil
}

// object writes the object that patch makes of doc. It and its metadata are walked in step: both
// were written here, so the metadata has the members of doc in the same order.
func (m *merger) object(doc, meta, patch []byte) {
	m.props = append(m.props, '{')
	m.openMeta()

	base := len(m.members)
	p := jsontext.Walk(patch)
	for p.Member() {
		m.members = append(m.members, member{key: p.Key(), value: p.Value(), name: jsontext.Unquote(p.Key())})
	}
	members := m.members[base:]
	lookup := newIndex(members)

	d := jsontext.Walk(doc)
	old := jsontext.Walk(meta)
	has := nextProperty(&old)
	left := len(members)
	for left > 0 && d.Member() {
		var node []byte // the metadata of this member
		if has && bytes.Equal(old.Key(), d.Key()) {
			node = old.Value()
			has = nextProperty(&old)
		}
		change := lookup.find(members, jsontext.Unquote(d.Key()))
		switch {
		case change == nil:
			m.keep(d.Key(), d.Value(), node)
			continue
		case isNull(change.value):
		case isObject(change.value) && isObject(d.Value()):
			m.open(d.Key())
			m.object(d.Value(), node, change.value)
		default:
			m.write(d.Key(), change.value)
		}
		change.used = true
		left--
	}
	if left == 0 { // the patch names nothing of the rest, so there is no need to look at it
		m.props = appendRest(m.props, d.Behind())
		if has {
			m.meta = appendRest(m.meta, old.FromKey())
		}
	}
	for i := range members {
		if change := &members[i]; !change.used && !isNull(change.value) {
			m.write(change.key, change.value)
		}
	}

	m.members = m.members[:base]
	m.damaged = m.damaged || p.Damaged() || d.Damaged() || old.Damaged()
	m.props = append(m.props, '}')
	m.closeMeta()
}

// appendRest appends the last members of an object, which are all that is left of its text, to the
// object that b ends in.
func appendRest(b, rest []byte) []byte {
	if len(rest) < 2 {
		return b
	}
	rest = bytes.Trim(rest[:len(rest)-1], "{, \t\r\n") // no value ends in one of these
	if len(rest) > 0 && b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(b, rest...)
}

// nextProperty moves a cursor over metadata to the next node, past the stamps.
func nextProperty(c *jsontext.Cursor) bool {
	for c.Member() {
		if len(c.Key()) > 1 && c.Key()[1] != '$' {
			return true
		}
	}
	return false
}

// keep writes a member as it was.
func (m *merger) keep(key, value, node []byte) {
	m.props = appendKey(m.props, key)
	m.props = append(m.props, value...)
	if m.stamp != nil && node != nil {
		m.meta = appendKey(m.meta, key)
		m.meta = append(m.meta, node...)
	}
}

// write writes a member with a new value that isn't merged with an old one.
func (m *merger) write(key, value []byte) {
	m.open(key)
	if isObject(value) {
		m.object(nil, nil, value) // leaves out what is null
		return
	}
	m.props = append(m.props, value...)
	m.openMeta()
	m.closeMeta()
}

// open writes the key of a member that changes.
func (m *merger) open(key []byte) {
	m.props = appendKey(m.props, key)
	if m.stamp != nil {
		m.meta = appendKey(m.meta, key)
	}
}

func (m *merger) openMeta() {
	if m.stamp != nil {
		m.meta = append(m.meta, '{')
		m.meta = append(m.meta, m.stamp...)
	}
}

func (m *merger) closeMeta() {
	if m.stamp != nil {
		m.meta = append(m.meta, '}')
	}
}

// appendKey appends a key to the object that b ends in.
func appendKey(b, key []byte) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, key...)
	return append(b, ':')
}

// An index finds members by name. It is a map only where there are so many members that looking at
// each would let a peer make the hub work for long.
type index map[string]int

const indexFrom = 32

func newIndex(members []member) index {
	if len(members) < indexFrom {
		return nil
	}
	x := make(index, len(members))
	for i := range members {
		x[string(members[i].name)] = i
	}
	return x
}

func (x index) find(members []member, name []byte) *member {
	if x != nil {
		if i, ok := x[string(name)]; ok {
			return &members[i]
		}
		return nil
	}
	for i := range members {
		if bytes.Equal(members[i].name, name) {
			return &members[i]
		}
	}
	return nil
}
