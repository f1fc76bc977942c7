package twin

import (
	"bytes"
	"encoding/json"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// WrittenBy returns s, which a patch has changed last, with the names in its metadata of who wrote
// the properties of the patch. For each of them that is not an object itself, by gets the names that
// lead to it and returns an automatic configuration and the digest of what that was like, or "" if
// it was somebody else. They become $lastUpdatedBy and $lastUpdatedByDigest, and go with the next
// change of the property.
func (s Section) WrittenBy(patch []byte, by func(property []string) (writer, digest string)) Section {
	w := writers{by: by}
	s.Metadata = w.object(make([]byte, 0, len(s.Metadata)+256), s.Metadata, patch)
	return s
}

type writers struct {
	by   func(property []string) (writer, digest string)
	path []string // of the current node
}

// object appends the metadata of an object, with the writers of what patch sets.
func (w *writers) object(b, meta, patch []byte) []byte {
	set := members(patch)
	lookup := newIndex(set)
	b = append(b, '{')
	for c := jsontext.Walk(meta); c.Member(); {
		b = appendKey(b, c.Key())
		name := jsontext.Unquote(c.Key())
		change := lookup.find(set, name)
		if bytes.HasPrefix(name, []byte{'$'}) || change == nil || isNull(change.value) {
			b = append(b, c.Value()...)
			continue
		}
		w.path = append(w.path, string(name))
		if isObject(change.value) {
			b = w.object(b, c.Value(), change.value)
		} else {
			b = w.leaf(b, c.Value())
		}
		w.path = w.path[:len(w.path)-1]
	}
	return append(b, '}')
}

// leaf appends the metadata of a property that is not an object.
func (w *writers) leaf(b, meta []byte) []byte {
	writer, digest := w.by(w.path)
	if writer == "" {
		return append(b, meta...)
	}
	text, _ := json.Marshal(writer) // a string can always be printed
	b = append(append(openObject(b, meta), `"$lastUpdatedBy":`...), text...)
	text, _ = json.Marshal(digest)
	b = append(append(b, `,"$lastUpdatedByDigest":`...), text...)
	return append(b, '}')
}
