package hub

import (
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/words"
)

// edgeScope begins the scope of an IoT Edge device. Its id, "-" and its
// generation id follow. See "Understand how IoT Edge gateways and devices are
// related: parent and child relationships".
const edgeScope = "ms-azure-iot-edge://"

// EdgeAgent is the system module whose desired properties say which modules an
// IoT Edge device runs.
const EdgeAgent = "$edgeAgent"

// EdgeModules are the system modules that an IoT Edge device is born with.
var EdgeModules = []string{EdgeAgent, "$edgeHub"}

// isSystemModule reports whether id is a module that only IoT Edge itself may
// change.
func (id ID) isSystemModule() bool { return slices.Contains(EdgeModules, id.Module) }

func (i Identity) ownScope() string { return edgeScope + i.Device + "-" + i.GenerationID }

// settleEdge settles what of a device concerns IoT Edge: whether it is an edge
// device, and whose child it is. A new device has no before.
func (tx *Tx) settleEdge(i *Identity, spec IdentitySpec, before Identity) error {
	if i.Module != "" {
		return nil
	}
	i.IoTEdge = spec.IoTEdge
	if i.IoTEdge != before.IoTEdge {
		modules, err := tx.moduleIDs(i.Device)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(modules, func(id ID) bool { return !id.isSystemModule() }) {
			return ErrInvalidOperation.With("capabilities.iotEdge cannot change while the device has modules")
		}
	}
	parents := slices.DeleteFunc(slices.Clone(spec.ParentScopes), func(scope string) bool { return scope == "" })
	if i.IoTEdge {
		i.DeviceScope = i.ownScope()
	} else {
		if spec.DeviceScope != "" {
			parents = []string{spec.DeviceScope}
		}
		// A device that was an edge device still sends its own scope.
		parents = slices.DeleteFunc(parents, func(scope string) bool { return scope == i.ownScope() })
		i.DeviceScope = ""
		if len(parents) > 0 {
			i.DeviceScope = parents[0]
		}
	}
	if len(parents) > 1 {
		return ErrInvalidDeviceScope.With("a device can have one parent only")
	}
	// A parent that is gone must not keep its child from being changed.
	if !spec.anyScope && !slices.Equal(parents, before.ParentScopes) {
		for _, scope := range parents {
			if err := tx.checkScope(*i, scope); err != nil {
				return err
			}
		}
	}
	i.ParentScopes = parents
	return nil
}

// checkScope refuses a scope that is not that of another, existing edge device.
func (tx *Tx) checkScope(child Identity, scope string) error {
	name, ok := strings.CutPrefix(scope, edgeScope)
	dash := strings.LastIndexByte(name, '-')
	if !ok || dash <= 0 {
		return ErrInvalidDeviceScope.With("'%s' is not the scope of an IoT Edge device", words.Clip(scope))
	}
	parent, err := tx.Identity(ID{Device: name[:dash]})
	if err != nil || !parent.IoTEdge || parent.DeviceScope != scope || parent.Device == child.Device {
		return ErrInvalidDeviceScope
	}
	return nil
}

// EdgeManager is what the registry says of the modules that IoT Edge, or a
// deployment for it, made.
const EdgeManager = "IotEdge"

// switchEdge makes or removes the system modules of a device that begins or
// ends being an IoT Edge device. They are registered and deleted as others are,
// with an event of each: what the service sends for them is not known.
func (tx *Tx) switchEdge(i, before Identity) {
	if i.IoTEdge == before.IoTEdge {
		return
	}
	manager := EdgeManager
	for _, name := range EdgeModules {
		id := ID{Device: i.Device, Module: name}
		if !i.IoTEdge {
			tx.remove(id)
			continue
		}
		m := Identity{ID: id, GenerationID: i.GenerationID, Version: firstVersion()}
		m.apply(IdentitySpec{ManagedBy: &manager})
		tx.add(m, nil)
	}
}
