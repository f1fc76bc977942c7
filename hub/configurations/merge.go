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

// whole reports whether the layer is for all properties at once.
func (l layer) whole() bool { return l.path == desiredPath }

// replaces reports whether nothing stays of what was at the layer's path and
// below it: the value of an IoT Edge deployment replaces it, and so does one that
// is no object. Else the value is merged into what is there.
func (l layer) replaces() bool { return l.from.Content.edge() || !isObject(l.value) }

func isObject(value json.RawMessage) bool { return len(value) > 0 && value[0] == '{' }

// winningLayers settles who sets each path: of several configurations the one
// of the highest rank, which is the highest priority and of these the newest, as
// in "Automatic device and module management using Azure IoT Hub". They are in
// the order in which they are to be applied. Paths that overlap without being
// equal both count, unless the later one leaves nothing of the other (assumed;
// of deployments, azure-docs says that a property of a module overwrites what
// those of lower priority have there).
func winningLayers(layers []layer) []layer {
	slices.SortFunc(layers, func(a, b layer) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.path, b.path))
	})
	// All properties of a deployment are the ground that those of another
	// configuration are merged into, whatever its rank is above it.
	type place struct {
		path   string
		ground bool
	}
	placeOf := func(l layer) place { return place{l.path, l.whole() && l.from.Content.edge()} }
	last, replaced := make(map[place]int, len(layers)), make(map[string]int)
	for n, l := range layers {
		last[placeOf(l)] = n
		if l.replaces() {
			replaced[l.path] = n
		}
	}
	// covered reports whether a layer behind n leaves nothing at the path.
	covered := func(n int, path string) bool {
		for {
			if behind, ok := replaced[path]; ok && behind > n {
				return true
			}
			if path == desiredPath {
				return false
			}
			path = path[:strings.LastIndexByte(path, '.')]
		}
	}
	winners := make([]layer, 0, len(layers))
	for n, l := range layers {
		if last[placeOf(l)] == n && !covered(n, l.path) {
			winners = append(winners, l)
		}
	}
	return winners
}

// merged returns the properties with the winning layers applied.
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

// configuredPatch returns the patch that takes the stale settings, which nobody
// makes any more, from the properties, and makes those of the winners.
func configuredPatch(properties []byte, stale []setting, winners []layer) (json.RawMessage, error) {
	after, err := decodeTree(properties)
	if err != nil {
		return nil, err
	}
	for _, s := range stale {
		s.removeFrom(after)
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
			if below := property[len(keys):]; len(below) > 0 {
				object, _ := value.(map[string]any)
				value = valueAt(object, below)
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

// valueAt returns what is at the path, or nil.
func valueAt(tree map[string]any, keys []string) any {
	for _, key := range keys[:len(keys)-1] {
		tree, _ = tree[key].(map[string]any)
	}
	return tree[keys[len(keys)-1]]
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
