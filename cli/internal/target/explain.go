package target

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// seeDoctor is for errors that may have many causes.
const seeDoctor = "\"iotdm doctor\" finds out why"

// NoIdentity is what a request that is not about an identity is about.
var NoIdentity hubrest.Target

// Explain words an error of a request to the hub, about the identity on if the
// request has one, so that the user knows what to do.
func (t Target) Explain(ctx context.Context, err error, on hubrest.Target) error {
	if _, ok := errors.AsType[*fail.Error](err); err == nil || ok || errors.Is(err, context.Canceled) {
		return err
	}
	if file, ok := errors.AsType[*os.PathError](err); ok { // a file of ours, such as standard output
		return fail.PlainPathError(file)
	}
	if answer, ok := errors.AsType[*hubrest.Error](err); ok {
		return t.explainAnswer(ctx, answer, on)
	}
	if tooLong := command.WhyEnded(ctx); tooLong != nil { // and nobody is to blame
		return tooLong
	}
	if none, ok := errors.AsType[*NoTokenError](err); ok {
		status := fail.Failed
		if none.Refused {
			status = fail.Unauthorized
		}
		return fail.Errorf(status, "Entra ID gives no token: %v; %s", none, none.Remedy)
	}
	return t.explainNetwork(err, t.HTTPSAddr, t.Host())
}

// ExplainMethod is Explain for a direct method.
func (t Target) ExplainMethod(ctx context.Context, err error, on hubrest.Target) error {
	if odd, ok := errors.AsType[*hubrest.NotJSONError](err); ok {
		return fail.Errorf(fail.Failed, "%s: %v; the call was made, but its answer has to be JSON", Noun(on), odd)
	}
	answer, ok := errors.AsType[*hubrest.Error](err)
	switch {
	case !ok:
		return t.Explain(ctx, err, on)
	case errors.Is(answer, hubrest.ErrNotOnline):
		return fail.Errorf(fail.NotFound, "%s is not connected to %s; start it with \"iotdm device run --device %s\", or wait for it with --connect-timeout",
			Noun(on), t.Host(), on.DeviceID)
	case errors.Is(answer, hubrest.ErrNotFound): // hubs do not tell these two apart
		return fail.Errorf(fail.NotFound, "%s does not exist on %s, or is disabled; see \"iotdm service device get --device %s\"",
			Noun(on), t.Host(), on.DeviceID)
	case errors.Is(answer, hubrest.ErrTimedOut):
		return fail.Errorf(fail.TimedOut, "%s did not answer in time (it may have acted all the same); give it longer with --timeout", Noun(on))
	}
	return t.Explain(ctx, err, on)
}

func (t Target) explainAnswer(ctx context.Context, e *hubrest.Error, on hubrest.Target) error {
	switch {
	case errors.Is(e, hubrest.ErrUnauthorized):
		return t.explainUnauthorized(ctx, e.Message)
	case errors.Is(e, hubrest.ErrNoTestControls):
		return fail.Errorf(fail.Failed, "the hub at %s has no test controls; start it with \"iotdm hub run --test-controls\"", t.Host())
	case errors.Is(e, hubrest.ErrNotFound) && on.DeviceID != "":
		return fail.Errorf(fail.NotFound, "%s does not exist on %s; see \"iotdm service device list\"", Noun(on), t.Host())
	case errors.Is(e, hubrest.ErrNotFound):
		return fail.Errorf(fail.NotFound, "%s: not found: %s", t.Host(), e.Message)
	case errors.Is(e, hubrest.ErrTimedOut):
		return fail.Errorf(fail.TimedOut, "%v", e)
	case errors.Is(e, hubrest.ErrAlreadyExists) && on.DeviceID != "":
		return fail.Errorf(fail.Failed, "%s exists already on %s", Noun(on), t.Host())
	case errors.Is(e, hubrest.ErrPreconditionFailed):
		return fail.Errorf(fail.Failed, "%s was changed by somebody else in the meantime; look at it and try again", Noun(on))
	}
	return fail.Errorf(fail.Failed, "%v", e)
}

