// Package target finds out which hub a command means, and as whom to talk to it,
// and words for the user what goes wrong on the way there.
//
// [Options] are the flags for that. They lead to a [Target]: for a service
// command by [Service], for a device command by a [Choice] and a [Link].
package target

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// Environment variables that the samples of the official SDKs read.
var (
	ServiceVariables = []string{"IOTHUB_CONNECTION_STRING", "IOTHUB_SERVICE_CONNECTION_STRING"}
	DeviceVariables  = []string{"IOTHUB_DEVICE_CONNECTION_STRING"}

	ProvisioningVariables = []string{"PROVISIONING_CONNECTION_STRING", "IOT_PROVISIONING_SERVICE_CONNECTION_STRING"}

	eventsVariable = "EVENTHUB_CONNECTION_STRING"
)

// Options are the flags that say which hub a command talks to, and as whom:
// a connection string given as a flag, else one in the environment, else the
// hub on this machine.
type Options struct {
	connectionString string
	Data             string
	CAFile           string
	Log              *slog.Logger // nil: none
}

// Flags returns the flags that fill o.
func (o *Options) Flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "connection-string", Category: "Which hub", Destination: &o.connectionString,
			Usage: "`TEXT`, @FILE or -; default: environment, local hub"},
		localhub.Flag(&o.Data),
		&urfave.StringFlag{Name: "ca-file", Category: "Which hub", Destination: &o.CAFile, EnvVars: []string{"IOTDM_CA_FILE"},
			Usage: "trust `FILE` (PEM) besides the system's roots"},
		verboseFlag(&o.Log),
	}
}

// A Target is a hub that has been found, and as whom to talk to it.
type Target struct {
	Connection   sas.ConnectionString
	HTTPSAddr    string // what to dial; empty: what connection says
	MQTTSAddr    string
	AMQPSAddr    string
	NoAMQPS      bool                   // it does not listen for AMQP but over WebSocket
	TLS          *tls.Config            // nil: the system's roots
	CAFile       string                 // what TLS trusts besides these, of --ca-file or else of the local hub; empty: nothing
	Local        bool                   // found through the data folder
	provisioning bool                   // it is spoken to as a provisioning service
	entra        azcore.TokenCredential // of a principal of Entra ID; nil: with a key
	Link         Link                   // how a device connects
	Disabled     bool                   // the registry says that the device may not connect
	MoreKeys     []sas.Key              // that are as good as the connection's, where the hub told them
	Ahead        func() time.Duration   // how far the clock of a hub under test has been moved; nil: not known to be
	log          *slog.Logger
}

// Host is the hub's name as the user knows it.
func (t Target) Host() string {
	if t.Connection.GatewayHostName != "" {
		return t.Connection.GatewayHostName
	}
	return t.Connection.HostName
}

// Now is the time by the hub's clock, with which tokens are dated, as far as it is
// known that the clock has been moved.
func (t Target) Now() time.Time {
	if t.Ahead == nil {
		return time.Now()
	}
	return time.Now().Add(t.Ahead())
}

// Client returns a service client of the hub.
func (t Target) Client() (*hubrest.Client, error) {
	return hubrest.New(hubrest.Options{ConnectionString: t.Connection, Addr: t.HTTPSAddr, TLS: t.TLS, Logger: t.log, Now: t.Now})
}

// Transport is for a plain request to the hub, outside of its API.
func (t Target) Transport() *http.Transport {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: t.TLS.Clone(), DisableKeepAlives: true}
	if t.HTTPSAddr != "" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, t.HTTPSAddr)
		}
	}
	return transport
}

// Given returns the connection string that the flag or one of the environment
// variables holds; found is false if none does.
func (o *Options) Given(s output.Streams, variables []string) (c sas.ConnectionString, found bool, err error) {
	c, source, err := o.GivenBy(s, variables)
	return c, source != "", err
}

// GivenBy is Given that tells which flag or variable it was; none is "".
func (o *Options) GivenBy(s output.Streams, variables []string) (c sas.ConnectionString, source string, err error) {
	text, source, err := o.given(s, variables)
	if err != nil || source == "" {
		return c, "", err
	}
	if sas.IsEventHubConnectionString(text) {
		return c, "", fail.Usagef("%s: it is that of an event hub, which is for \"iotdm service events\" alone; give the connection string of the IoT hub", source)
	}
	if c, err = sas.ParseConnectionString(text); err != nil {
		return c, "", badConnectionString(source, err)
	}
	return c, source, nil
}

