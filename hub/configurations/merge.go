package configurations

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/twin"
)

// A layer is a part of what a configuration sets in one twin: the value of a
// path, which is "properties.desired" itself or leads on from there.
type layer struct {
	from  *active
	rank  int // of the configuration
	path  string
	value json.RawMessage
}

// whole reports whether the layer sets all properties at once.
func (l layer) whole() bool { return l.path == desiredPath }

// winningLayers settles who sets each path: of several configurations the one
// of the highest rank, which is the highest priority and of these the newest.
// They are in the order in which they are to be applied. Paths that overlap
// without being equal both count, except below all properties.
func winningLayers(layers []layer) []layer {
	slices.SortFunc(layers, func(a, b layer) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.path, b.path))
	})
	last := make(map[string]int, len(layers))
	first := 0
	for n, l := range layers {
		last[l.path] = n
		if l.whole() {
			first = n
		}
	}
	winners := make([]layer, 0, len(last))
	for n, l := range layers[first:] {
		if last[l.path] == first+n {
			winners = append(winners, l)
		}
	}
	return winners
}

// merged returns the properties with the winning layers applied. The value of
// a device's or module's configuration is merged into what is there, that of an
// IoT Edge deployment replaces it.
func merged(properties map[string]any, winners []layer) (map[string]any, error) {
	for _, l := range winners {
		var value any
		if err := decodeNumbers(l.value, &value); err != nil {
			return nil, err
		}
		keys := keysOf(l.path)
		if l.from.Content.edge() {
			if l.whole() {
				properties = make(map[string]any)
			} else {
				removePath(properties, keys)
			}
			if value == nil {
				continue
			}
		}
		setPath(properties, keys, value)
	}
	return properties, nil
}

// configuredPatch returns the patch that takes the stale paths, which nobody
// sets any more, from the properties, and sets those of the winners.
func configuredPatch(properties []byte, stale []string, winners []layer) (json.RawMessage, error) {
	after, err := decodeTree(properties)
	if err != nil {
		return nil, err
	}
	for _, path := range stale {
		if keys := keysOf(path); len(keys) > 0 {
			removePath(after, keys)
		}
	}
	if after, err = merged(after, winners); err != nil {
		return nil, err
	}
	return twin.MergePatch(properties, words.MustMarshal(after))
}

// settersOf returns what tells which of the winners a property has its value
// from; nil is none of them.
func settersOf(winners []layer) func(property []string) *layer {
	paths, values := make([][]string, len(winners)), make([]any, len(winners))
	for n, l := range winners {
		paths[n] = keysOf(l.path)
		_ = decodeNumbers(l.value, &values[n]) // it has been merged, so it is JSON
	}
	return func(property []string) *layer {
		for n, keys := range slices.Backward(paths) {
			if len(keys) > len(property) || !slices.Equal(keys, property[:len(keys)]) {
				continue
			}
			value := values[n]
			for _, key := range property[len(keys):] {
				object, _ := value.(map[string]any)
				value = object[key]
			}
			if value != nil {
				return &winners[n]
			}
		}
		return nil
	}
}

// keysOf returns the names that a path of a configuration leads through.
func keysOf(path string) []string {
	if path == desiredPath {
		return nil
	}
	return strings.Split(strings.TrimPrefix(path, desiredPath+"."), ".")
}

// decodeNumbers is json.Unmarshal that keeps numbers as they are written.
func decodeNumbers(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}

func decodeTree(data []byte) (tree map[string]any, err error) {
	return tree, decodeNumbers(data, &tree)
}

// removePath removes what is at the path, and the objects that it leaves empty.
func removePath(tree map[string]any, keys []string) {
	if len(keys) > 1 {
		below, ok := tree[keys[0]].(map[string]any)
		if !ok {
			return
		}
		if removePath(below, keys[1:]); len(below) > 0 {
			return
		}
	}
	delete(tree, keys[0])
}

// setPath merges a value into what is at the path, as a patch does.
func setPath(tree map[string]any, keys []string, value any) {
	if len(keys) == 0 {
		object, _ := value.(map[string]any)
		for name, member := range object {
			setPath(tree, []string{name}, member)
		}
		return
	}
	key := keys[0]
	if len(keys) > 1 {
		below, ok := tree[key].(map[string]any)
		if !ok {
			below = make(map[string]any)
			tree[key] = below
		}
		setPath(below, keys[1:], value)
		return
	}
	_, isObject := value.(map[string]any)
	switch {
	case value == nil:
		delete(tree, key)
	case isObject:
		below, ok := tree[key].(map[string]any)
		if !ok {
			below = make(map[string]any)
			tree[key] = below
		}
		setPath(below, nil, value)
	default:
		tree[key] = value
	}
}
