package configurations

import (
	"errors"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/twin"
)

// IoT Edge deployments are the configurations with modulesContent; see
// "Understand IoT Edge automatic deployments for single devices or at scale".
// A base deployment says all that a device's modules are to be, so that only
// one counts for a device. Layered deployments add to it.

// base reports whether the content is a base deployment: it sets all of what a
// system module is to be.
func (c *Content) base() bool {
	for _, name := range hub.EdgeModules {
		if _, ok := c.Modules[name][desiredPath]; ok {
			return true
		}
	}
	return false
}

// validateModules checks the content of a deployment.
func (c *Content) validateModules() error {
	for module, paths := range c.Modules {
		if !hub.ValidName(module) {
			return hub.ErrConfigurationContent.With("module id '%s' is not valid", words.Clip(module))
		}
		if err := c.validatePaths(module, paths); err != nil {
			return err
		}
	}
	names, err := deployment{applied: []*active{c.alone()}}.modules()
	if err == nil && len(names) > hub.MaxModulesPerDevice {
		err = errTooManyModules
	}
	return err
}

// edgeCondition returns the condition of a deployment, which is for IoT Edge
// devices only.
func (spec *Spec) edgeCondition() string {
	const edge = "capabilities.iotEdge = true"
	if condition := strings.TrimSpace(spec.TargetCondition); condition != "*" {
		return edge + " and (" + condition + ")"
	}
	return edge
}

// deploymentQueries are systemQueries of an IoT Edge deployment.
func (c Configuration) deploymentQueries() map[string]string {
	targeted := ""
	if strings.TrimSpace(c.TargetCondition) != "" {
		targeted = "select deviceId from devices where " + c.edgeCondition()
	}
	applied := "select deviceId from devices.modules where moduleId = '$edgeAgent' and configurations.[[" + c.ID + "]].status = 'Applied'"
	reported := applied + " and properties.desired.$version = properties.reported.lastDesiredVersion and properties.reported.lastDesiredStatus.code "
	return map[string]string{
		"targetedCount":           targeted,
		"appliedCount":            applied,
		"reportedSuccessfulCount": reported + "= 200",
		"reportedFailedCount":     reported + "!= 200",
	}
}

// A deployment is what the deployments are for one device. The zero deployment
// is that of a device without any.
type deployment struct {
	targeting []*active // the condition holds, from the one that counts least
	applied   []*active // of these the base that counts, and what is layered above it
	ranks     map[*active]int

	missing []hub.ID // modules that the device lacks
	gone    []hub.ID // modules that an earlier deployment made and this one does not name
}

// deploymentOf returns the deployment of a device.
func (e *Engine) deploymentOf(all []*active, i hub.Identity, t hub.Twin) (d deployment, err error) {
	if !i.IoTEdge {
		return d, nil
	}
	d.targeting, err = e.targetingIf(all, i, t, func(c *active) bool { return c.Content.edge() })
	if err != nil {
		return d, err
	}
	d.ranks = make(map[*active]int)
	for rank, c := range all {
		d.ranks[c] = rank
	}
	for n, c := range slices.Backward(d.targeting) {
		if !c.Content.base() {
			continue
		}
		d.applied = []*active{c}
		for _, above := range d.targeting[n+1:] {
			// "Must have a higher priority": the same is not enough.
			if above.Priority > c.Priority {
				d.applied = append(d.applied, above)
			}
		}
		break
	}
	if len(d.applied) == 0 {
		return d, nil
	}
	err = e.planModules(&d, i.Device, true)
	var refused *hub.Error
	if errors.As(err, &refused) {
		e.log.Warn("a deployment does not fit on a device", words.LogID, i.Device, words.LogReason, refused)
		d.applied, err = nil, nil
	}
	return d, err
}

// layers returns what a deployment sets in the twin of a module.
func (d deployment) layers(module string) (layers []layer) {
	for _, c := range d.applied {
		for path, value := range c.Content.Modules[module] {
			layers = append(layers, layer{c, d.ranks[c], path, value})
		}
	}
	return layers
}

// shownIn returns the deployments that the twin of a module tells of: that of
// $edgeAgent, which metrics count, of all that target the device; others of
// those that have something for the module (assumed).
func (d deployment) shownIn(module string) []*active {
	if module == hub.EdgeAgent {
		return d.targeting
	}
	var list []*active
	for _, c := range d.targeting {
		if _, ok := c.Content.Modules[module]; ok {
			list = append(list, c)
		}
	}
	return list
}

