package hub

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hub/store"
)

// edgeScope begins the scope of an IoT Edge device. Its id, "-" and its
// generation id follow. See "Understand how IoT Edge gateways and devices are
// related: parent and child relationships".
const edgeScope = "ms-azure-iot-edge://"

// edgeAgent is the system module whose desired properties say which modules an
// IoT Edge device runs.
const edgeAgent = "$edgeAgent"

// edgeModules are the system modules that an IoT Edge device is born with.
var edgeModules = []string{edgeAgent, "$edgeHub"}

// isSystemModule reports whether id is a module that only IoT Edge itself may
// change.
func (id ID) isSystemModule() bool { return slices.Contains(edgeModules, id.Module) }

func (i Identity) ownScope() string { return edgeScope + i.Device + "-" + i.GenerationID }

// applyEdge settles what of a device concerns IoT Edge: whether it is an edge
// device, with a scope and system modules of its own, and whose child it is.
// A new device has no before.
func (s *Server) applyEdge(tx *store.Tx, i *Identity, spec IdentitySpec, before Identity) error {
	if i.Module != "" {
		return nil
	}
	i.IoTEdge = spec.IoTEdge
	if i.IoTEdge != before.IoTEdge {
		if err := s.switchEdge(tx, *i); err != nil {
			return err
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
		return ErrInvalidDeviceScope.with("a device can have one parent only")
	}
	// A parent that is gone must not keep its child from being changed.
	if !slices.Equal(parents, before.ParentScopes) {
		for _, scope := range parents {
			if err := s.checkScope(tx, *i, scope); err != nil {
				return err
			}
		}
	}
	i.ParentScopes = parents
	return nil
}

// checkScope refuses a scope that is not that of another, existing edge device.
func (s *Server) checkScope(tx *store.Tx, child Identity, scope string) error {
	name, ok := strings.CutPrefix(scope, edgeScope)
	dash := strings.LastIndexByte(name, '-')
	if !ok || dash <= 0 {
		return ErrInvalidDeviceScope.with("'%s' is not the scope of an IoT Edge device", clip(scope))
	}
	parent, err := txIdentity(tx, ID{Device: name[:dash]})
	if err != nil || !parent.IoTEdge || parent.DeviceScope != scope || parent.Device == child.Device {
		return ErrInvalidDeviceScope
	}
	return nil
}

// switchEdge makes or removes the system modules of a device that begins or
// ends being an IoT Edge device. That is refused while it has other modules.
func (s *Server) switchEdge(tx *store.Tx, i Identity) error {
	modules := 0
	prefix := modulePrefix + i.Device + "/"
	err := s.scanIdentities(prefix, 0, func(m Identity) error {
		if !m.isSystemModule() {
			modules++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if modules > 0 {
		return ErrInvalidOperation.with("capabilities.iotEdge cannot change while the device has modules")
	}
	for _, name := range edgeModules {
		id := ID{Device: i.Device, Module: name}
		if !i.IoTEdge {
			s.deleteIdentity(tx, id)
			continue
		}
		m := Identity{ID: id, GenerationID: i.GenerationID, Version: firstVersion()}
		m.apply(IdentitySpec{ManagedBy: &edgeManager})
		if err := writeIdentity(tx, m); err != nil {
			return err
		}
		t := newTwin(id, s.now())
		t.store(tx, id)
	}
	return nil
}

// firstVersion is the number behind a new identity's etag: random, as in the
// service, so that the etag of an identity does not fit its successor.
func firstVersion() uint64 { return 100_000_000 + rand.Uint64N(400_000_000) }
