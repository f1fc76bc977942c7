package provisioning

import (
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// settle checks an attestation that is put in place of before, and completes it:
// keys and certificates that are not given are kept, or keys made.
//
// Errors: ErrBadRequest.
func (a *Attestation) settle(k Kind, before Attestation) error {
	a.TPM = words.Present(a.TPM)
	switch {
	case a.TPM != nil || strings.EqualFold(string(a.Type), "tpm"):
		return ErrBadRequest.With("TPM attestation is not available: use symmetricKey or x509")
	case strings.EqualFold(string(a.Type), string(BySymmetricKey)):
		a.Type = BySymmetricKey
		if a.X509 != nil {
			return ErrBadRequest.With("attestation type symmetricKey has no x509")
		}
		if a.SymmetricKey == nil {
			a.SymmetricKey = new(SymmetricKey)
		}
		return a.SymmetricKey.settle(before.SymmetricKey)
	case strings.EqualFold(string(a.Type), string(ByX509)):
		a.Type = ByX509
		if a.SymmetricKey != nil {
			return ErrBadRequest.With("attestation type x509 has no symmetricKey")
		}
		if a.X509 == nil {
			return ErrBadRequest.With("attestation type x509 needs x509")
		}
		return a.X509.settle(k, before.X509)
	}
	return ErrBadRequest.With("attestation type must be symmetricKey or x509, not %q", words.Clip(string(a.Type)))
}

func (k *SymmetricKey) settle(before *SymmetricKey) error {
	if before == nil {
		before = &SymmetricKey{sas.NewKey(), sas.NewKey()}
	}
	for _, one := range []struct {
		key    *sas.Key
		before sas.Key
	}{{&k.Primary, before.Primary}, {&k.Secondary, before.Secondary}} {
		if *one.key == "" {
			*one.key = one.before
		}
		if err := one.key.Validate(); err != nil {
			return ErrBadRequest.With("symmetricKey: %v", err)
		}
	}
	return nil
}

func (x *X509) settle(k Kind, before *X509) error {
	if before == nil {
		before = new(X509)
	}
	drop := func(c **Certificates) {
		if *c != nil && (*c).Primary == nil && (*c).Secondary == nil {
			*c = nil // the .NET client writes members that it does not use
		}
	}
	drop(&x.Client)
	drop(&x.Signing)
	if len(x.CAs.names()) == 0 {
		x.CAs = nil
	}
	given := 0
	for _, there := range []bool{x.Client != nil, x.Signing != nil, x.CAs != nil} {
		if there {
			given++
		}
	}
	switch {
	case given != 1:
		return ErrBadRequest.With("x509 needs one of clientCertificates, signingCertificates and caReferences")
	case k == Group && x.Client != nil:
		return ErrBadRequest.With("an enrollment group has signingCertificates or caReferences, not clientCertificates")
	case k == Individual && x.Signing != nil:
		return ErrBadRequest.With("an individual enrollment has clientCertificates or caReferences, not signingCertificates")
	}
	for _, name := range x.CAs.names() {
		if len(name) > 128 {
			return ErrBadRequest.With("the name of a CA certificate is too long")
		}
	}
	if err := x.Client.settle(before.Client, false); err != nil {
		return err
	}
	return x.Signing.settle(before.Signing, true)
}

// clone returns a copy that settle may change.
func (a Attestation) clone() Attestation {
	if a.SymmetricKey != nil {
		keys := *a.SymmetricKey
		a.SymmetricKey = &keys
	}
	if a.X509 != nil {
		a.X509 = &X509{Client: a.X509.Client.clone(), Signing: a.X509.Signing.clone(), CAs: a.X509.CAs}
	}
	return a
}

// shown returns the attestation as it is read with its enrollment: without secrets.
func (a Attestation) shown() Attestation {
	if a.SymmetricKey != nil {
		a.SymmetricKey = new(SymmetricKey)
	}
	if a.X509 != nil {
		a.X509 = &X509{Client: a.X509.Client.without(), Signing: a.X509.Signing.without(), CAs: a.X509.CAs}
	}
	return a
}

// settle checks an enrollment that is put in place of before, and completes it.
//
// Errors: ErrBadRequest.
func (s *Service) settle(e *Enrollment, before Enrollment) error {
	k := e.Kind()
	if e.RegistrationID != "" && e.GroupID != "" {
		return ErrBadRequest.With("an enrollment has a registrationId or an enrollmentGroupId, not both")
	}
	if !idPattern.MatchString(e.ID()) {
		return ErrBadRequest.With("%q must be 1 to 128 of the letters, digits and - . _ : and end with a letter, a digit or -", words.Clip(e.ID()))
	}
	if k == Group && e.DeviceID != "" {
		return ErrBadRequest.With("an enrollment group has no deviceId")
	}
	if e.DeviceID != "" {
		if err := (hub.ID{Device: e.DeviceID}).Validate(); err != nil {
			return ErrBadRequest.With("%s", hub.RefusalOf(err).Text)
		}
	}
	status, err := oneOf("provisioningStatus", e.Status, hub.StatusEnabled, hub.StatusDisabled)
	if err != nil {
		return err
	}
	e.Status = status
	if e.Information = words.Present(e.Information); len(e.Information) > 0 && e.Information[0] != '{' {
		return ErrBadRequest.With("optionalDeviceInformation must be an object")
	}
	if e.InitialTwin != nil {
		if err := e.InitialTwin.change("").Validate(s.hub.Now()); err != nil {
			return ErrBadRequest.With("initialTwin: %s", hub.RefusalOf(err).Text)
		}
	}
	if e.Reprovision == nil {
		e.Reprovision = &Reprovision{UpdateHub: true, Migrate: true}
	}
	if err := s.settleAllocation(e); err != nil {
		return err
	}
	return e.Attestation.settle(k, before.Attestation)
}

// oneOf finds a word whatever its case, and takes the first for none.
func oneOf[T ~string](what string, word, first T, more ...T) (T, error) {
	if word == "" {
		return first, nil
	}
	for _, w := range append([]T{first}, more...) {
		if strings.EqualFold(string(w), string(word)) {
			return w, nil
		}
	}
	return "", ErrBadRequest.With("%s %q is unknown", what, words.Clip(string(word)))
}

// change returns what t says of a twin.
func (t *Twin) change(by string) hub.TwinChange {
	if t == nil {
		return hub.TwinChange{By: by}
	}
	return hub.TwinChange{Tags: words.Present(t.Tags), Desired: words.Present(t.Properties.Desired), By: by}
}