// modules returns the ids of the modules that a device is to have: the system
// modules, those that $edgeAgent is to run, and those whose twin is set.
func (d deployment) modules() ([]string, error) {
	tree, err := merged(make(map[string]any), winningLayers(d.layers(hub.EdgeAgent)))
	if err != nil {
		return nil, err
	}
	names := slices.Clone(hub.EdgeModules)
	run, _ := tree["modules"].(map[string]any)
	for name := range run {
		if !hub.ValidName(name) {
			return nil, hub.ErrConfigurationContent.With("module id '%s' is not valid", words.Clip(name))
		}
		names = append(names, name)
	}
	for _, c := range d.applied {
		for name := range c.Content.Modules {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// deploy gives an IoT Edge device the modules of its deployment, and all its
// modules' twins what configurations have for them.
func (e *Engine) deploy(tx *hub.Tx, i hub.Identity, t hub.Twin, all []*active) error {
	if !i.IoTEdge || e.state.count(true) == 0 {
		return nil
	}
	d, err := e.deploymentOf(all, i, t)
	if err != nil {
		return err
	}
	if err := e.changeModules(tx, d); err != nil {
		return err
	}
	names, err := d.modules()
	if err != nil {
		return err
	}
	modules, err := e.hub.Modules(i.Device)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if !slices.Contains(names, m.Module) {
			names = append(names, m.Module)
		}
	}
	for _, name := range names {
		id := hub.ID{Device: i.Device, Module: name}
		module, moduleTwin, err := both(tx, id)
		if gone(err) {
			continue // changeModules has deleted it
		}
		if err != nil {
			return err
		}
		if err := e.configureIn(tx, module, moduleTwin, all, d); err != nil {
			return err
		}
	}
	return nil
}

// planModules says which module identities a deployment brings, and if it says
// all that is to be, which end with it.
func (e *Engine) planModules(d *deployment, device string, everything bool) error {
	names, err := d.modules()
	if err != nil {
		return err
	}
	total := len(names)
	modules, err := e.hub.Modules(device)
	for _, m := range modules {
		named := slices.Index(names, m.Module)
		switch {
		case named >= 0:
			names = slices.Delete(names, named, named+1)
		case everything && m.ManagedBy != nil && *m.ManagedBy == hub.EdgeManager:
			d.gone = append(d.gone, m.ID)
		default:
			total++
		}
	}
	if err == nil && total > hub.MaxModulesPerDevice {
		err = hub.ErrTooManyModules
	}
	for _, name := range names {
		d.missing = append(d.missing, hub.ID{Device: device, Module: name})
	}
	return err
}

// changeModules does what planModules says.
func (e *Engine) changeModules(tx *hub.Tx, d deployment) error {
	if len(d.applied) == 0 {
		return nil
	}
	for _, id := range d.gone {
		if err := tx.Delete(id, hub.Match{}); err != nil && !gone(err) {
			return err
		}
	}
	manager := hub.EdgeManager
	for _, id := range d.missing {
		if _, err := tx.Create(id, hub.IdentitySpec{ManagedBy: &manager}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Apply makes the modules of an IoT Edge device what the
// modulesContent says, once and without a configuration that goes on doing so.
// Where it sets all of "properties.desired" of a system module, the modules
// that an earlier deployment made and that it does not name are deleted. Paths
// that lead on from there are merged. Configurations that target the device
// have the last word.
//
// Errors: ErrDeviceNotFound, ErrConfigurationContent, ErrTooManyModules,
// ErrTwinTooLarge.
func (e *Engine) Apply(device string, content Content) error {
	err := content.validate()
	err = e.hub.Update(device, func(tx *hub.Tx) error {
		i, txErr := tx.Identity(hub.ID{Device: device})
		switch {
		case txErr != nil:
			return txErr
		case err != nil:
			return err
		case !content.edge():
			return hub.ErrConfigurationContent.With("only modulesContent can be applied to one device")
		case !i.IoTEdge:
			return hub.ErrConfigurationContent.With("device '%s' is not an IoT Edge device", device)
		}
		d := deployment{applied: []*active{content.alone()}}
		if err := e.planModules(&d, device, content.base()); err != nil {
			return err
		}
		if err := e.changeModules(tx, d); err != nil {
			return err
		}
		for name := range content.Modules {
			id := hub.ID{Device: device, Module: name}
			_, t, err := both(tx, id)
			if err != nil {
				return err
			}
			patch, err := configuredPatch(t.Desired.Properties, nil, winningLayers(d.layers(name)))
			if err != nil {
				return err
			}
			if t.Desired, err = t.Desired.Patch(twin.Desired, patch, tx.Now()); err != nil {
				return hub.TwinError(err)
			}
			if string(patch) != emptyPatch {
				putTwin(tx, id, &t, patch, "a deployment")
			}
		}
		return nil
	})
	if err == nil {
		e.state.touch(hub.ID{Device: device}) // for what others set
	}
	return err
}
