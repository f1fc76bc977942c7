package hub

import (
	"encoding/json"
	"strings"

	"github.com/iotdm/iotdm/sas"
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
// part of REST's format: the C# SDK reads "type" wrongly when it stands before
// the keys.
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

func (a Authentication) validate() error {
	keys := a.SymmetricKey
	switch a.effectiveType() {
	case AuthSAS:
		if (keys.Primary == "") != (keys.Secondary == "") {
			return ErrArgumentInvalid.With("a symmetricKey needs both keys, or neither to have the hub make them")
		}
		for _, k := range []sas.Key{keys.Primary, keys.Secondary} {
			if k == "" {
				continue
			}
			if err := k.Validate(); err != nil {
				return ErrArgumentInvalid.With("symmetricKey: %v", err)
			}
		}
	case AuthSelfSigned:
		if empty(a.X509.Primary) {
			return ErrArgumentInvalid.With("a selfSigned identity needs a primaryThumbprint")
		}
		for _, t := range []*string{a.X509.Primary, a.X509.Secondary} {
			if !empty(t) && !isThumbprint(*t) {
				return ErrArgumentInvalid.With("a thumbprint must be 40 or 64 hexadecimal digits")
			}
		}
	case AuthCertificateAuthority, AuthNone:
	default:
		return ErrArgumentInvalid.With("authentication type must be sas, selfSigned, certificateAuthority or none")
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

// isX509 reports whether the identity has certificates of its own.
func (a Authentication) isX509() bool {
	return a.Type == AuthSelfSigned || a.Type == AuthCertificateAuthority
}

func empty(s *string) bool { return s == nil || *s == "" }

func isThumbprint(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}
