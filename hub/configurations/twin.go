package configurations

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// The statuses of a configuration in a twin.
const (
	targeted = "Targeted" // the condition holds, but others set all of it
	applied  = "Applied"  // at least a part of it is set
)

// configureTwin makes a twin what the configurations want it to be, and the
// modules of an IoT Edge device with it. It writes only what that changes.
func (e *Engine) configureTwin(id hub.ID) error {
	all := e.state.list()
	return e.hub.Update(id.Device, func(tx *hub.Tx) error {
		i, t, err := both(tx, id)
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		e.compared.Inc()
		if id.Module == "" {
			if err := e.configureIn(tx, i, t, all, deployment{}); err != nil {
				return err
			}
			return e.deploy(tx, i, t, all)
		}
		device, deviceTwin, err := both(tx, hub.ID{Device: id.Device})
		if err != nil {
			return err
		}
		d, err := e.deploymentOf(all, device, deviceTwin)
		if err != nil {
			return err
		}
		return e.configureIn(tx, i, t, all, d)
	})
}

// both returns an identity and its twin.
func both(tx *hub.Tx, id hub.ID) (hub.Identity, hub.Twin, error) {
	i, err := tx.Identity(id)
	if err != nil {
		return i, hub.Twin{}, err
	}
	t, err := tx.Twin(id)
	return i, t, err
}

// gone reports whether an error is that an identity is not there.
func gone(err error) bool {
	return errors.Is(err, hub.ErrDeviceNotFound) || errors.Is(err, hub.ErrModuleNotFound)
}

// configureIn applies to a twin the configurations that target it and, to that
// of a module, what a deployment has for it.
func (e *Engine) configureIn(tx *hub.Tx, i hub.Identity, t hub.Twin, all []*active, d deployment) error {
	targeting, err := e.targeting(all, i, t)
	if err != nil {
		return err
	}
	managed, err := managedPaths(tx, i.ID)
	if err != nil {
		return err
	}
	layers := d.layers(i.Module)
	for rank, c := range all {
		if slices.Contains(targeting, c) {
			for path, value := range c.Content.paths() {
				layers = append(layers, layer{c, rank, path, value})
			}
		}
	}
	var statuses map[string]status
	if i.Module == hub.EdgeAgent {
		statuses = d.statuses()
	}
	if len(targeting)+len(layers)+len(managed)+len(statuses)+len(t.Configurations) == 0 {
		return nil
	}
	winners := winningLayers(layers)
	paths := make(map[string]bool, len(winners))
	for _, l := range winners {
		paths[l.path] = l.from.Content.edge()
	}
	var stale []string
	for path, deployed := range managed {
		if _, ok := paths[path]; ok {
			continue
		}
		if deployed && len(d.applied) == 0 {
			paths[path] = true // it stays until another deployment takes its place
			continue
		}
		stale = append(stale, path)
	}
	patch, err := configuredPatch(t.Desired.Properties, stale, winners)
	if err != nil {
		return err
	}
	desired, refused := t.Desired.Patch(twin.Desired, patch, tx.Now())
	if refused != nil {
		// A value no twin can take: what was there stays.
		e.log.Warn("a configuration does not fit into a twin", words.LogID, i.ID.String(), words.LogReason, refused)
		patch, winners, paths = json.RawMessage(emptyPatch), nil, managed
	}
	if string(patch) != emptyPatch {
		setter := settersOf(winners)
		t.Desired = desired.WrittenBy(patch, func(property []string) (writer, digest string) {
			if l := setter(property); l != nil {
				return l.from.ID, words.Ticks(l.from.Created)
			}
			return "", ""
		})
	}
	after := statusesOf(statuses, targeting, winners)
	if string(patch) == emptyPatch && bytes.Equal(after, t.Configurations) && maps.Equal(managed, paths) {
		return nil
	}
	t.Configurations = after
	if key := configuredKey(i.ID); len(paths) > 0 {
		tx.Store.Set(key, words.MustMarshal(markedPaths(paths)))
	} else {
		tx.Store.Delete(key)
	}
	putTwin(tx, i.ID, &t, patch, configuring(winners))
	return nil
}