// given is GivenBy of a text that has not been parsed.
func (o *Options) given(s output.Streams, variables []string) (text, source string, err error) {
	source, text = "--connection-string", o.connectionString
	for _, name := range variables {
		if text == "" {
			source, text = name, os.Getenv(name)
		}
	}
	if text == "" {
		return "", "", nil
	}
	text, err = command.ReadValue(s, source, text)
	return sas.Pasted(text), source, err
}

// badConnectionString is for one that is broken, and says where it comes from.
func badConnectionString(source string, err error) error {
	return fail.Usagef("%s: %s", source, strings.TrimPrefix(err.Error(), "connection string: "))
}

// service finds the hub for a service command.
func (o *Options) service(s output.Streams) (Target, error) {
	c, found, err := o.Given(s, ServiceVariables)
	switch {
	case err != nil:
		return Target{}, err
	case !found:
		return o.LocalHub("")
	case c.DeviceID != "":
		return Target{}, fail.Usagef("this is the connection string of device %q; a service needs that of a shared access policy such as service or %s", c.DeviceID, localhub.OwnerPolicy)
	}
	return o.Target(c)
}

// Target completes a connection string that was given. When it names the hub
// on this machine, that hub's CA is trusted and its ports are found, as if it
// had not been given.
func (o *Options) Target(c sas.ConnectionString) (Target, error) {
	t := Target{Connection: c, CAFile: o.CAFile, log: o.Log}
	host, port := localhub.SplitPort(t.Host())
	info, err := localhub.ReadRunning(o.Data)
	if err != nil || !localhub.NamesThisMachine(host, info) {
		t.TLS, err = trust(o.CAFile, "")
		return t, err
	}
	// A port is that of the door for which the connection string is made. With
	// another port than ours it is another hub.
	own := func(addr string) bool {
		_, ours := localhub.SplitPort(addr)
		return port == "" || port == ours
	}
	if c.DeviceID != "" || own(info.HTTPSAddr) {
		t.HTTPSAddr = localhub.DialAddr(info.HTTPSAddr)
	}
	if c.DeviceID == "" || own(info.MQTTSAddr) {
		t.MQTTSAddr = localhub.DialAddr(info.MQTTSAddr)
	}
	if t.NoAMQPS = !own(info.HTTPSAddr); !t.NoAMQPS { // about the AMQP of another hub nothing is known
		t.setAMQPS(info)
	}
	if own(info.HTTPSAddr) {
		t.Ahead = localhub.ClockOf(info, o.Data)
	}
	t.CAFile = cmp.Or(o.CAFile, info.CAFile)
	t.TLS, err = trust(o.CAFile, info.CAFile)
	return t, err
}

// setAMQPS fills in where the hub on this machine listens for AMQP over TLS.
func (t *Target) setAMQPS(info node.Info) {
	t.AMQPSAddr, t.NoAMQPS = localhub.DialAddr(info.AMQPSAddr), info.AMQPSAddr == ""
}

// LocalHub finds the hub on this machine through its data folder, to act with
// the key of the policy, or of iothubowner if that is empty.
func (o *Options) LocalHub(policy string) (Target, error) {
	info, err := localhub.ReadRunning(o.Data)
	if err != nil {
		return Target{}, err
	}
	t := Target{Local: true, log: o.Log, HTTPSAddr: localhub.DialAddr(info.HTTPSAddr), MQTTSAddr: localhub.DialAddr(info.MQTTSAddr)}
	t.setAMQPS(info)
	if t.Connection, err = localhub.PolicyConnection(info, policy, ""); err != nil {
		return Target{}, err
	}
	t.Connection.HostName = info.HostName // the ports are in the addresses
	t.MoreKeys = []sas.Key{localhub.PolicyKeys(info)[strings.ToLower(t.Connection.SharedAccessKeyName)][1]}
	t.Ahead = localhub.ClockOf(info, o.Data)
	t.CAFile = cmp.Or(o.CAFile, info.CAFile)
	t.TLS, err = trust(o.CAFile, info.CAFile)
	return t, err
}
