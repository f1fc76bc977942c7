package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// The statuses of a configuration in a twin.
const (
	configurationTargeted = "Targeted" // the condition holds, but others set all of it
	configurationApplied  = "Applied"  // at least a part of it is set
)

// configureTwin makes a twin what the configurations want it to be, and the
// modules of an IoT Edge device with it. It writes only what that changes.
func (s *Server) configureTwin(id ID) error {
	all := s.configurations.list()
	return s.store.Update(id.Device, func(tx *store.Tx) error {
		i, t, err := txTwin(tx, id)
		if errors.Is(err, id.notFound()) {
			return nil
		}
		if err != nil {
			return err
		}
		s.metrics.twinConfigured()
		if id.Module == "" {
			if err := s.configureIn(tx, i, t, all, deployment{}); err != nil {
				return err
			}
			return s.deploy(tx, i, t, all)
		}
		device, deviceTwin, err := txTwin(tx, ID{Device: id.Device})
		if err != nil {
			return err
		}
		d, err := s.deploymentOf(all, device, deviceTwin)
		if err != nil {
			return err
		}
		return s.configureIn(tx, i, t, all, d)
	})
}

// txTwin returns an identity and its twin.
func txTwin(tx *store.Tx, id ID) (Identity, twinRecord, error) {
	i, err := txIdentity(tx, id)
	if err != nil {
		return i, twinRecord{}, err
	}
	data, err := tx.Get(id.twinKey())
	t, err := twinOf(id, data, err)
	return i, t, err
}

// configureIn applies to a twin the configurations that target it and, to that
// of a module, what a deployment has for it.
func (s *Server) configureIn(tx *store.Tx, i Identity, t twinRecord, all []*activeConfiguration, d deployment) error {
	targeting, err := s.targeting(all, i, t)
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
	var statuses map[string]configurationStatus
	if i.Module == edgeAgent {
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
	now := s.now()
	desired, refused := t.Desired.Patch(twin.Desired, patch, now)
	if refused != nil {
		// A value no twin can take: what was there stays.
		s.log.Warn("a configuration does not fit into a twin", logID, i.ID.String(), logReason, twinError(refused))
		patch, winners, paths = json.RawMessage(emptyPatch), nil, managed
	}
	if string(patch) != emptyPatch {
		setter := settersOf(winners)
		t.Desired = desired.WrittenBy(patch, func(property []string) (writer, digest string) {
			if l := setter(property); l != nil {
				return l.from.ID, ticks(l.from.Created)
			}
			return "", ""
		})
	}
	after := configurationStatuses(statuses, targeting, winners)
	if string(patch) == emptyPatch && bytes.Equal(after, t.Configurations) && maps.Equal(managed, paths) {
		return nil
	}
	t.Configurations = after
	if len(paths) > 0 {
		tx.Set(i.configuredKey(), mustMarshal(markedPaths(paths)))
	} else {
		tx.Delete(i.configuredKey())
	}
	s.writeConfigured(tx, i.ID, t, patch, configuring(winners), now)
	return nil
}

// emptyPatch changes nothing.
const emptyPatch = "{}"

// writeConfigured stores a twin whose desired properties patch has changed, and
// tells its device of it, and the reader of events who did it.
func (s *Server) writeConfigured(tx *store.Tx, id ID, t twinRecord, patch json.RawMessage, by string, now time.Time) {
	t.Version++
	if string(patch) == emptyPatch {
		t.store(tx, id)
		return
	}
	t.ETag++
	t.store(tx, id)
	notice := twinNotice{desired: patch, device: twin.WithVersion(patch, t.Desired.Version), by: by}
	tx.OnCommit(func() {
		s.metrics.twinWrite("configuration")
		s.twinWritten(id, t, notice, now)
		if c := s.connection(id); c != nil {
			c.sendDesired(t.Desired.Version, notice.device)
		}
	})
}

// targeting returns the configurations whose condition holds for a twin, from
// the one that counts least.
func (s *Server) targeting(all []*activeConfiguration, i Identity, t twinRecord) (list []*activeConfiguration, err error) {
	return s.targetingIf(all, i, t, func(c *activeConfiguration) bool {
		return !c.Content.edge() && c.Content.modules() == (i.Module != "")
	})
}

// targetingIf is targeting among the configurations for which among holds.
func (s *Server) targetingIf(all []*activeConfiguration, i Identity, t twinRecord, among func(*activeConfiguration) bool) (list []*activeConfiguration, err error) {
	var doc query.Text
	for _, c := range all {
		if c.target == nil || !among(c) {
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

// deployedMark stands before the paths that IoT Edge deployments have set.
const deployedMark = "edge/"

// managedPaths returns the paths that configurations have set in a twin, and
// whether it was an IoT Edge deployment.
func managedPaths(tx *store.Tx, id ID) (map[string]bool, error) {
	data, err := tx.Get(id.configuredKey())
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
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

// markedPaths returns what managedPaths reads.
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

// A configurationStatus is what a twin says of a configuration.
type configurationStatus struct {
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

// configurationStatuses returns the member "configurations" of a twin, or nil
// if there are none. The statuses of deployments are known already.
func configurationStatuses(deployed map[string]configurationStatus, targeting []*activeConfiguration, winners []layer) json.RawMessage {
	if len(targeting)+len(deployed) == 0 {
		return nil
	}
	statuses := make(map[string]configurationStatus, len(targeting)+len(deployed))
	maps.Copy(statuses, deployed)
	for _, c := range targeting {
		statuses[c.ID] = configurationStatus{configurationTargeted}
	}
	for _, l := range winners {
		if !l.from.Content.edge() {
			statuses[l.from.ID] = configurationStatus{configurationApplied}
		}
	}
	return mustMarshal(statuses)
}
