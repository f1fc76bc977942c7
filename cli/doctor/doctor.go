// Package doctor finds out why this machine cannot reach a hub.
//
// [Run] takes the way that a device or a service client takes, one step at a
// time: the proxy, the name, the ports, the certificates, the WebSocket, the
// clock, the credential, the identity. Each step is a [Check] with a verdict
// and, unless all is well, what to do. [ExamineToken] does the same to a shared
// access signature.
//
// What is seen on the way is collected first and judged afterwards, by
// functions without I/O: an expired certificate, for instance, is the hub's
// fault or that of this machine's clock, and only the hub's clock tells which.
//
// No step changes anything on the hub, and none sends a credential to a peer
// whose certificate does not verify. Only Options.Connect makes a connection as
// the device, which ends the one that the device has.
package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A Verdict says how a check went.
type Verdict string

// The verdicts. A warning is something that works, or that the credential at
// hand has no need for; a check that is skipped says why.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped"
)

// Names of the checks of Run, in their order.
const (
	CheckHub        = "hub"        // which hub, as whom
	CheckDNS        = "dns"        // the hub's name
	CheckProxy      = "proxy"      // the proxy of the environment, and whether it lets through
	CheckMQTTPort   = "mqtt-port"  // 8883
	CheckMQTTTLS    = "mqtt-tls"   // the certificate there
	CheckHTTPSPort  = "https-port" // 443
	CheckHTTPSTLS   = "https-tls"  // the certificate there
	CheckWebSocket  = "websocket"  // MQTT over WebSocket
	CheckAMQPPort   = "amqp-port"  // 5671; of a service, as the others with this name
	CheckAMQPTLS    = "amqp-tls"   // the certificate there
	CheckClock      = "clock"      // this machine's against the hub's
	CheckToken      = "token"      // the token or certificate, by itself
	CheckCredential = "credential" // whether the hub accepts it
	CheckAMQP       = "amqp"       // whether it does over AMQP too
	CheckDevice     = "device"     // what the identity registry says
	CheckConnection = "connection" // whether another program connects as the device

	// Of a device that registers, in place of those from CheckToken on.
	CheckEnrollment   = "enrollment" // what is known of it, and of the certificate
	CheckRegistration = "registered" // whether the service accepts the credential, and what it says
	CheckAssignedHub  = "assignment" // whether that is reached
)

