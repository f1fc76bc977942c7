package doctor

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

func leafOf(c *tls.Certificate) (*x509.Certificate, error) {
	return x509.ParseCertificate(c.Certificate[0])
}

// checkCredential asks the hub whether it accepts the credential.
func (x *examination) checkCredential(ctx context.Context) Check {
	switch {
	case x.isDevice() && x.Connection.X509 && x.Certificate == nil:
		return skipped(CheckCredential, "there is no certificate; name it with --cert-file")
	case x.isDevice() && x.Connect:
		return skipped(CheckCredential, "asked below, over MQTT")
	case x.https.tcpErr != nil || x.https.tlsErr != nil:
		return skipped(CheckCredential, "it is asked over HTTPS, which is not reached"+x.connectHint())
	case !x.verified():
		return skipped(CheckCredential, "it is not sent to a peer whose certificate does not verify"+x.connectHint())
	case !x.isDevice():
		return x.checkService(ctx)
	case x.Connection.ModuleID != "":
		return skipped(CheckCredential, "a module's is asked over MQTT only"+x.connectHint())
	}
	return x.checkOverHTTPS(ctx)
}

func (x *examination) connectHint() string {
	if x.isDevice() && !x.Connect {
		return "; --connect asks over MQTT, and ends the connection the device has"
	}
	return ""
}

// verified reports whether the certificate on the HTTPS port verifies, whatever
// else there is to say about it.
func (x *examination) verified() bool {
	p := peer{host: x.https.host, chain: x.https.chain, roots: x.Roots}
	_, err := p.verify(x.Now())
	return err == nil
}

// checkOverHTTPS asks on the HTTPS endpoint of devices, which does not end a
// connection over MQTT: it gives back a message that it never received. The hub
// looks at the credential first, and answers a good one that it knows of no
// such lock.
func (x *examination) checkOverHTTPS(ctx context.Context) Check {
	ctx, cancel := x.step(ctx)
	defer cancel()
	c := x.Connection
	noLock := make([]byte, 16)
	rand.Read(noLock)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("https://%s/devices/%s/messages/deviceBound/%x-%x-%x-%x-%x/abandon?api-version=2021-04-12",
		x.https.urlHost(), url.PathEscape(c.DeviceID), noLock[:4], noLock[4:6], noLock[6:8], noLock[8:10], noLock[10:]), http.NoBody)
	if err != nil {
		return skipped(CheckCredential, err.Error())
	}
	if !c.X509 {
		token := string(c.SharedAccessSignature)
		if token == "" {
			if token, err = sas.Sign(c.Audience(), c.SharedAccessKeyName, c.SharedAccessKey, x.signing().Add(time.Hour)); err != nil {
				return failed(CheckCredential, err.Error(), "check the connection string")
			}
		}
		request.Header.Set("Authorization", token)
	}
	conn, err := x.dialTLS(ctx, &x.https)
	if err != nil {
		return x.noAnswer(err)
	}
	defer conn.Close()
	response, err := roundTrip(ctx, conn, request)
	if err != nil {
		return x.noAnswer(err)
	}
	if response.StatusCode == http.StatusNotFound {
		return warning(CheckCredential, fmt.Sprintf("the hub answers that there is no %s, or that it takes no messages", target.Noun(x.Device)), createRemedy(x.Device))
	}
	return x.judgeStatus(response.StatusCode, "as "+target.Noun(x.Device))
}

func (x *examination) noAnswer(err error) Check {
	c := failed(CheckCredential, "the hub does not answer: "+plainError(err), "try again; if it stays so, look at the hub's health")
	c.TimedOut = isTimeout(err)
	return c
}

