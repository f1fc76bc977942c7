package hub

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
	"github.com/iotdm/iotdm/twin"
)

// Status says whether an identity may connect.
type Status string

// The two statuses of an identity.
const (
	StatusEnabled  Status = "enabled"
	StatusDisabled Status = "disabled"
)

// AuthType says how an identity authenticates.
type AuthType string

// The authentication types of the identity registry.
const (
	AuthSAS                  AuthType = "sas"
	AuthSelfSigned           AuthType = "selfSigned"
	AuthCertificateAuthority AuthType = "certificateAuthority"
	AuthNone                 AuthType = "none"
)

// Authentication is an identity's credentials. The order of the members is
// part of the wire format: the C# SDK reads "type" wrongly when it stands
// before the keys.
type Authentication struct {
	SymmetricKey SymmetricKey   `json:"symmetricKey"`
	X509         X509Thumbprint `json:"x509Thumbprint"`
	Type         AuthType       `json:"type"`
}

// SymmetricKey holds the two keys of an identity that uses shared access
// signatures; both are valid at all times.
type SymmetricKey struct {
	Primary   sas.Key
	Secondary sas.Key
}

// MarshalJSON prints absent keys as null, as the service does.
func (k SymmetricKey) MarshalJSON() ([]byte, error) {
	null := func(k sas.Key) *sas.Key {
		if k == "" {
			return nil
		}
		return &k
	}
	return json.Marshal(struct {
		Primary   *sas.Key `json:"primaryKey"`
		Secondary *sas.Key `json:"secondaryKey"`
	}{null(k.Primary), null(k.Secondary)})
}