// explainUnauthorized is for a credential that the hub refuses. A clock that is
// off makes good keys into bad tokens, so that is looked at first.
func (t Target) explainUnauthorized(ctx context.Context, hubWords string) error {
	if off, known := t.clockOff(ctx); known && (off > sas.Skew || off < -sas.Skew) {
		direction := "ahead of"
		if off < 0 {
			off, direction = -off, "behind"
		}
		return fail.Errorf(fail.Unauthorized, "%s refuses the token because this machine's clock is %v %s the hub's; set it and try again",
			t.Host(), off.Round(time.Second), direction)
	}
	whose := "the shared access signature of the connection string"
	switch c := t.Connection; {
	case t.entra != nil:
		return fail.Errorf(fail.Unauthorized, "%s does not let the Entra ID principal in the environment do this; give it a role such as %s", t.Host(), phrase.Choose(t.provisioning, "Device Provisioning Service Data Contributor", "IoT Hub Data Contributor"))
	case c.X509:
		return fail.Errorf(fail.Unauthorized, "%s refuses the certificate of %s (its common name is %q), or the device is unknown or disabled; see its authentication with \"iotdm service device get --device %s\"",
			t.Host(), Noun(t.Identity()), t.Link.CertificateName(), c.DeviceID)
	case c.DeviceID != "" && c.SharedAccessKeyName == "":
		whose = "the key of " + Noun(t.Identity()) + ", or the device is unknown or disabled"
	case c.SharedAccessKeyName != "":
		whose = "the key of policy \"" + c.SharedAccessKeyName + "\", or the policy lacks the right"
	}
	if hubWords = strings.TrimSpace(hubWords); hubWords != "" && hubWords != "Unauthorized" {
		whose += " (" + hubWords + ")"
	}
	return fail.Errorf(fail.Unauthorized, "%s refuses %s; %s", t.Host(), whose, seeDoctor)
}

// clockOff tells how far this machine's clock is ahead of the hub's, which
// every HTTP answer of the hub dates, also a refusal.
func (t Target) clockOff(ctx context.Context) (off time.Duration, known bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	host := t.Host()
	if t.Connection.DeviceID != "" && t.Link.Transport != mqttdevice.WebSocket {
		host, _ = localhub.SplitPort(host) // the port is that of MQTT
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/devices?api-version=2021-04-12", nil)
	if err != nil {
		return 0, false
	}
	response, err := t.Transport().RoundTrip(request)
	if err != nil {
		return 0, false
	}
	response.Body.Close()
	date, err := http.ParseTime(response.Header.Get("Date"))
	return t.Now().Sub(date), err == nil
}

// explainNetwork words an error from the way to the hub. The address is what
// was dialled, empty if that was the host.
func (t Target) explainNetwork(err error, addr, host string) error {
	if addr == "" {
		addr = host
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return fail.Errorf(fail.Failed, "there is no host %q; check HostName in the connection string", dns.Name)
		}
		return fail.Errorf(fail.Failed, "the name of host %q cannot be looked up: %s; %s", dns.Name, dns.Err, seeDoctor)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fail.Errorf(fail.Failed, "%s has a certificate from an authority this machine does not trust; if the hub is yours, name its CA with --ca-file", host)
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return fail.Errorf(fail.Failed, "the certificate of %s is not for that name: %v; use a name it has, or give the hub more with --host", host, name)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fail.Errorf(fail.Failed, "the certificate of %s is not valid now; check this machine's clock (%v)", host, invalid)
	}
	if errors.Is(err, syscall.ECONNREFUSED) && t.Local {
		return fail.Errorf(fail.NotFound, "the local hub does not listen on %s; start it with \"iotdm hub run\"", addr)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fail.Errorf(fail.Failed, "nothing listens on %s; is the hub running?", addr)
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, hubrest.ErrTimedOut) {
		return fail.Errorf(fail.TimedOut, "%s does not answer; %s", addr, seeDoctor)
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fail.Errorf(fail.Failed, "%v; %s", err, seeDoctor)
	}
	return fail.Errorf(fail.Failed, "%v", err)
}

// Noun names an identity in a sentence.
func Noun(t hubrest.Target) string {
	switch {
	case t.ModuleID != "":
		return "module \"" + t.ModuleID + "\" of device \"" + t.DeviceID + "\""
	case t.DeviceID != "":
		return "device \"" + t.DeviceID + "\""
	}
	return "it"
}

// CheckAnswer turns the answer of a device that could not do what it was asked
// to into a failure.
func CheckAnswer(on hubrest.Target, method string, a hubrest.MethodAnswer) error {
	if a.Status/100 == 2 {
		return nil
	}
	return fail.Errorf(fail.Failed, "%s answered %s with status %d", Noun(on), method, a.Status)
}