// judgeStatus reads the answer to a request in which only the credential
// matters.
func (x *examination) judgeStatus(status int, as string) Check {
	switch {
	case status == http.StatusUnauthorized:
		return x.refused(CheckCredential)
	case status == http.StatusForbidden:
		c := failed(CheckCredential, "the hub forbids the request (403)", "look at the hub's IP filter, quota and private endpoint settings")
		c.Refused = true
		return c
	case status == http.StatusTooManyRequests || status >= 500:
		return warning(CheckCredential, fmt.Sprintf("the hub is too busy to say (%d %s)", status, http.StatusText(status)), "try again later")
	}
	return ok(CheckCredential, "the hub accepts it "+as)
}

// checkService makes two cheap requests, for the two rights that a service's
// credential may have.
func (x *examination) checkService(ctx context.Context) Check {
	client, err := x.service(x.Connection, x.signing)
	if err != nil {
		return failed(CheckCredential, err.Error(), "check the connection string")
	}
	defer client.Close()
	ctx, cancel := x.step(ctx)
	defer cancel()
	_, serve := client.ConnectedDevices(ctx)
	_, read := client.DeviceStatistics(ctx)
	switch {
	case serve == nil && read == nil:
		return ok(CheckCredential, "the hub accepts it, for calls and for reading the registry")
	case serve == nil:
		return ok(CheckCredential, "the hub accepts it, for calls but not for the registry")
	case read == nil:
		return ok(CheckCredential, "the hub accepts it, for reading the registry but not for calls to devices")
	}
	if answer, isAnswer := errors.AsType[*hubrest.Error](serve); isAnswer {
		if answer.Status == http.StatusNotFound { // a proxy's, or another server's
			return failed(CheckCredential, "what answers is no IoT Hub: "+plainError(answer), "check HostName in the connection string")
		}
		return x.judgeStatus(answer.Status, "")
	}
	if none, isNone := errors.AsType[*target.NoTokenError](serve); isNone {
		c := failed(CheckCredential, "Entra ID gives no token: "+none.Error(), none.Remedy)
		c.Refused = none.Refused
		return c
	}
	c := x.noAnswer(serve)
	c.TimedOut = c.TimedOut || errors.Is(serve, hubrest.ErrTimedOut)
	return c
}

// refused names the cause of a refusal. The hub itself says nothing: it answers
// a wrong key, a disabled device and one that does not exist alike.
func (x *examination) refused(check string) Check {
	detail, remedy := x.whyRefused()
	c := failed(check, "the hub refuses it: "+detail, remedy)
	c.Refused = true
	return c
}

func (x *examination) whyRefused() (detail, remedy string) {
	c := x.Connection
	if x.isDevice() && x.identity != nil {
		if detail, remedy = x.identity.objection(x); detail != "" {
			return detail, remedy
		}
	}
	if !x.isDevice() && x.Policies != nil {
		if detail, remedy = x.policyObjection(); detail != "" {
			return detail, remedy
		}
	}
	token := x.found(CheckToken)
	switch {
	case token.Verdict == Failed:
		return token.Detail, token.Remedy
	case x.hubTime.wrong() && !c.X509 && x.Credential == nil:
		return "this machine's clock, which dates the token, is " + describeOff(x.hubTime.off), clockRemedy
	case x.Credential != nil:
		return "the principal has no role on the hub that allows it", "give it a role such as IoT Hub Data Contributor"
	case !x.isDevice():
		return fmt.Sprintf("the key of policy %q is wrong, or there is no such policy, or it has neither ServiceConnect nor RegistryRead", c.SharedAccessKeyName),
			"compare the connection string with the policy's on the hub"
	case x.identity != nil && x.identity.err == nil:
		return "the registry holds nothing against it", "look at the hub's log; perhaps its settings forbid keys, or this address"
	case c.X509:
		return fmt.Sprintf("the certificate is not the one of %s, or the device is unknown or disabled", target.Noun(x.Device)), askRegistryRemedy
	}
	return fmt.Sprintf("the key is wrong, or %s is unknown or disabled", target.Noun(x.Device)), askRegistryRemedy
}

const askRegistryRemedy = "compare the connection string with the hub's; with IOTHUB_CONNECTION_STRING set to a service's, doctor asks the registry which it is"