// A Check is the outcome of one step.
type Check struct {
	Name    string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`           // what was seen, or why it was skipped
	Remedy  string  `json:"remedy,omitempty"` // what to do; empty if nothing

	Refused  bool `json:"-"` // failed because the hub refuses the credential, or would
	TimedOut bool `json:"-"` // failed because nothing answered in time
}

func ok(name, detail string) Check      { return Check{Name: name, Verdict: OK, Detail: detail} }
func skipped(name, detail string) Check { return Check{Name: name, Verdict: Skipped, Detail: detail} }
func failed(name, detail, remedy string) Check {
	return Check{Name: name, Verdict: Failed, Detail: detail, Remedy: remedy}
}
func warning(name, detail, remedy string) Check {
	return Check{Name: name, Verdict: Warning, Detail: detail, Remedy: remedy}
}

// Options say which hub to examine, and as whom. Connection is all that is
// needed.
type Options struct {
	// Connection names the hub and holds the credential, a device's or a
	// service's. HostName may carry a port, which then is that of MQTT for a
	// device and of REST for a service.
	Connection sas.ConnectionString

	// Source says where Connection comes from, for people.
	Source string

	// Credential is used instead of that of Connection for the calls of a
	// service. Nil: a token signed with Connection's key.
	Credential azcore.TokenCredential

	// Certificate is that of a device with x509=true.
	Certificate *tls.Certificate

	// WebSocket says that the device connects over port 443, so that it is
	// 8883 that nobody needs.
	WebSocket bool

	// MQTTSAddr, HTTPSAddr and AMQPSAddr are the host:port to dial instead of
	// the host of Connection at 8883, 443 and 5671. No proxy is used for them.
	MQTTSAddr, HTTPSAddr, AMQPSAddr string

	// NoAMQPS says that the hub does not listen for AMQP over TLS.
	NoAMQPS bool

	// Roots are the authorities to trust; nil means the system's.
	Roots *x509.CertPool

	// HubCA is the authority of the hub's certificate where that is known, as
	// that of a hub on this machine is. Nil: it is not known.
	HubCA *x509.Certificate

	// Policies are the keys of the hub's shared access policies, by name,
	// where they are known. Nil: they are not.
	Policies map[string][]sas.Key

	// Device is the identity to ask the registry about. A device's Connection
	// names it itself.
	Device hubrest.Target

	// Registry is a service's connection string, with which the identity of a
	// device is looked up. Its zero value: nobody may ask.
	Registry sas.ConnectionString

	// Provisioning is set for a device that registers. Connection then has its
	// provisioning service as HostName, and the registration id as DeviceID.
	Provisioning *Provisioning

	// Connect has the device connect over MQTT and stay for Stay. It ends the
	// connection that the device has.
	Connect bool

	// Stay is for how long to look for another program that connects as the
	// same device; 0 means 10 seconds.
	Stay time.Duration

	// Timeout bounds each step; 0 means 5 seconds.
	Timeout time.Duration

	// Logger gets what the clients of the hub's API log. Nil: nothing.
	Logger *slog.Logger

	// Now is this machine's clock. Nil is time.Now.
	Now func() time.Time

	// Ahead is how far the clock of a hub under test has been moved on purpose.
	Ahead time.Duration
}

// Progress hears of what Run does, on Run's goroutine. Nil functions are not
// called.
type Progress struct {
	Begin func(what string) // what is waited for now, for people: "the name"
	Done  func(Check)       // in the order of the checks
}

// An examination is one Run.
type examination struct {
	Options
	checks []Check

	proxyVariable string // the one that names the proxy
	proxyErr      error

	mqtt, https, amqp door
	hubTime           hubTime
	identity          *identity // what the registry says; nil unless it could be asked

	assigned mqttdevice.Assignment // what the provisioning service says; zero if that is nothing
}

// Run examines the way to the hub and returns what it found: the checks that
// were made before ctx ended, in their order.
func Run(ctx context.Context, opt Options, progress Progress) []Check {
	x := &examination{Options: opt}
	x.Timeout = cmp.Or(x.Timeout, 5*time.Second)
	x.Stay = cmp.Or(x.Stay, 10*time.Second)
	if x.Now == nil {
		x.Now = time.Now
	}
	if x.Connection.DeviceID != "" {
		x.Device = hubrest.Target{DeviceID: x.Connection.DeviceID, ModuleID: x.Connection.ModuleID}
	} else if x.Registry.HostName == "" {
		x.Registry = x.Connection
	}
	x.mqtt, x.https, x.amqp = x.doors()
	registers := x.Provisioning != nil
	for _, step := range []struct {
		wait string // what is waited for; empty if nothing
		run  func() Check
		skip bool
	}{
		{"", x.checkHub, false},
		{"the name", func() Check { x.findProxies(); return x.checkDNS(ctx) }, false},
		{"ports and certificates", func() Check { x.visit(ctx); return x.checkProxy() }, false},
		{"", func() Check { return x.checkPort(&x.mqtt) }, false},
		{"", func() Check { return x.checkCertificate(&x.mqtt) }, false},
		{"", func() Check { return x.checkPort(&x.https) }, false},
		{"", func() Check { return x.checkCertificate(&x.https) }, false},
		{"", x.checkWebSocket, false},
		{"", func() Check { return x.checkPort(&x.amqp) }, x.isDevice()},
		{"", func() Check { return x.checkCertificate(&x.amqp) }, x.isDevice()},
		{"", x.checkClock, false},
		{"the registry", func() Check { x.lookUp(ctx); return x.checkToken() }, registers},
		{"the credential", func() Check { return x.checkCredential(ctx) }, registers},
		{"AMQP", func() Check { return x.checkAMQP(ctx) }, x.isDevice()},
		{"the enrollment", func() Check { return x.checkEnrollment(ctx) }, !registers},
		{"the registration", func() Check { return x.checkRegistration(ctx) }, !registers},
		{"the assigned hub", func() Check { return x.checkAssignedHub(ctx) }, !registers},
		{"", x.checkDevice, registers},
		{fmt.Sprintf("the device's connection, for up to %v", x.Stay), func() Check { return x.checkConnection(ctx) }, registers},
	} {
		if step.skip {
			continue
		}
		if step.wait != "" && progress.Begin != nil {
			progress.Begin(step.wait)
		}
		c := step.run()
		if ctx.Err() != nil {
			break // what failed now failed because of that
		}
		c.Detail, c.Remedy = printable(c.Detail), printable(c.Remedy)
		x.checks = append(x.checks, c)
		if progress.Done != nil {
			progress.Done(c)
		}
	}
	return x.checks
}

// printable makes a line for a terminal of text that may hold a peer's words.
func printable(s string) string {
	const most = 1000
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s[:min(len(s), most)])
}

// isDevice reports whether the credential is a device's or module's.
func (x *examination) isDevice() bool { return x.Connection.DeviceID != "" }

// step returns the context of one step.
func (x *examination) step(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, x.Timeout)
}

// found returns the check of that name, if it was made already.
func (x *examination) found(name string) Check {
	for _, c := range x.checks {
		if c.Name == name {
			return c
		}
	}
	return Check{}
}
