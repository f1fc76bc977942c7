package provision

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/mqttdevice"
)

// Explain words an error of registering so that the user knows what to do.
func (r *Registration) Explain(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*mqttdevice.RegistrationError](err)
	switch who := r.who(); {
	case !ok:
	case errors.Is(err, mqttdevice.ErrCertificateExpired):
		return fail.Errorf(fail.Unauthorized, "%s refuses to register %s: the certificate in --cert-file has expired; renew it", r.Host, who)
	case errors.Is(refused, mqttdevice.ErrUnauthorized) && r.Key == "" && r.GroupKey == "":
		return fail.Errorf(fail.Unauthorized, "%s refuses to register %s%s: no enrollment is for its certificate (whose common name is %q, and has to be the registration id), or the id scope %s is another's; see \"iotdm service enrollment list\"",
			r.Host, who, said(refused), r.link.CertificateName(), r.IDScope)
	case errors.Is(refused, mqttdevice.ErrUnauthorized):
		return fail.Errorf(fail.Unauthorized, "%s refuses to register %s%s: the key is not that of its enrollment, there is no enrollment for it, the id scope %s is another's, or this machine's clock is off; \"iotdm doctor --provision\" finds out why",
			r.Host, who, said(refused), r.IDScope)
	case errors.Is(refused, mqttdevice.ErrNotEnrolled):
		return fail.Errorf(fail.NotFound, "%s has no enrollment for %s%s, or the id scope %s is another's; make one with \"iotdm service enrollment create\"", r.Host, who, said(refused), r.IDScope)
	case errors.Is(refused, mqttdevice.ErrEnrollmentDisabled):
		return fail.Errorf(fail.Unauthorized, "the enrollment of %s on %s is disabled%s; enable it with \"iotdm service enrollment update --provisioning-status enabled\"", who, r.Host, said(refused))
	case errors.Is(refused, mqttdevice.ErrNotAssigned):
		return fail.Errorf(fail.Failed, "%s has found no hub for %s%s; see the hubs and the allocation policy of its enrollment", r.Host, who, said(refused))
	default:
		return fail.Errorf(fail.Failed, "register %s with %s: %v", who, r.Host, refused)
	}
	if tooLong := command.WhyEnded(ctx); tooLong != nil {
		return tooLong
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return fail.Errorf(fail.Failed, "there is no host %q; check --provisioning-host", dns.Name)
	}
	return r.Service.ExplainDevice(ctx, err)
}

func (r *Registration) who() string {
	if r.RegistrationID == "" {
		return "the devices"
	}
	return "\"" + r.RegistrationID + "\""
}

// said is what the service says besides what is known by the kind of the refusal.
func said(e *mqttdevice.RegistrationError) string {
	text := strings.TrimSpace(e.Message)
	if text == "" || strings.EqualFold(text, "unauthorized") {
		return ""
	}
	return " (" + text + ")"
}
