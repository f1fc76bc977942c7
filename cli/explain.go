package cli

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

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// seeDoctor is for errors that may have many causes.
const seeDoctor = "\"iotdm doctor\" finds out why"

// noIdentity is what a request that is not about an identity is about.
var noIdentity hubrest.Target

// explain words an error of a request to the hub, about the identity on if the
// request has one, so that the user knows what to do.
func (t target) explain(ctx context.Context, err error, on hubrest.Target) error {
	if _, ok := errors.AsType[*failure](err); err == nil || ok || errors.Is(err, context.Canceled) {
		return err
	}
	if file, ok := errors.AsType[*os.PathError](err); ok { // a file of ours, such as standard output
		return plainPathError(file)
	}
	if answer, ok := errors.AsType[*hubrest.Error](err); ok {
		return t.explainAnswer(ctx, answer, on)
	}
	if tooLong := whyEnded(ctx); tooLong != nil { // and nobody is to blame
		return tooLong
	}
	if refusal, ok := errors.AsType[*hubrest.TokenError](err); ok && refusal.Status < http.StatusInternalServerError {
		return failf(statusUnauthorized, "Entra ID: %v; check AZURE_TENANT_ID, AZURE_CLIENT_ID and the secret or certificate", err)
	}
	return t.explainNetwork(err, t.httpsAddr, t.host())
}

// explainMethod is explain for a direct method.
func (t target) explainMethod(ctx context.Context, err error, on hubrest.Target) error {
	answer, ok := errors.AsType[*hubrest.Error](err)
	switch {
	case !ok:
		return t.explain(ctx, err, on)
	case errors.Is(answer, hubrest.ErrNotOnline):
		return failf(statusNotFound, "%s is not connected to %s; start it with \"iotdm device run --device %s\", or wait for it with --connect-timeout",
			noun(on), t.host(), on.DeviceID)
	case errors.Is(answer, hubrest.ErrNotFound): // hubs do not tell these two apart
		return failf(statusNotFound, "%s does not exist on %s, or is disabled; see \"iotdm service device get --device %s\"",
			noun(on), t.host(), on.DeviceID)
	case errors.Is(answer, hubrest.ErrTimedOut):
		return failf(statusTimeout, "%s did not answer in time (it may have acted all the same); give it longer with --timeout", noun(on))
	}
	return t.explain(ctx, err, on)
}

func (t target) explainAnswer(ctx context.Context, e *hubrest.Error, on hubrest.Target) error {
	switch {
	case errors.Is(e, hubrest.ErrUnauthorized):
		return t.explainUnauthorized(ctx, e.Message)
	case errors.Is(e, hubrest.ErrNotFound) && on.DeviceID != "":
		return failf(statusNotFound, "%s does not exist on %s; see \"iotdm service device list\"", noun(on), t.host())
	case errors.Is(e, hubrest.ErrNotFound):
		return failf(statusNotFound, "%s: not found: %s", t.host(), e.Message)
	case errors.Is(e, hubrest.ErrTimedOut):
		return failf(statusTimeout, "%v", e)
	case errors.Is(e, hubrest.ErrAlreadyExists) && on.DeviceID != "":
		return failf(statusFailed, "%s exists already on %s", noun(on), t.host())
	case errors.Is(e, hubrest.ErrPreconditionFailed):
		return failf(statusFailed, "%s was changed by somebody else in the meantime; look at it and try again", noun(on))
	}
	return failf(statusFailed, "%v", e)
}

