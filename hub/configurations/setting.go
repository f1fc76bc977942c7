package configurations

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// A setting is a path of a twin that a configuration has set, as the hub
// remembers it to take it back. "Automatic device and module management using
// Azure IoT Hub" says that a twin loses the settings of a configuration that is
// gone, and nothing else. So of an object that was merged into the twin the hub
// remembers the properties in it, and what an operator has set beside them
// stays. A value that was there before does not come back (assumed).
type setting struct {
	path string
	by   setBy
}

// setBy says how a path was set.
type setBy string

const (
	// byConfiguration is a property that is no object, or one without any.
	byConfiguration setBy = "leaf/"
	// byDeployment is a path that an IoT Edge deployment replaces with all that
	// is below it.
	byDeployment setBy = "edge/"
	// byOlderHub is a path of a configuration's content with all that is below
	// it, as an older hub remembered it.
	byOlderHub setBy = ""
)

// settings are those of one twin.
type settings map[setting]bool

// settingsOf returns what the winners set.
func settingsOf(winners []layer) settings {
	all := make(settings)
	for _, l := range winners {
		if l.from.Content.edge() {
			all[setting{l.path, byDeployment}] = true
			continue
		}
		var value any
		_ = decodeNumbers(l.value, &value) // it has been merged, so it is JSON
		all.add(l.path, value)
	}
	return all
}

// add adds the properties of a value, and reports whether there are any: null
// is none, and of an object in which nothing is set the object is one.
func (s settings) add(path string, value any) (added bool) {
	object, ok := value.(map[string]any)
	for name, member := range object {
		added = s.add(path+"."+name, member) || added
	}
	if added || value == nil || ok && path == desiredPath {
		return added
	}
	s[setting{path, byConfiguration}] = true
	return true
}

// removeFrom takes the setting from a twin's properties.
func (s setting) removeFrom(tree map[string]any) {
	keys := keysOf(s.path)
	if len(keys) == 0 {
		clear(tree) // of a module: a deployment had replaced it all
		return
	}
	if s.by == byConfiguration {
		// Others may have put something into an object that was set as empty.
		if object, ok := valueAt(tree, keys).(map[string]any); ok && len(object) > 0 {
			return
		}
	}
	removePath(tree, keys)
}

// without returns the settings that are not among those that are made now.
func (s settings) without(made settings, winners []layer) (stale []setting) {
	for one := range s {
		again := one.by == byOlderHub && slices.ContainsFunc(winners, func(l layer) bool { return l.path == one.path })
		if !made[one] && !again {
			stale = append(stale, one)
		}
	}
	return stale
}

func settingsKey(id hub.ID) []byte { return disk.Of(disk.Configured, id.Device, id.Module) }

// readSettings returns the settings of a twin.
func readSettings(tx *store.Tx, id hub.ID) (settings, error) {
	data, err := tx.Get(settingsKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeSettings(data)
}

// decodeSettings reads what encode writes.
func decodeSettings(data []byte) (settings, error) {
	var marked []string
	if err := json.Unmarshal(data, &marked); err != nil {
		return nil, err
	}
	all := make(settings, len(marked))
	for _, path := range marked {
		s := setting{path, byOlderHub}
		for _, by := range []setBy{byConfiguration, byDeployment} {
			if below, ok := strings.CutPrefix(path, string(by)); ok {
				s = setting{below, by}
			}
		}
		all[s] = true
	}
	return all, nil
}

// write stores the settings of a twin.
func (s settings) write(tx *store.Tx, id hub.ID) {
	if len(s) == 0 {
		tx.Delete(settingsKey(id))
		return
	}
	tx.Set(settingsKey(id), s.encode())
}

// encode writes the settings as a list of paths, with a mark before each.
func (s settings) encode() []byte {
	marked := make([]string, 0, len(s))
	for one := range maps.Keys(s) {
		marked = append(marked, string(one.by)+one.path)
	}
	slices.Sort(marked)
	return words.MustMarshal(marked)
}
