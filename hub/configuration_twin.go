package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// The statuses of a configuration in a twin.
const (
	configurationTargeted = "Targeted" // the condition holds, but others set all of it
	configurationApplied  = "Applied"  // at least a part of it is set
)

// configureTwin makes a twin what the configurations want it to be, and writes
// it only if that changes something.
func (s *Server) configureTwin(id ID) error {
	all := s.configurations.list()
	return s.store.Update(id.Device, func(tx *store.Tx) error {
		i, err := txIdentity(tx, id)
		if errors.Is(err, id.notFound()) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := tx.Get(id.twinKey())
		t, err := twinOf(id, data, err)
		if err != nil {
			return err
		}
		targeting, err := s.targeting(all, i, t)
		if err != nil {
			return err
		}
		managed, err := managedPaths(tx, id)
		if err != nil || len(targeting) == 0 && len(managed) == 0 && len(t.Configurations) == 0 {
			return err
		}
		winners := winningPaths(targeting)
		paths := slices.Sorted(maps.Keys(winners))
		patch, err := configuredPatch(t.Desired.Properties, managed, winners)
		if err != nil {
			return err
		}
		now := s.now()
		if patch != nil {
			desired, err := t.Desired.Patch(twin.Desired, patch, now)
			if err != nil {
				// A value no twin can take: what was there stays.
				s.log.Warn("a configuration does not fit into a twin", logID, id.String(), logReason, twinError(err))
				winners, paths, patch = nil, managed, nil
			} else {
				t.Desired = desired
			}
		}
		statuses := configurationStatuses(targeting, winners)
		if patch == nil && bytes.Equal(statuses, t.Configurations) && slices.Equal(managed, paths) {
			return nil
		}
		t.Configurations = statuses
		t.Version++
		if patch != nil {
			t.ETag++
		}
		t.store(tx, id)
		if len(paths) > 0 {
			tx.Set(id.configuredKey(), mustMarshal(paths))
		} else {
			tx.Delete(id.configuredKey())
		}
		if patch != nil {
			notice := twinNotice{desired: patch, device: twin.WithVersion(patch, t.Desired.Version)}
			tx.OnCommit(func() {
				s.metrics.twinWrite("configuration")
				s.twinWritten(id, t, notice, now)
				if c := s.connection(id); c != nil {
					c.sendDesired(t.Desired.Version, notice.device)
				}
			})
		}
		return nil
	})
}

// targeting returns the configurations whose condition holds for a twin, from
// the one that counts least.
func (s *Server) targeting(all []*activeConfiguration, i Identity, t twinRecord) (list []*activeConfiguration, err error) {
	var doc query.Text
	for _, c := range all {
		if c.target == nil || (c.target.From() == query.Modules) != (i.Module != "") {
			continue
		}
		if doc == nil {
			if doc, err = s.view(i, t).MarshalJSON(); err != nil {
				return nil, err
			}
		}
		if c.target.Match(doc) {
			list = append(list, c)
		}
	}
	return list, nil
}

// managedPaths returns the paths that configurations have set in a twin.
func managedPaths(tx *store.Tx, id ID) (paths []string, err error) {
	data, err := tx.Get(id.configuredKey())
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return paths, json.Unmarshal(data, &paths)
}

// A winner is the configuration that sets a path, and what it sets.
type winner struct {
	from  *activeConfiguration
	rank  int // of the configuration
	value json.RawMessage
}

// winningPaths settles who sets each path: of several configurations the one
// of the highest priority, and of these the newest.
func winningPaths(targeting []*activeConfiguration) map[string]winner {
	winners := make(map[string]winner)
	for rank, c := range targeting {
		for path, value := range c.Content.paths() {
			winners[path] = winner{c, rank, value}
		}
	}
	return winners
}

// configurationStatuses returns the member "configurations" of a twin, or nil
// if there are none.
func configurationStatuses(targeting []*activeConfiguration, winners map[string]winner) json.RawMessage {
	if len(targeting) == 0 {
		return nil
	}
	type status struct {
		Status string `json:"status"`
	}
	statuses := make(map[string]status, len(targeting))
	for _, c := range targeting {
		statuses[c.ID] = status{configurationTargeted}
	}
	for _, w := range winners {
		statuses[w.from.ID] = status{configurationApplied}
	}
	return mustMarshal(statuses)
}

// configuredPatch returns the patch that takes the managed paths that nobody
// sets any more from the properties, and sets those of the winners. It is nil
// if there is nothing to change.
func configuredPatch(properties []byte, managed []string, winners map[string]winner) (json.RawMessage, error) {
	before, err := decodeTree(properties)
	if err != nil {
		return nil, err
	}
	after, err := decodeTree(properties)
	if err != nil {
		return nil, err
	}
	for _, path := range managed {
		if _, ok := winners[path]; !ok {
			removePath(after, keysOf(path))
		}
	}
	// Paths that overlap without being equal: the configuration that counts
	// more is merged last.
	order := slices.SortedFunc(maps.Keys(winners), func(a, b string) int {
		if d := winners[a].rank - winners[b].rank; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, path := range order {
		var value any
		if err := decodeNumbers(winners[path].value, &value); err != nil {
			return nil, err
		}
		setPath(after, keysOf(path), value)
	}
	patch := diffTree(before, after)
	if len(patch) == 0 {
		return nil, nil
	}
	return mustMarshal(patch), nil
}

func keysOf(path string) []string {
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
	object, isObject := value.(map[string]any)
	switch {
	case value == nil:
		delete(tree, key)
	case isObject:
		below, ok := tree[key].(map[string]any)
		if !ok {
			below = make(map[string]any)
			tree[key] = below
		}
		for name, member := range object {
			setPath(below, []string{name}, member)
		}
	default:
		tree[key] = value
	}
}

// diffTree returns the patch that makes one object of another.
func diffTree(before, after map[string]any) map[string]any {
	patch := make(map[string]any)
	for key := range before {
		if _, ok := after[key]; !ok {
			patch[key] = nil
		}
	}
	for key, value := range after {
		old, had := before[key]
		a, wasObject := old.(map[string]any)
		b, isObject := value.(map[string]any)
		switch {
		case wasObject && isObject:
			if below := diffTree(a, b); len(below) > 0 {
				patch[key] = below
			}
		case !had || !bytes.Equal(mustMarshal(old), mustMarshal(value)):
			patch[key] = value
		}
	}
	return patch
}
