package configurations

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/twin"
)

// The statuses of a configuration in a twin. Each twin has its own: a layered
// deployment that sets nothing but properties of a module is applied in the twin
// of that and targeted in that of $edgeAgent, where the metrics look (iotedge
// issues 5023 and 5299, where the service's team says that it is by design). One
// whose paths others set is targeted: the lower of two layered deployments with
// "properties.desired.modules" (iotedge issue 4935).
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
		tx.Store.OnCommit(e.compared.Inc)
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
	before, err := readSettings(tx.Store, i.ID)
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
	shown := append(d.shownIn(i.Module), targeting...)
	if len(shown)+len(layers)+len(before)+len(t.Configurations) == 0 {
		return nil
	}
	winners := winningLayers(layers)
	made := settingsOf(winners)
	for s := range before {
		if s.by == byDeployment && len(d.applied) == 0 {
			made[s] = true // it stays until another deployment takes its place
		}
	}
	patch, err := configuredPatch(t.Desired.Properties, before.without(made, winners), winners)
	if err != nil {
		return err
	}
	desired, refused := t.Desired.Patch(twin.Desired, patch, tx.Now())
	if refused != nil {
		// A value no twin can take: what was there stays.
		e.log.Warn("a configuration does not fit into a twin", words.LogID, i.ID.String(), words.LogReason, refused)
		patch, winners, made = json.RawMessage(emptyPatch), nil, before
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
	after := statusesOf(shown, winners)
	if !maps.Equal(before, made) {
		made.write(tx.Store, i.ID)
	}
	if string(patch) == emptyPatch && bytes.Equal(after, t.Configurations) {
		return nil
	}
	t.Configurations = after
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

// statusesOf returns the member "configurations" of a twin that shows these, or
// nil if there are none.
func statusesOf(shown []*active, winners []layer) json.RawMessage {
	if len(shown) == 0 {
		return nil
	}
	statuses := make(map[string]status, len(shown))
	for _, c := range shown {
		statuses[c.ID] = status{targeted}
	}
	for _, l := range winners {
		statuses[l.from.ID] = status{applied}
	}
	return words.MustMarshal(statuses)
}
