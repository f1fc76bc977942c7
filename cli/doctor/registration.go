package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A Provisioning is what there is to examine of a device that registers: the way
// to its provisioning service, in place of that to a hub, and what that says.
type Provisioning struct {
	Registration mqttdevice.RegistrationOptions // with which service, and as whom

	// Enrollments is a service's connection string of the provisioning service.
	// Its zero value: nobody may ask for the enrollment.
	Enrollments sas.ConnectionString

	// Reach tells what to dial for the hub that the device is assigned to; nil,
	// and an empty address: what its name says.
	Reach func(mqttdevice.Assignment) (addr, webSocketAddr string)
}

// A registrationAnswer is what a provisioning service says of a device, or why not.
type registrationAnswer struct {
	Status       string `json:"status"`
	AssignedHub  string `json:"assignedHub"`
	DeviceID     string `json:"deviceId"`
	ErrorCode    int    `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
	Message      string `json:"message"`
}

// checkEnrollment looks at the enrollment, if that can be asked for, and at the
// certificate.
func (x *examination) checkEnrollment(ctx context.Context) Check {
	r := x.Provisioning.Registration
	if x.Certificate != nil {
		leaf, err := leafOf(x.Certificate)
		switch {
		case err != nil:
			return failed(CheckEnrollment, "the certificate cannot be read: "+err.Error(), "name another with --cert-file")
		case x.signing().After(leaf.NotAfter):
			return failed(CheckEnrollment, "the certificate has ended at "+leaf.NotAfter.UTC().Format(time.RFC3339), "renew it")
		case !strings.EqualFold(leaf.Subject.CommonName, r.RegistrationID):
			return failed(CheckEnrollment, fmt.Sprintf("the common name of the certificate is %q, and the registration id %q", leaf.Subject.CommonName, r.RegistrationID),
				"leave out --registration-id, or use the certificate of that device")
		}
	}
	if x.Provisioning.Enrollments.HostName == "" {
		return skipped(CheckEnrollment, "nobody may ask for it; \"iotdm service enrollment get\" can with the connection string of a service")
	}
	if x.https.tcpErr != nil || !x.verified() {
		return skipped(CheckEnrollment, "it is asked for over HTTPS, which is not reached")
	}
	client, err := hubrest.NewProvisioning(hubrest.Options{
		ConnectionString: x.Provisioning.Enrollments, Addr: x.HTTPSAddr, TLS: &tls.Config{RootCAs: x.Roots, MinVersion: tls.VersionTLS12},
		Logger: x.Logger, Now: x.signing,
	})
	if err != nil {
		return skipped(CheckEnrollment, err.Error())
	}
	defer client.Close()
	ctx, cancel := x.step(ctx)
	defer cancel()
	e, err := client.Enrollment(ctx, hubrest.Individual, r.RegistrationID)
	switch {
	case errors.Is(err, hubrest.ErrNotFound):
		return ok(CheckEnrollment, fmt.Sprintf("%q has none of its own; a group's may be for it", r.RegistrationID))
	case err != nil:
		return warning(CheckEnrollment, "it cannot be read: "+plainError(err), "see \"iotdm service enrollment get\"")
	case e.ProvisioningStatus == hubrest.Disabled:
		c := failed(CheckEnrollment, fmt.Sprintf("the enrollment of %q is disabled", r.RegistrationID), "enable it with \"iotdm service enrollment update --provisioning-status enabled\"")
		c.Refused = true
		return c
	case string(e.Attestation.Type) == "x509" && x.Certificate == nil, string(e.Attestation.Type) == "symmetricKey" && x.Certificate != nil:
		return failed(CheckEnrollment, fmt.Sprintf("the enrollment of %q is for %s", r.RegistrationID, e.Attestation.Type), "register as it says: by key, or by --cert-file")
	}
	return ok(CheckEnrollment, fmt.Sprintf("%q has an enrollment of its own, by %s", r.RegistrationID, e.Attestation.Type))
}

// checkRegistration asks the service what it knows of the device. That proves the
// credential, and registers nothing.
func (x *examination) checkRegistration(ctx context.Context) Check {
	if x.https.tcpErr != nil || x.https.tlsErr != nil {
		return skipped(CheckRegistration, "it is asked for over HTTPS, which is not reached")
	}
	if !x.verified() {
		return skipped(CheckRegistration, "the credential is not sent to a peer whose certificate does not verify")
	}
	status, a, err := x.askRegistration(ctx)
	if err != nil {
		c := failed(CheckRegistration, "the service does not answer: "+plainError(err), "try again; if it stays so, look at the service's health")
		c.TimedOut = isTimeout(err)
		return c
	}
	said := strings.TrimSpace(a.Message + " " + a.ErrorMessage)
	if said != "" {
		said = " (" + said + ")"
	}
	switch {
	case status == http.StatusUnauthorized:
		c := failed(CheckRegistration, "the service refuses the credential"+said+": the key or certificate is not that of an enrollment", "compare it with the enrollment's: \"iotdm service enrollment keys\"; of a group's key, the device's is derived: --enrollment-group-key")
		if x.hubTime.wrong() && x.Certificate == nil {
			c.Detail, c.Remedy = "the service refuses the credential"+said+": this machine's clock, which dates the token, is "+describeOff(x.hubTime.off), clockRemedy
		}
		c.Refused = true
		return c
	case status == http.StatusNotFound:
		return warning(CheckRegistration, fmt.Sprintf("the service knows no registration of %q in the id scope %s%s: it has never registered, or no enrollment is for it, or the scope is another's",
			x.Provisioning.Registration.RegistrationID, x.Provisioning.Registration.IDScope, said), "register it, with \"iotdm device run --provision\"; that tells")
	case status == http.StatusTooManyRequests || status >= 500:
		return warning(CheckRegistration, fmt.Sprintf("the service is too busy to say (%d %s)", status, http.StatusText(status)), "try again later")
	case status >= 300:
		return failed(CheckRegistration, fmt.Sprintf("the service answers %d%s", status, said), "check --provisioning-host and --id-scope")
	case strings.EqualFold(a.Status, "disabled"):
		c := failed(CheckRegistration, "the enrollment is disabled", "enable it with \"iotdm service enrollment update --provisioning-status enabled\"")
		c.Refused = true
		return c
	case strings.EqualFold(a.Status, "failed"):
		return failed(CheckRegistration, "the last registration has failed"+said, "see the hubs and the allocation policy of the enrollment")
	case a.AssignedHub == "":
		return ok(CheckRegistration, "the service accepts the credential; the device is "+strings.ToLower(a.Status))
	}
	x.assigned = mqttdevice.Assignment{Hub: a.AssignedHub, DeviceID: a.DeviceID}
	return ok(CheckRegistration, fmt.Sprintf("the service accepts the credential; it is assigned to %s as device %q", a.AssignedHub, a.DeviceID))
}

// askRegistration makes the request "look up" of the service.
func (x *examination) askRegistration(ctx context.Context) (status int, a registrationAnswer, err error) {
	ctx, cancel := x.step(ctx)
	defer cancel()
	r := x.Provisioning.Registration
	body, err := json.Marshal(map[string]string{"registrationId": r.RegistrationID})
	if err != nil {
		return 0, a, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("https://%s/%s/registrations/%s?api-version=2019-03-31", x.https.urlHost(), r.IDScope, r.RegistrationID), bytes.NewReader(body))
	if err != nil {
		return 0, a, err
	}
	request.Header.Set("Content-Type", "application/json")
	if r.Key != "" {
		token, err := sas.Sign(r.IDScope+"/registrations/"+r.RegistrationID, "registration", r.Key, x.signing().Add(time.Hour))
		if err != nil {
			return 0, a, err
		}
		request.Header.Set("Authorization", token)
	}
	conn, err := x.dialTLS(ctx, &x.https)
	if err != nil {
		return 0, a, err
	}
	defer conn.Close()
	response, err := roundTrip(ctx, conn, request)
	if err != nil {
		return 0, a, err
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err == nil {
		_ = json.Unmarshal(text, &a) // what is no JSON says nothing; the status remains
	}
	return response.StatusCode, a, err
}

// checkAssignedHub goes to the hub that the device is assigned to.
func (x *examination) checkAssignedHub(ctx context.Context) Check {
	if x.assigned.Hub == "" {
		return skipped(CheckAssignedHub, "the device is not assigned to any, as far as is known")
	}
	hub := &examination{Options: x.Options}
	hub.Connection = x.assigned.ConnectionString(x.Provisioning.Registration.Key)
	hub.MQTTSAddr, hub.HTTPSAddr = "", ""
	if x.Provisioning.Reach != nil {
		addr, over := x.Provisioning.Reach(x.assigned)
		if x.WebSocket {
			addr, over = "", addr
		}
		hub.MQTTSAddr, hub.HTTPSAddr = addr, over
	}
	hub.mqtt, hub.https, _ = hub.doors()
	hub.findProxies()
	if hub.proxyErr != nil {
		return failed(CheckAssignedHub, plainError(hub.proxyErr), "mend the proxy of the environment")
	}
	var reached []string
	var missed error
	for _, d := range []*door{&hub.mqtt, &hub.https} {
		step, cancel := x.step(ctx)
		conn, err := hub.dialTLS(step, d)
		cancel()
		if err != nil {
			missed = fmt.Errorf("%s: %w", d.addr, err)
			continue
		}
		conn.Close()
		reached = append(reached, d.addr)
	}
	if reached == nil {
		c := failed(CheckAssignedHub, fmt.Sprintf("%s is not reached: %s", x.assigned.Hub, plainError(missed)), "examine it with \"iotdm doctor --connection-string\", and one of that hub")
		c.TimedOut = isTimeout(missed)
		return c
	}
	return ok(CheckAssignedHub, fmt.Sprintf("%s answers at %s, and its certificate verifies", x.assigned.Hub, strings.Join(reached, " and ")))
}
