package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"github.com/iotdm/iotdm/mqttdevice"
)

// A Kind is a kind of reason why a device is not connected.
type Kind string

// The kinds.
const (
	Unauthorized     Kind = "unauthorized"    // the hub, or the provisioning service, refused the credential
	Busy             Kind = "busy"            // the hub took nobody just then
	HubClosed        Kind = "hubClosed"       // the hub closed the connection
	TakenOver        Kind = "takenOver"       // probably by another program with the same id
	Silent           Kind = "silent"          // a ping was not answered
	NoAnswer         Kind = "noAnswer"        // to dialling, or to an attempt, within its time
	Unreachable      Kind = "unreachable"     // nobody listens there, or there is no such host
	BadCertificate   Kind = "badCertificate"  // the hub's does not verify
	Network          Kind = "network"         // a reset, for example
	OutOfDescriptors Kind = "fileDescriptors" // this machine has no more for this process
	Expired          Kind = "expired"         // the token or the certificate of the device
	NotEnrolled      Kind = "notEnrolled"     // the provisioning service does not know the device
	Disabled         Kind = "disabled"        // its enrollment is
	NotAssigned      Kind = "notAssigned"     // the provisioning service has found no hub for it
	Other            Kind = "other"
)

func kindOf(err error) Kind {
	for _, k := range []struct {
		err  error
		kind Kind
	}{
		{mqttdevice.ErrTokenExpired, Expired},
		{mqttdevice.ErrCertificateExpired, Expired},
		{mqttdevice.ErrTakenOver, TakenOver},
		{mqttdevice.ErrNotEnrolled, NotEnrolled},
		{mqttdevice.ErrEnrollmentDisabled, Disabled},
		{mqttdevice.ErrNotAssigned, NotAssigned},
		{mqttdevice.ErrUnauthorized, Unauthorized},
		{mqttdevice.ErrBusy, Busy},
		{mqttdevice.ErrHubClosed, HubClosed},
		{mqttdevice.ErrNoPong, Silent},
		{mqttdevice.ErrNoAnswer, NoAnswer},
		{context.DeadlineExceeded, NoAnswer},
		{syscall.EMFILE, OutOfDescriptors},
		{syscall.ENFILE, OutOfDescriptors},
		{syscall.ECONNREFUSED, Unreachable},
		{mqttdevice.ErrNetwork, Network},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return BadCertificate
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return Unreachable
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return Network
	}
	return Other
}