// objection is what the registry has against the device's credential; empty if
// nothing.
func (i *identity) objection(x *examination) (detail, remedy string) {
	c := x.Connection
	switch {
	case errors.Is(i.err, hubrest.ErrNotFound):
		return fmt.Sprintf("the registry has no %s", target.Noun(i.missing)), createRemedy(i.missing)
	case i.err != nil:
		return "", ""
	case i.status == hubrest.Disabled:
		return disabledDetail(x.Device.DeviceID, i), enableRemedy(x.Device.DeviceID)
	case c.SharedAccessKeyName != "":
		return x.policyObjection()
	case c.X509 && i.authentication.Type == hubrest.AuthSAS:
		return "the registry has it prove itself with a key, not with a certificate", "give its connection string with SharedAccessKey"
	case !c.X509 && i.authentication.Type != hubrest.AuthSAS:
		return fmt.Sprintf("the registry has it prove itself by %s, not with a key", i.authentication.Type), "give its certificate, and a connection string with x509=true"
	case c.X509:
		return i.certificateObjection(x)
	case c.SharedAccessKey != "" && !slices.Contains(i.keys, c.SharedAccessKey):
		return fmt.Sprintf("the key is none of those that the registry has for %s", target.Noun(x.Device)),
			"take the connection string anew: the key was renewed, or the device made again, or this is another device's"
	}
	return "", ""
}

// certificateObjection is what the registry has against the device's
// certificate; empty if nothing.
func (i *identity) certificateObjection(x *examination) (detail, remedy string) {
	leaf, err := leafOf(x.Certificate)
	if err != nil {
		return "", ""
	}
	switch i.authentication.Type {
	case hubrest.AuthSelfSigned:
		known := i.authentication.X509Thumbprint
		sum1, sum256 := sha1.Sum(leaf.Raw), sha256.Sum256(leaf.Raw)
		for _, thumbprint := range []string{hex.EncodeToString(sum1[:]), hex.EncodeToString(sum256[:])} {
			if strings.EqualFold(thumbprint, known.PrimaryThumbprint) || strings.EqualFold(thumbprint, known.SecondaryThumbprint) {
				return "", ""
			}
		}
		return "the thumbprint of the certificate is neither of the two that the registry has",
			fmt.Sprintf("name the right certificate, or register this one: \"iotdm service device update --device %s --primary-thumbprint %x\"", x.Device.DeviceID, sum256)
	case hubrest.AuthCertificateAuthority:
		if want := x.Device.String(); leaf.Subject.CommonName != want {
			return fmt.Sprintf("the common name of the certificate is %s and has to be %q", quoted(leaf.Subject.CommonName), want), "have a certificate made with that common name"
		}
		return "its CA may not be registered, or not be verified", "see \"iotdm hub ca-cert list\""
	}
	return "", ""
}

// policyObjection is what the hub's policies, where they are known, have
// against the credential; empty if nothing.
func (x *examination) policyObjection() (detail, remedy string) {
	name := x.Connection.SharedAccessKeyName
	if token, err := sas.ParseToken(string(x.Connection.SharedAccessSignature)); err == nil {
		name = token.Policy
	}
	if x.Policies == nil || name == "" {
		return "", ""
	}
	keys, known := x.Policies[strings.ToLower(name)]
	key := x.Connection.SharedAccessKey
	switch {
	case !known:
		return fmt.Sprintf("the hub has no policy %s", quoted(name)), "name one of its policies, such as service or iothubowner"
	case key != "" && !slices.Contains(keys, key):
		return fmt.Sprintf("the key is not that of policy %q", name), "take the connection string anew, with \"iotdm hub connection-string --policy " + name + "\""
	case x.hubTime.wrong() || x.found(CheckToken).Verdict == Failed:
		return "", ""
	}
	return fmt.Sprintf("policy %q does not have the right", name), "use a policy that has it, such as service or iothubowner"
}