// UnmarshalJSON reads what MarshalJSON writes; null and "" are absent keys.
func (k *SymmetricKey) UnmarshalJSON(data []byte) error {
	var v struct {
		Primary   sas.Key `json:"primaryKey"`
		Secondary sas.Key `json:"secondaryKey"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	*k = SymmetricKey(v)
	return nil
}

// X509Thumbprint holds the SHA-1 or SHA-256 thumbprints, in hexadecimal, of an
// identity with self-signed certificates.
type X509Thumbprint struct {
	Primary   *string `json:"primaryThumbprint"`
	Secondary *string `json:"secondaryThumbprint"`
}

// An Identity is a device or module as the registry keeps it. What the service
// calls connection state is not part of it: see Server.ConnectionState.
type Identity struct {
	ID            `json:"-"`
	GenerationID  string         `json:"generationId"`
	Version       uint64         `json:"version"` // the number behind the etag
	Status        Status         `json:"status"`
	StatusReason  *string        `json:"statusReason"`
	StatusUpdated time.Time      `json:"statusUpdated"` // zero until the status first changes
	Auth          Authentication `json:"authentication"`
	IoTEdge       bool           `json:"iotEdge"`
	ManagedBy     *string        `json:"managedBy"` // modules only
	DeviceScope   string         `json:"deviceScope"`
	ParentScopes  []string       `json:"parentScopes"`
}

// ETag returns the identity's etag, without quotes.
func (i Identity) ETag() string {
	return base64.StdEncoding.EncodeToString(strconv.AppendUint(nil, i.Version, 10))
}

// An IdentitySpec is what a caller may say of an identity. Zero values mean
// what the service does with a member that is absent.
type IdentitySpec struct {
	Status       Status
	StatusReason *string
	Auth         Authentication
	IoTEdge      bool
	ManagedBy    *string

	// DeviceScope is the scope of a device's parent. It is ignored for an IoT
	// Edge device, which has a scope of its own, and names its parent in
	// ParentScopes. ParentScopes of another device count if DeviceScope is
	// empty.
	DeviceScope  string
	ParentScopes []string
}

// A Match is the condition of an If-Match header. The zero Match is no
// condition.
type Match struct {
	Any  bool   // "*": whatever exists
	ETag string // this etag only
}

func (m Match) none() bool { return !m.Any && m.ETag == "" }

// Limits of the registry, from "IoT Hub quotas and throttling".
const (
	maxModulesPerDevice = 50
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

// decodeIdentity turns the result of a Get into an identity.
func decodeIdentity(id ID, data []byte, err error) (Identity, error) {
	if errors.Is(err, store.ErrNotFound) {
		return Identity{}, id.notFound()
	}
	if err != nil {
		return Identity{}, err
	}
	i := Identity{ID: id}
	if err := json.Unmarshal(data, &i); err != nil {
		return Identity{}, err
	}
	return i, nil
}

func writeIdentity(tx *store.Tx, i Identity) error {
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	tx.Set(i.identityKey(), data)
	return nil
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
	err := s.store.Update(id.Device, func(tx *store.Tx) (err error) {
		if m.none() {
			result, err = s.createIdentity(tx, id, spec)
		} else {
			result, err = s.updateIdentity(tx, id, spec, m)
		}
		return err
	})
	return result, err
}

func (s *Server) createIdentity(tx *store.Tx, id ID, spec IdentitySpec) (Identity, error) {
	if id.Module != "" {
		if _, err := txIdentity(tx, ID{Device: id.Device}); err != nil {
			return Identity{}, err
		}
		n, err := s.countModules(id.Device)
		if err != nil {
			return Identity{}, err
		}
		if n >= maxModulesPerDevice {
			return Identity{}, ErrTooManyModules
		}
	}
	return s.addIdentity(tx, id, spec)
}

// addIdentity is createIdentity without a limit. A module's device must be there.
func (s *Server) addIdentity(tx *store.Tx, id ID, spec IdentitySpec) (Identity, error) {
	switch _, err := tx.Get(id.identityKey()); {
	case err == nil && id.Module == "":
		return Identity{}, ErrDeviceAlreadyExists.with("A device with ID '%s' is already registered.", id.Device)
	case err == nil:
		return Identity{}, ErrModuleAlreadyExists.with("Device %s already contains Module %s.", id.Device, id.Module)
	case !errors.Is(err, store.ErrNotFound):
		return Identity{}, err
	}
	now := s.now().UTC()
	i := Identity{
		ID:           id,
		GenerationID: ticks(now),
		Version:      firstVersion(),
	}
	i.apply(spec)
	if err := s.applyEdge(tx, &i, spec, Identity{}); err != nil {
		return Identity{}, err
	}
	if err := writeIdentity(tx, i); err != nil {
		return Identity{}, err
	}
	t := newTwin(id, now)
	t.store(tx, id)
	tx.OnCommit(func() {
		s.configurations.touch(id)
		s.identityChanged(id, "createDeviceIdentity", t)
	})
	return i, nil
}

func (s *Server) updateIdentity(tx *store.Tx, id ID, spec IdentitySpec, m Match) (Identity, error) {
	i, err := txIdentity(tx, id)
	if err != nil {
		return Identity{}, err
	}
	if m.ETag != "" && m.ETag != i.ETag() {
		return Identity{}, ErrPreconditionFailed
	}
	before := i
	i.Version++
	i.apply(spec)
	if i.Status != before.Status {
		i.StatusUpdated = s.now().UTC()
	}
	if err := s.applyEdge(tx, &i, spec, before); err != nil {
		return Identity{}, err
	}
	if err := writeIdentity(tx, i); err != nil {
		return Identity{}, err
	}
	tx.OnCommit(func() {
		s.configurations.touch(id)
		s.recheckLinks(id)
	})
	return i, nil
}

func txIdentity(tx *store.Tx, id ID) (Identity, error) {
	data, err := tx.Get(id.identityKey())
	return decodeIdentity(id, data, err)
}

// validateFor checks what the service's registry lets a caller say of id.
func (spec IdentitySpec) validateFor(id ID) error {
	if err := id.validate(); err != nil {
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
		return ErrArgumentInvalid.with("status must be enabled or disabled")
	}
	if spec.StatusReason != nil && len(*spec.StatusReason) > maxStatusReason {
		return ErrArgumentInvalid.with("statusReason must be at most %d bytes", maxStatusReason)
	}
	return spec.Auth.validate()
}

func (a Authentication) validate() error {
	keys := a.SymmetricKey
	switch a.effectiveType() {
	case AuthSAS:
		if (keys.Primary == "") != (keys.Secondary == "") {
			return ErrArgumentInvalid.with("a symmetricKey needs both keys, or neither to have the hub make them")
		}
		for _, k := range []sas.Key{keys.Primary, keys.Secondary} {
			if k == "" {
				continue
			}
			if err := k.Validate(); err != nil {
				return ErrArgumentInvalid.with("symmetricKey: %v", err)
			}
		}
	case AuthSelfSigned:
		if empty(a.X509.Primary) {
			return ErrArgumentInvalid.with("a selfSigned identity needs a primaryThumbprint")
		}
		for _, t := range []*string{a.X509.Primary, a.X509.Secondary} {
			if !empty(t) && !isThumbprint(*t) {
				return ErrArgumentInvalid.with("a thumbprint must be 40 or 64 hexadecimal digits")
			}
		}
	case AuthCertificateAuthority, AuthNone:
	default:
		return ErrArgumentInvalid.with("authentication type must be sas, selfSigned, certificateAuthority or none")
	}
	return nil
}

// effectiveType is the type that the service takes when none is given.
func (a Authentication) effectiveType() AuthType {
	if a.Type != "" {
		for _, t := range []AuthType{AuthSAS, AuthSelfSigned, AuthCertificateAuthority, AuthNone} {
			if strings.EqualFold(string(t), string(a.Type)) {
				return t
			}
		}
		return a.Type
	}
	if !empty(a.X509.Primary) {
		return AuthSelfSigned
	}
	return AuthSAS
}

func empty(s *string) bool { return s == nil || *s == "" }

func isThumbprint(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// apply replaces the mutable part of i. Keys that are not given are kept, or
// made.
func (i *Identity) apply(spec IdentitySpec) {
	i.Status = StatusEnabled
	if spec.Status != "" {
		i.Status = spec.Status
	}
	i.StatusReason = spec.StatusReason
	i.ManagedBy = spec.ManagedBy
	kept := i.Auth.SymmetricKey
	i.Auth = Authentication{Type: spec.Auth.effectiveType()}
	switch i.Auth.Type {
	case AuthSAS:
		i.Auth.SymmetricKey = spec.Auth.SymmetricKey
		if i.Auth.SymmetricKey.Primary == "" {
			i.Auth.SymmetricKey = kept
		}
		if i.Auth.SymmetricKey.Primary == "" {
			i.Auth.SymmetricKey = SymmetricKey{Primary: sas.NewKey(), Secondary: sas.NewKey()}
		}
	case AuthSelfSigned:
		i.Auth.X509 = spec.Auth.X509
	}
}

// Spec returns what a caller could say to get i: the mutable part.
func (i Identity) Spec() IdentitySpec {
	return IdentitySpec{
		Status: i.Status, StatusReason: i.StatusReason, Auth: i.Auth, IoTEdge: i.IoTEdge,
		ManagedBy: i.ManagedBy, DeviceScope: i.DeviceScope, ParentScopes: i.ParentScopes,
	}
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
	return s.store.Update(id.Device, func(tx *store.Tx) error {
		i, err := txIdentity(tx, id)
		if err != nil {
			return err
		}
		if m.ETag != "" && m.ETag != i.ETag() {
			return ErrPreconditionFailed
		}
		s.deleteIdentity(tx, id)
		return nil
	})
}

func (s *Server) deleteIdentity(tx *store.Tx, id ID) {
	data, err := tx.Get(id.twinKey())
	t, err := twinOf(id, data, err)
	tx.Delete(id.identityKey())
	t.remove(tx, id)
	tx.Delete(id.configuredKey())
	tx.Delete(id.activityKey())
	tx.Delete(id.sessionKey())
	if id.Module == "" {
		s.deleteQueue(tx, id.Device)
		s.unindexModules(tx, id.Device)
		for _, prefix := range []string{modulePrefix, moduleTwinPrefix, activityPrefix, sessionPrefix, configuredPrefix} {
			tx.DeletePrefix([]byte(prefix + id.Device + "/"))
		}
	}
	tx.OnCommit(func() {
		if id.Module != "" {
			s.configurations.touch(ID{Device: id.Device}) // a deployment may want it back
		}
		s.recheckLinks(id)
		if err == nil {
			s.identityChanged(id, "deleteDeviceIdentity", t)
		}
	})
}

// Devices calls fn with up to limit device identities in the order of their
// ids; a limit of 0 means all. An error of fn ends the walk and is returned.
func (s *Server) Devices(limit int, fn func(Identity) error) error {
	return s.scanIdentities(devicePrefix, limit, fn)
}

// Modules returns the module identities of a device.
func (s *Server) Modules(device string) ([]Identity, error) {
	if _, err := s.readIdentity(ID{Device: device}); err != nil {
		return nil, err
	}
	list := []Identity{}
	err := s.scanIdentities(modulePrefix+device+"/", 0, func(i Identity) error {
		list = append(list, i)
		return nil
	})
	return list, err
}

func (s *Server) countModules(device string) (n int, err error) {
	prefix := []byte(modulePrefix + device + "/")
	err = s.store.Scan(prefix, prefixEnd(prefix), func(_, _ []byte) error { n++; return nil })
	return n, err
}

func (s *Server) scanIdentities(prefix string, limit int, fn func(Identity) error) error {
	n := 0
	return s.store.Scan([]byte(prefix), prefixEnd([]byte(prefix)), func(k, v []byte) error {
		if limit > 0 && n == limit {
			return store.ErrStop
		}
		n++
		i, err := decodeIdentity(keyID(k), v, nil)
		if err != nil {
			return err
		}
		return fn(i)
	})
}

// keyID returns the identity of an identity key or twin key.
func keyID(key []byte) ID {
	for _, prefix := range []string{devicePrefix, deviceTwinPrefix} {
		if rest, ok := strings.CutPrefix(string(key), prefix); ok {
			return ID{Device: rest}
		}
	}
	for _, prefix := range []string{modulePrefix, moduleTwinPrefix} {
		if rest, ok := strings.CutPrefix(string(key), prefix); ok {
			device, module, _ := strings.Cut(rest, "/")
			return ID{Device: device, Module: module}
		}
	}
	return ID{}
}

// prefixEnd returns the first key behind all keys with the prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++
	return end
}

// ticks prints a time in .NET ticks: 100 ns since the year 1.
func ticks(t time.Time) string {
	const ticksToUnix = 621_355_968_000_000_000
	return strconv.FormatInt(ticksToUnix+t.UnixNano()/100, 10)
}

// newTwin is the twin an identity is born with. A module's has no time in its
// metadata, as recorded from the service.
func newTwin(id ID, now time.Time) twinRecord {
	if id.Module != "" {
		now = time.Time{}
	}
	return twinRecord{
		ETag: 1, Version: 2, Tags: json.RawMessage("{}"),
		Desired: twin.New(now), Reported: twin.New(now),
	}
}