// explainUnauthorized is for a credential that the hub refuses. A clock that is
// off makes good keys into bad tokens, so that is looked at first.
func (t target) explainUnauthorized(ctx context.Context, hubWords string) error {
	if off, known := t.clockOff(ctx); known && (off > sas.Skew || off < -sas.Skew) {
		direction := "ahead of"
		if off < 0 {
			off, direction = -off, "behind"
		}
		return failf(statusUnauthorized, "%s refuses the token because this machine's clock is %v %s the hub's; set it and try again",
			t.host(), off.Round(time.Second), direction)
	}
	whose := "the shared access signature of the connection string"
	switch c := t.connection; {
	case t.entra:
		return failf(statusUnauthorized, "%s does not let the Entra ID principal in the environment do this; give it a role such as IoT Hub Data Contributor", t.host())
	case c.X509:
		return failf(statusUnauthorized, "%s refuses the certificate of %s (its common name is %q), or the device is unknown or disabled; see its authentication with \"iotdm service device get --device %s\"",
			t.host(), noun(t.identity()), t.link.certificateName(), c.DeviceID)
	case c.DeviceID != "" && c.SharedAccessKeyName == "":
		whose = "the key of " + noun(t.identity()) + ", or the device is unknown or disabled"
	case c.SharedAccessKeyName != "":
		whose = "the key of policy \"" + c.SharedAccessKeyName + "\", or the policy lacks the right"
	}
	if hubWords = strings.TrimSpace(hubWords); hubWords != "" && hubWords != "Unauthorized" {
		whose += " (" + hubWords + ")"
	}
	return failf(statusUnauthorized, "%s refuses %s; %s", t.host(), whose, seeDoctor)
}

// clockOff tells how far this machine's clock is ahead of the hub's, which
// every HTTP answer of the hub dates, also a refusal.
func (t target) clockOff(ctx context.Context) (off time.Duration, known bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	host := t.host()
	if t.connection.DeviceID != "" && t.link.transport != mqttdevice.WebSocket {
		host, _ = splitPort(host) // the port is that of MQTT
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/devices?api-version=2021-04-12", nil)
	if err != nil {
		return 0, false
	}
	response, err := t.transport().RoundTrip(request)
	if err != nil {
		return 0, false
	}
	response.Body.Close()
	date, err := http.ParseTime(response.Header.Get("Date"))
	return time.Since(date), err == nil
}

// explainNetwork words an error from the way to the hub. The address is what
// was dialled, empty if that was the host.
func (t target) explainNetwork(err error, addr, host string) error {
	if addr == "" {
		addr = host
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return failf(statusFailed, "there is no host %q; check HostName in the connection string", dns.Name)
		}
		return failf(statusFailed, "the name of host %q cannot be looked up: %s; %s", dns.Name, dns.Err, seeDoctor)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return failf(statusFailed, "%s has a certificate from an authority this machine does not trust; if the hub is yours, name its CA with --ca-file", host)
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return failf(statusFailed, "the certificate of %s is not for that name: %v; use a name it has, or give the hub more with --host", host, name)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return failf(statusFailed, "the certificate of %s is not valid now; check this machine's clock (%v)", host, invalid)
	}
	if errors.Is(err, syscall.ECONNREFUSED) && t.local {
		return failf(statusNotFound, "the local hub does not listen on %s; start it with \"iotdm hub run\"", addr)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return failf(statusFailed, "nothing listens on %s; is the hub running?", addr)
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, hubrest.ErrTimedOut) {
		return failf(statusTimeout, "%s does not answer; %s", addr, seeDoctor)
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return failf(statusFailed, "%v; %s", err, seeDoctor)
	}
	return failf(statusFailed, "%v", err)
}

// noun names an identity in a sentence.
func noun(t hubrest.Target) string {
	switch {
	case t.ModuleID != "":
		return "module \"" + t.ModuleID + "\" of device \"" + t.DeviceID + "\""
	case t.DeviceID != "":
		return "device \"" + t.DeviceID + "\""
	}
	return "it"
}

// checkAnswer turns the answer of a device that could not do what it was asked
// to into a failure.
func checkAnswer(on hubrest.Target, method string, a hubrest.MethodAnswer) error {
	if a.Status/100 == 2 {
		return nil
	}
	return failf(statusFailed, "%s answered %s with status %d", noun(on), method, a.Status)
}
