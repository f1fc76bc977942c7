package mqttdevice

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/sas"
)

// GlobalEndpoint is the host of Azure's Device Provisioning Service for devices, of whatever instance:
// the id scope says which is meant.
const GlobalEndpoint = "global.azure-devices-provisioning.net"

// RegistrationOptions say with which provisioning service a device registers, and as whom. IDScope,
// RegistrationID and a credential are needed.
type RegistrationOptions struct {
	// Host is the service, and may carry a port as a hub's name may; empty means [GlobalEndpoint].
	Host string

	// IDScope names the instance of the service, such as 0ne00ABCDEF.
	IDScope string

	// RegistrationID is who the device is there: up to 128 letters, digits and "-._:". It becomes the
	// device id unless the enrollment says otherwise.
	RegistrationID string

	// Key is that of an individual enrollment, or what [sas.DeriveKey] makes of that of an enrollment
	// group. Empty means that the first certificate of TLS is the credential; its common name has to be
	// the registration id.
	Key sas.Key

	// Payload is JSON for the webhook of a custom allocation policy; nil is none.
	Payload json.RawMessage

	// Transport, Addr, WebSocketAddr and TLS are as those of [Options].
	Transport     Transport
	Addr          string
	WebSocketAddr string
	TLS           *tls.Config

	// Logger gets what does not go well. Nil means no log.
	Logger *slog.Logger

	// Now is the clock that tokens are dated with. Nil means time.Now.
	Now func() time.Time

	// OnRetry, if set, hears why an attempt failed that will be repeated, and in how long.
	OnRetry func(reason error, retry time.Duration)
}

// An Assignment is what a provisioning service has decided for a device.
type Assignment struct {
	Hub       string          // the host name of its hub
	DeviceID  string          // who it is there
	Substatus string          // initialAssignment, deviceDataMigrated, deviceDataReset; empty if the service does not say
	Payload   json.RawMessage // from the webhook of a custom allocation policy; nil is none
}

// ConnectionString is that of the assigned device, with the key that it has registered with; without
// one, with its certificate.
func (a Assignment) ConnectionString(key sas.Key) sas.ConnectionString {
	return sas.ConnectionString{HostName: a.Hub, DeviceID: a.DeviceID, SharedAccessKey: key, X509: key == ""}
}

// check refuses an assignment that no device could follow.
func (a Assignment) check() error {
	c := a.ConnectionString("")
	if _, err := sas.ParseConnectionString(c.Format()); err != nil || a.DeviceID == "" {
		return &RegistrationError{Status: 200, Registration: "failed",
			Message: fmt.Sprintf("it names the device %.200q of the hub %.300q, which cannot be", a.DeviceID, a.Hub)}
	}
	return nil
}

// CheckRegistrationID returns an error unless id is one that a provisioning service takes.
func CheckRegistrationID(id string) error {
	if id == "" || len(id) > 128 || !alphanumericOr(id, "-._:") || !alphanumericOr(id[len(id)-1:], "-") {
		return fmt.Errorf("registration id %.200q is not 1 to 128 letters, digits and -._: that end with a letter, a digit or a dash", id)
	}
	return nil
}

func alphanumericOr(s, more string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(more, r))
	})
}

// check completes the options, or says what is wrong with them.
func (o *RegistrationOptions) check() error {
	if o.Host == "" {
		o.Host = GlobalEndpoint
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := CheckRegistrationID(o.RegistrationID); err != nil {
		return err
	}
	switch {
	case o.IDScope == "":
		return errors.New("no id scope is given")
	case len(o.IDScope) > 128 || !alphanumericOr(o.IDScope, "-._"):
		return fmt.Errorf("id scope %.200q is not letters and digits, such as 0ne00ABCDEF", o.IDScope)
	case o.Key == "" && !o.hasCertificate():
		return errors.New("neither a key nor a certificate is given to register with")
	case o.Transport < TCP || o.Transport > Auto:
		return fmt.Errorf("transport %d is neither TCP, WebSocket nor Auto", o.Transport)
	case o.Payload != nil && !json.Valid(o.Payload):
		return errors.New("the payload for the provisioning service is not JSON")
	}
	if o.Key != "" {
		if err := o.Key.Validate(); err != nil {
			return fmt.Errorf("the key to register with is %w", err)
		}
	}
	return nil
}

func (o *RegistrationOptions) hasCertificate() bool {
	return o.TLS != nil && (len(o.TLS.Certificates) > 0 || o.TLS.GetClientCertificate != nil)
}

// link is o as the options of a device of the provisioning service, which is how that is dialled.
func (o *RegistrationOptions) link() Options {
	return Options{
		ConnectionString: sas.ConnectionString{HostName: o.Host, DeviceID: o.RegistrationID, X509: o.Key == ""},
		Transport:        o.Transport, Addr: o.Addr, WebSocketAddr: o.WebSocketAddr, TLS: o.TLS,
	}
}

// Register asks a Device Provisioning Service which hub and which device of it the caller is, over MQTT
// as the article "Communicate with DPS using the MQTT protocol" describes it, and waits until that is
// decided.
//
// A service that is not reached, is busy (429) or fails (5xx) is asked again, after random delays and not
// before it wants to be, until ctx ends: the error then wraps that of ctx and names the last cause. All
// else is final. What the service itself says no to is a [*RegistrationError], which matches
// [ErrUnauthorized], [ErrNotEnrolled], [ErrEnrollmentDisabled] or [ErrNotAssigned]; a service whose
// certificate does not verify is an error that wraps [*tls.CertificateVerificationError].
func Register(ctx context.Context, opt RegistrationOptions) (Assignment, error) {
	if err := opt.check(); err != nil {
		return Assignment{}, err
	}
	r := newRegistration(opt)
	for failures := 0; ; failures++ {
		a, err := r.attempt(ctx)
		if err == nil {
			return a, nil
		}
		named := fmt.Errorf("register %s with %s: %w", opt.RegistrationID, r.dialer.name(), err)
		if ctx.Err() == nil && permanent(err) {
			return Assignment{}, named
		}
		if ctx.Err() == nil {
			r.last = named
			retry := backoff(failures, err)
			if refused, ok := errors.AsType[*RegistrationError](err); ok {
				retry += min(refused.RetryAfter, maxRetryAfter)
			}
			retry = max(retry, attemptGap)
			r.log.Warn("not registered", logError, err, logRetry, retry)
			if opt.OnRetry != nil {
				opt.OnRetry(named, retry)
			}
			if wait.For(ctx, retry) == nil {
				continue
			}
		}
		if r.last == nil {
			r.last = named
		}
		if errors.Is(r.last, ctx.Err()) {
			return Assignment{}, r.last
		}
		return Assignment{}, fmt.Errorf("%w: %w", r.last, ctx.Err())
	}
}
