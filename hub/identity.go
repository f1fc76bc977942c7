package hub

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// Status says whether an identity may connect.
type Status string

// The two statuses of an identity.
const (
	StatusEnabled  Status = "enabled"
	StatusDisabled Status = "disabled"
)

// An Identity is a device or module as the registry keeps it. What the service
// calls connection state is not part of it: see Server.ConnectionState.
type Identity struct {
	ID
	GenerationID  string
	Version       uint64 // the number behind the etag
	Status        Status
	StatusReason  *string
	StatusUpdated time.Time // zero until the status first changes
	Auth          Authentication
	IoTEdge       bool
	ManagedBy     *string // modules only
	DeviceScope   string
	ParentScopes  []string
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

	// NewKeys has keys that are not given made, where an update without them
	// keeps those that are there.
	NewKeys bool

	// DeviceScope is the scope of a device's parent. It is ignored for an IoT
	// Edge device, which has a scope of its own, and names its parent in
	// ParentScopes. ParentScopes of another device count if DeviceScope is
	// empty.
	DeviceScope  string
	ParentScopes []string

	anyScope bool // scopes are not checked
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
		if i.Auth.SymmetricKey.Primary == "" && !spec.NewKeys {
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

// firstVersion is the number behind a new identity's etag: random, as in the
// service, so that the etag of an identity does not fit its successor.
func firstVersion() uint64 { return 100_000_000 + rand.Uint64N(400_000_000) }

// identityFormat is the first byte of a stored identity. The one before it,
// which data folders may still hold, was the JSON document of oldIdentity.
const identityFormat = 2

// The second byte is the status.
const (
	enabledByte = iota
	disabledByte
)

func (i *Identity) encode() []byte {
	b := make([]byte, 0, 192)
	b = append(b, identityFormat, enabledByte)
	if i.Status == StatusDisabled {
		b[1] = disabledByte
	}
	b = disk.AppendText(b, string(i.Auth.Type))
	b = disk.AppendText(b, i.GenerationID)
	b = binary.AppendUvarint(b, i.Version)
	updated := int64(0)
	if !i.StatusUpdated.IsZero() {
		updated = i.StatusUpdated.UnixNano()
	}
	b = binary.AppendVarint(b, updated)
	b = appendPointer(b, i.StatusReason)
	b = disk.AppendText(b, string(i.Auth.SymmetricKey.Primary))
	b = disk.AppendText(b, string(i.Auth.SymmetricKey.Secondary))
	b = appendPointer(b, i.Auth.X509.Primary)
	b = appendPointer(b, i.Auth.X509.Secondary)
	edge := byte(0)
	if i.IoTEdge {
		edge = 1
	}
	b = append(b, edge)
	b = appendPointer(b, i.ManagedBy)
	b = disk.AppendText(b, i.DeviceScope)
	b = binary.AppendUvarint(b, uint64(len(i.ParentScopes)))
	for _, scope := range i.ParentScopes {
		b = disk.AppendText(b, scope)
	}
	return b
}

func appendPointer(b []byte, text *string) []byte {
	if text == nil {
		return disk.AppendOptional(b, "", false)
	}
	return disk.AppendOptional(b, *text, true)
}

func readPointer(r *disk.Reader) *string {
	text, ok := r.Optional()
	if !ok {
		return nil
	}
	s := string(text)
	return &s
}

// decodeIdentity turns the result of a Get into an identity.
func decodeIdentity(id ID, data []byte, err error) (Identity, error) {
	if errors.Is(err, store.ErrNotFound) {
		return Identity{}, id.notFound()
	}
	if err != nil {
		return Identity{}, err
	}
	if isOldIdentity(data) {
		return decodeOldIdentity(id, data)
	}
	i := Identity{ID: id, Status: StatusEnabled}
	r := disk.Read("identity", data, identityFormat)
	if r.Number() == disabledByte {
		i.Status = StatusDisabled
	}
	i.Auth.Type = AuthType(r.Text())
	i.GenerationID = string(r.Text())
	i.Version = r.Number()
	if updated := r.Signed(); updated != 0 {
		i.StatusUpdated = time.Unix(0, updated).UTC()
	}
	i.StatusReason = readPointer(&r)
	i.Auth.SymmetricKey = SymmetricKey{Primary: sas.Key(r.Text()), Secondary: sas.Key(r.Text())}
	i.Auth.X509 = X509Thumbprint{Primary: readPointer(&r), Secondary: readPointer(&r)}
	i.IoTEdge = r.Number() == 1
	i.ManagedBy = readPointer(&r)
	i.DeviceScope = string(r.Text())
	if n := r.Count(); n > 0 {
		i.ParentScopes = make([]string, n)
		for n := range i.ParentScopes {
			i.ParentScopes[n] = string(r.Text())
		}
	}
	return i, r.Err()
}

// storedStatus and storedAuthType read from a stored identity what queries and
// statistics ask of all of them. What cannot be read is empty.
func storedStatus(data []byte) Status {
	switch {
	case isOldIdentity(data):
		return Status(query.JSON(data).Get("status").Chars())
	case len(data) < 2 || data[0] != identityFormat:
		return ""
	case data[1] == disabledByte:
		return StatusDisabled
	}
	return StatusEnabled
}

func storedAuthType(data []byte) AuthType {
	if isOldIdentity(data) {
		return AuthType(query.JSON(data).Get("authentication").Get("type").Chars())
	}
	r := disk.Read("identity", data, identityFormat)
	r.Number()
	return AuthType(r.Text())
}

// An oldIdentity is an identity as hubs stored it that printed REST's members.
type oldIdentity struct {
	GenerationID  string         `json:"generationId"`
	Version       uint64         `json:"version"`
	Status        Status         `json:"status"`
	StatusReason  *string        `json:"statusReason"`
	StatusUpdated time.Time      `json:"statusUpdated"`
	Auth          oldCredentials `json:"authentication"`
	IoTEdge       bool           `json:"iotEdge"`
	ManagedBy     *string        `json:"managedBy"`
	DeviceScope   string         `json:"deviceScope"`
	ParentScopes  []string       `json:"parentScopes"`
}

type oldCredentials struct {
	SymmetricKey struct {
		Primary   sas.Key `json:"primaryKey"`
		Secondary sas.Key `json:"secondaryKey"`
	} `json:"symmetricKey"`
	X509 struct {
		Primary   *string `json:"primaryThumbprint"`
		Secondary *string `json:"secondaryThumbprint"`
	} `json:"x509Thumbprint"`
	Type AuthType `json:"type"`
}

func isOldIdentity(data []byte) bool { return len(data) > 0 && data[0] == '{' }

func decodeOldIdentity(id ID, data []byte) (Identity, error) {
	var old oldIdentity
	if err := json.Unmarshal(data, &old); err != nil {
		return Identity{}, fmt.Errorf("stored identity: %w", err)
	}
	return Identity{
		ID: id, GenerationID: old.GenerationID, Version: old.Version,
		Status: old.Status, StatusReason: old.StatusReason, StatusUpdated: old.StatusUpdated,
		Auth:    Authentication{SymmetricKey: SymmetricKey(old.Auth.SymmetricKey), X509: X509Thumbprint(old.Auth.X509), Type: old.Auth.Type},
		IoTEdge: old.IoTEdge, ManagedBy: old.ManagedBy, DeviceScope: old.DeviceScope, ParentScopes: old.ParentScopes,
	}, nil
}