// emptyPatch changes nothing.
const emptyPatch = "{}"

// putTwin stores a twin whose desired properties patch has changed. by is who
// did it, for readers of events.
func putTwin(tx *hub.Tx, id hub.ID, t *hub.Twin, patch json.RawMessage, by string) {
	w := hub.TwinWrite{Side: hub.ByConfiguration, By: by}
	if string(patch) != emptyPatch {
		w.Desired = patch
	}
	tx.PutTwin(id, t, w)
}

func configuredKey(id hub.ID) []byte { return disk.Of(disk.Configured, id.Device, id.Module) }

// targeting returns the configurations whose condition holds for a twin, from
// the one that counts least.
func (e *Engine) targeting(all []*active, i hub.Identity, t hub.Twin) (list []*active, err error) {
	return e.targetingIf(all, i, t, func(c *active) bool {
		return !c.Content.edge() && c.Content.modules() == (i.Module != "")
	})
}

// targetingIf is targeting among the configurations for which among holds.
func (e *Engine) targetingIf(all []*active, i hub.Identity, t hub.Twin, among func(*active) bool) (list []*active, err error) {
	var doc query.Text
	for _, c := range all {
		if c.target == nil || !among(c) {
			continue
		}
		if doc == nil {
			if doc, err = e.hub.View(i, t).MarshalJSON(); err != nil {
				return nil, err
			}
		}
		if c.target.Match(doc) {
			list = append(list, c)
		}
	}
	return list, nil
}

// deployedMark stands before the paths that IoT Edge deployments have set.
const deployedMark = "edge/"

// managedPaths returns the paths that configurations have set in a twin, and
// whether it was an IoT Edge deployment.
func managedPaths(tx *hub.Tx, id hub.ID) (map[string]bool, error) {
	data, err := tx.Store.Get(configuredKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readPaths(data)
}

// readPaths reads what markedPaths returns, as JSON.
func readPaths(data []byte) (map[string]bool, error) {
	var marked []string
	if err := json.Unmarshal(data, &marked); err != nil {
		return nil, err
	}
	paths := make(map[string]bool, len(marked))
	for _, path := range marked {
		path, deployed := strings.CutPrefix(path, deployedMark)
		paths[path] = deployed
	}
	return paths, nil
}

// markedPaths returns what readPaths reads.
func markedPaths(paths map[string]bool) []string {
	marked := make([]string, 0, len(paths))
	for path, deployed := range paths {
		if deployed {
			path = deployedMark + path
		}
		marked = append(marked, path)
	}
	slices.Sort(marked)
	return marked
}

// A status is what a twin says of a configuration.
type status struct {
	Status string `json:"status"`
}

// configuring names the configurations that set a path.
func configuring(winners []layer) string {
	names := make(map[string]bool)
	for _, w := range winners {
		names[w.from.ID] = true
	}
	switch len(names) {
	case 0:
		return "a configuration that is gone"
	case 1:
		return "configuration " + slices.Collect(maps.Keys(names))[0]
	}
	return "configurations " + strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// statusesOf returns the member "configurations" of a twin, or nil
// if there are none. The statuses of deployments are known already.
func statusesOf(deployed map[string]status, targeting []*active, winners []layer) json.RawMessage {
	if len(targeting)+len(deployed) == 0 {
		return nil
	}
	statuses := make(map[string]status, len(targeting)+len(deployed))
	maps.Copy(statuses, deployed)
	for _, c := range targeting {
		statuses[c.ID] = status{targeted}
	}
	for _, l := range winners {
		if !l.from.Content.edge() {
			statuses[l.from.ID] = status{applied}
		}
	}
	return words.MustMarshal(statuses)
}
