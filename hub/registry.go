package hub

import (
	"cmp"
	"iter"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
)

// A Match is the condition of an If-Match header. The zero Match is no
// condition.
type Match struct {
	Any  bool   // "*": whatever exists
	ETag string // this etag only
}

// None reports whether m is no condition.
func (m Match) None() bool { return !m.Any && m.ETag == "" }

// Limits of the registry, from "IoT Hub quotas and throttling".
const (
	MaxModulesPerDevice = 50
	maxStatusReason     = 128
)

// Identity returns a device or module identity.
func (s *Server) Identity(id ID) (Identity, error) {
	if id.Module != "" {
		if _, err := s.readIdentity(ID{Device: id.Device}); err != nil {
			return Identity{}, err
		}
	}
	return s.readIdentity(id)
}

func (s *Server) readIdentity(id ID) (Identity, error) {
	data, err := s.store.Get(id.identityKey())
	return decodeIdentity(id, data, err)
}

// PutIdentity creates the identity when m is no condition, and otherwise
// replaces what can be changed of it. Creating an identity creates its twin
// with it. A change that makes a live connection's credential invalid ends the
// connection.
//
// Errors: ErrArgumentInvalid, ErrDeviceAlreadyExists, ErrModuleAlreadyExists,
// ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed,
// ErrTooManyModules, ErrInvalidDeviceScope, ErrSystemModule.
func (s *Server) PutIdentity(id ID, spec IdentitySpec, m Match) (Identity, error) {
	if err := spec.validateFor(id); err != nil {
		return Identity{}, err
	}
	var result Identity
	err := s.Update(id.Device, func(tx *Tx) (err error) {
		if m.None() {
			result, err = tx.register(id, spec, nil)
		} else {
			result, err = tx.Update(id, spec, m)
		}
		return err
	})
	return result, err
}

// PutOwnModule is PutIdentity for the device of the module, which may do two
// things that services do not. It gives system modules, which it is born with,
// other credentials, and nothing else of them: IoT Edge does so whenever it
// starts (Azure/iotedge: edgelet/aziot-edged/src/watchdog.rs). And a managedBy
// that it does not give stays, since IoT Edge never gives one and its modules
// remain those of their deployment (assumed).
//
// Errors: those of PutIdentity.
func (s *Server) PutOwnModule(id ID, spec IdentitySpec, m Match) (Identity, error) {
	if m.None() {
		return s.PutIdentity(id, spec, m)
	}
	if err := cmp.Or(id.Validate(), spec.validate()); err != nil {
		return Identity{}, err
	}
	var result Identity
	err := s.Update(id.Device, func(tx *Tx) error {
		before, err := tx.Identity(id)
		if err != nil {
			return err
		}
		next := spec
		if id.isSystemModule() {
			next = before.Spec()
			next.Auth = spec.Auth
		}
		if next.ManagedBy == nil {
			next.ManagedBy = before.ManagedBy
		}
		result, err = tx.Update(id, next, m)
		return err
	})
	return result, err
}

// register is Create for callers, who may add a module if the device is there
// and has not too many.
func (tx *Tx) register(id ID, spec IdentitySpec, t *Twin) (Identity, error) {
	if id.Module != "" {
		if _, err := tx.Identity(ID{Device: id.Device}); err != nil {
			return Identity{}, err
		}
		modules, err := tx.moduleIDs(id.Device)
		if err != nil {
			return Identity{}, err
		}
		if len(modules) >= MaxModulesPerDevice {
			return Identity{}, ErrTooManyModules
		}
	}
	return tx.Create(id, spec, t)
}

// validateFor checks what the service's registry lets a caller say of id.
func (spec IdentitySpec) validateFor(id ID) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if id.isSystemModule() {
		return ErrSystemModule
	}
	return spec.validate()
}

func (spec IdentitySpec) validate() error {
	switch spec.Status {
	case "", StatusEnabled, StatusDisabled:
	default:
		return ErrArgumentInvalid.With("status must be enabled or disabled")
	}
	if spec.StatusReason != nil && len(*spec.StatusReason) > maxStatusReason {
		return ErrArgumentInvalid.With("statusReason must be at most %d bytes", maxStatusReason)
	}
	return spec.Auth.validate()
}

// RegenerateKeys gives a device or module a new primary key, secondary key or
// both. A connection that was made with a key that is gone ends.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrInvalidOperation (the
// identity does not use keys).
func (s *Server) RegenerateKeys(id ID, primary, secondary bool) (Identity, error) {
	var result Identity
	err := s.Update(id.Device, func(tx *Tx) (err error) {
		result, err = tx.regenerate(id, primary, secondary)
		return err
	})
	return result, err
}

// DeleteIdentity removes an identity with its twin, and a device's modules
// with it, and ends their connections.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed,
// ErrSystemModule.
func (s *Server) DeleteIdentity(id ID, m Match) error {
	if id.isSystemModule() {
		return ErrSystemModule
	}
	return s.Update(id.Device, func(tx *Tx) error { return tx.Delete(id, m) })
}

// Devices returns the device identities in the order of their ids.
func (s *Server) Devices() iter.Seq2[Identity, error] { return s.identities([]byte(disk.Device)) }

// Modules returns the module identities of a device in the order of their ids.
//
// Errors: ErrDeviceNotFound.
func (s *Server) Modules(device string) ([]Identity, error) {
	if _, err := s.readIdentity(ID{Device: device}); err != nil {
		return nil, err
	}
	list := []Identity{}
	for i, err := range s.identities(disk.Below(disk.Module, device)) {
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, nil
}

func (s *Server) identities(prefix []byte) iter.Seq2[Identity, error] {
	return store.Seq(func(yield func(Identity) error) error {
		return s.store.Scan(prefix, store.PrefixEnd(prefix), func(k, v []byte) error {
			i, err := decodeIdentity(keyID(k), v, nil)
			if err != nil {
				return err
			}
			return yield(i)
		})
	})
}

// keyID returns the identity of an identity key or twin key.
func keyID(key []byte) ID {
	for _, prefix := range []string{disk.Device, disk.Module, disk.DeviceTwin, disk.ModuleTwin} {
		if rest, ok := strings.CutPrefix(string(key), prefix); ok {
			return parseID(rest)
		}
	}
	return ID{}
}
