package hub

import (
	"errors"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// IoT Edge deployments are the configurations with modulesContent; see
// "Understand IoT Edge automatic deployments for single devices or at scale".
// A base deployment says all that a device's modules are to be, so that only
// one counts for a device. Layered deployments add to it.

// base reports whether the content is a base deployment: it sets all of what a
// system module is to be.
func (c *ConfigurationContent) base() bool {
	for _, name := range edgeModules {
		if _, ok := c.Modules[name][desiredPath]; ok {
			return true
		}
	}
	return false
}

// validateModules checks the content of a deployment.
func (c *ConfigurationContent) validateModules() error {
	for module, paths := range c.Modules {
		if !idPattern.MatchString(module) {
			return ErrConfigurationContent.with("module id '%s' is not valid", clip(module))
		}
		for path, value := range paths {
			rest, ok := strings.CutPrefix(path, desiredPath)
			below, dotted := strings.CutPrefix(rest, ".")
			switch {
			case !ok || dotted && slices.Contains(strings.Split(below, "."), "") || !dotted && rest != "":
				return ErrConfigurationContent.with("module '%s': path '%s' must be '%s' or like '%s.interval'", clip(module), clip(path), desiredPath, desiredPath)
			case rest == "" && (len(value) == 0 || value[0] != '{'):
				return ErrConfigurationContent.with("module '%s': %s must be an object", clip(module), desiredPath)
			}
		}
		if err := c.fit(module, paths); err != nil {
			return err
		}
	}
	names, err := deployment{applied: []*activeConfiguration{c.alone()}}.modules()
	if err == nil && len(names) > maxModulesPerDevice {
		err = ErrConfigurationContent.with("an IoT Edge device has at most %d modules", maxModulesPerDevice)
	}
	return err
}

// edgeCondition returns the condition of a deployment, which is for IoT Edge
// devices only.
func (spec *ConfigurationSpec) edgeCondition() string {
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
	targeting []*activeConfiguration // the condition holds, from the one that counts least
	applied   []*activeConfiguration // of these the base that counts, and what is layered above it
	ranks     map[*activeConfiguration]int

	missing []ID // modules that the device lacks
	gone    []ID // modules that an earlier deployment made and this one does not name
}

// deploymentOf returns the deployment of a device.
func (s *Server) deploymentOf(all []*activeConfiguration, i Identity, t twinRecord) (d deployment, err error) {
	if !i.IoTEdge {
		return d, nil
	}
	d.targeting, err = s.targetingIf(all, i, t, func(c *activeConfiguration) bool { return c.Content.edge() })
	if err != nil {
		return d, err
	}
	d.ranks = make(map[*activeConfiguration]int)
	for rank, c := range all {
		d.ranks[c] = rank
	}
	for n, c := range slices.Backward(d.targeting) {
		if !c.Content.base() {
			continue
		}
		d.applied = []*activeConfiguration{c}
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
	err = s.planModules(&d, i.Device, true)
	var refused *Error
	if errors.As(err, &refused) {
		s.log.Warn("a deployment does not fit on a device", logID, i.Device, logReason, refused)
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

// statuses returns what the twin of $edgeAgent says of the deployments.
func (d deployment) statuses() map[string]configurationStatus {
	statuses := make(map[string]configurationStatus, len(d.targeting))
	for _, c := range d.targeting {
		statuses[c.ID] = configurationStatus{configurationTargeted}
	}
	for _, c := range d.applied {
		statuses[c.ID] = configurationStatus{configurationApplied}
	}
	return statuses
}

// modules returns the ids of the modules that a device is to have: the system
// modules, those that $edgeAgent is to run, and those whose twin is set.
func (d deployment) modules() ([]string, error) {
	tree, err := merged(make(map[string]any), winningLayers(d.layers(edgeAgent)))
	if err != nil {
		return nil, err
	}
	names := slices.Clone(edgeModules)
	run, _ := tree["modules"].(map[string]any)
	for name := range run {
		if !idPattern.MatchString(name) {
			return nil, ErrConfigurationContent.with("module id '%s' is not valid", clip(name))
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
func (s *Server) deploy(tx *store.Tx, i Identity, t twinRecord, all []*activeConfiguration) error {
	if !i.IoTEdge || s.configurations.count(true) == 0 {
		return nil
	}
	d, err := s.deploymentOf(all, i, t)
	if err != nil {
		return err
	}
	if err := s.changeModules(tx, d); err != nil {
		return err
	}
	names, err := d.modules()
	if err != nil {
		return err
	}
	err = s.scanIdentities(modulePrefix+i.Device+"/", 0, func(m Identity) error {
		if !slices.Contains(names, m.Module) {
			names = append(names, m.Module)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		id := ID{Device: i.Device, Module: name}
		module, moduleTwin, err := txTwin(tx, id)
		if errors.Is(err, id.notFound()) {
			continue // changeModules has deleted it
		}
		if err != nil {
			return err
		}
		if err := s.configureIn(tx, module, moduleTwin, all, d); err != nil {
			return err
		}
	}
	return nil
}

// edgeManager is what the registry says of the modules that a deployment made.
var edgeManager = "IotEdge"

// planModules says which module identities a deployment brings, and if it says
// all that is to be, which end with it.
func (s *Server) planModules(d *deployment, device string, everything bool) error {
	names, err := d.modules()
	if err != nil {
		return err
	}
	total := len(names)
	err = s.scanIdentities(modulePrefix+device+"/", 0, func(m Identity) error {
		named := slices.Index(names, m.Module)
		switch {
		case named >= 0:
			names = slices.Delete(names, named, named+1)
		case everything && m.ManagedBy != nil && *m.ManagedBy == edgeManager:
			d.gone = append(d.gone, m.ID)
		default:
			total++
		}
		return nil
	})
	if err == nil && total > maxModulesPerDevice {
		err = ErrTooManyModules
	}
	for _, name := range names {
		d.missing = append(d.missing, ID{Device: device, Module: name})
	}
	return err
}

// changeModules does what planModules says.
func (s *Server) changeModules(tx *store.Tx, d deployment) error {
	if len(d.applied) == 0 {
		return nil
	}
	for _, id := range d.gone {
		s.deleteIdentity(tx, id)
	}
	for _, id := range d.missing {
		if _, err := s.addIdentity(tx, id, IdentitySpec{ManagedBy: &edgeManager}); err != nil {
			return err
		}
	}
	return nil
}

// ApplyConfigurationContent makes the modules of an IoT Edge device what the
// modulesContent says, once and without a configuration that goes on doing so.
// Where it sets all of "properties.desired" of a system module, the modules
// that an earlier deployment made and that it does not name are deleted. Paths
// that lead on from there are merged. Configurations that target the device
// have the last word.
//
// Errors: ErrDeviceNotFound, ErrConfigurationContent, ErrTooManyModules,
// ErrTwinTooLarge.
func (s *Server) ApplyConfigurationContent(device string, content ConfigurationContent) error {
	err := content.validate()
	return s.store.Update(device, func(tx *store.Tx) error {
		i, txErr := txIdentity(tx, ID{Device: device})
		switch {
		case txErr != nil:
			return txErr
		case err != nil:
			return err
		case !content.edge():
			return ErrConfigurationContent.with("only modulesContent can be applied to one device")
		case !i.IoTEdge:
			return ErrConfigurationContent.with("device '%s' is not an IoT Edge device", device)
		}
		d := deployment{applied: []*activeConfiguration{content.alone()}}
		if err := s.planModules(&d, device, content.base()); err != nil {
			return err
		}
		if err := s.changeModules(tx, d); err != nil {
			return err
		}
		now := s.now()
		for name := range content.Modules {
			id := ID{Device: device, Module: name}
			_, t, err := txTwin(tx, id)
			if err != nil {
				return err
			}
			patch, err := configuredPatch(t.Desired.Properties, nil, winningLayers(d.layers(name)))
			if err != nil {
				return err
			}
			if t.Desired, err = t.Desired.Patch(twin.Desired, patch, now); err != nil {
				return twinError(err)
			}
			if string(patch) != emptyPatch {
				s.writeConfigured(tx, id, t, patch, "a deployment", now)
			}
		}
		tx.OnCommit(func() { s.configurations.touch(ID{Device: device}) })
		return nil
	})
}
