package cli

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// Environment variables that the samples of the official SDKs read.
var (
	serviceVariables = []string{"IOTHUB_CONNECTION_STRING", "IOTHUB_SERVICE_CONNECTION_STRING"}
	deviceVariables  = []string{"IOTHUB_DEVICE_CONNECTION_STRING"}
)

// hubOptions are the flags that say which hub a command talks to, and as whom:
// a connection string given as a flag, else one in the environment, else the
// hub on this machine.
type hubOptions struct {
	connectionString string
	data             string
	caFile           string
	log              *slog.Logger // nil: none
}

func (o *hubOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "connection-string", Category: "Which hub", Destination: &o.connectionString,
			Usage: "`TEXT`, @FILE or -; default: environment, local hub"},
		dataFlag(&o.data),
		&urfave.StringFlag{Name: "ca-file", Category: "Which hub", Destination: &o.caFile, EnvVars: []string{"IOTDM_CA_FILE"},
			Usage: "trust `FILE` (PEM) besides the system's roots"},
		verboseFlag(&o.log),
	}
}

// A target is a hub that has been found, and as whom to talk to it.
type target struct {
	connection sas.ConnectionString
	httpsAddr  string // what to dial; empty: what connection says
	mqttsAddr  string
	tls        *tls.Config // nil: the system's roots
	local      bool        // found through the data folder
	entra      bool        // as a principal of Entra ID, not with a key
	link       deviceLink  // how a device connects
	disabled   bool        // the registry says that the device may not connect
	secondKey  sas.Key     // of the device or policy, where the hub told it
	log        *slog.Logger
}

// host is the hub's name as the user knows it.
func (t target) host() string {
	if t.connection.GatewayHostName != "" {
		return t.connection.GatewayHostName
	}
	return t.connection.HostName
}

// client returns a service client of the hub.
func (t target) client() (*hubrest.Client, error) {
	return hubrest.New(hubrest.Options{ConnectionString: t.connection, Addr: t.httpsAddr, TLS: t.tls, Logger: t.log})
}

// transport is for a plain request to the hub, outside of its API.
func (t target) transport() *http.Transport {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: t.tls.Clone(), DisableKeepAlives: true}
	if t.httpsAddr != "" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, t.httpsAddr)
		}
	}
	return transport
}

// given returns the connection string that the flag or one of the environment
// variables holds; found is false if none does.
func (o *hubOptions) given(s streams, variables []string) (c sas.ConnectionString, found bool, err error) {
	c, source, err := o.givenBy(s, variables)
	return c, source != "", err
}

// givenBy is given that tells which flag or variable it was; none is "".
func (o *hubOptions) givenBy(s streams, variables []string) (c sas.ConnectionString, source string, err error) {
	source, text := "--connection-string", o.connectionString
	for _, name := range variables {
		if text == "" {
			source, text = name, os.Getenv(name)
		}
	}
	if text == "" {
		return c, "", nil
	}
	if text, err = readValue(s, source, text); err != nil {
		return c, "", err
	}
	if c, err = sas.ParseConnectionString(text); err != nil {
		return c, "", usagef("%s: %s", source, strings.TrimPrefix(err.Error(), "connection string: "))
	}
	return c, source, nil
}

// service finds the hub for a service command.
func (o *hubOptions) service(s streams) (target, error) {
	c, found, err := o.given(s, serviceVariables)
	switch {
	case err != nil:
		return target{}, err
	case !found:
		return o.localHub("")
	case c.DeviceID != "":
		return target{}, usagef("this is the connection string of device %q; a service needs that of a shared access policy such as service or %s", c.DeviceID, ownerPolicy)
	}
	return o.target(c)
}

// target completes a connection string that was given. When it names the hub
// on this machine, that hub's CA is trusted and its ports are found, as if it
// had not been given.
func (o *hubOptions) target(c sas.ConnectionString) (target, error) {
	t := target{connection: c, log: o.log}
	host, port := splitPort(t.host())
	info, err := readRunningHub(o.data)
	if err != nil || !namesThisMachine(host, info) {
		t.tls, err = trust(o.caFile, "")
		return t, err
	}
	// A port is that of the door for which the connection string is made.
	if port == "" || c.DeviceID != "" {
		t.httpsAddr = dialAddr(info.HTTPSAddr)
	}
	if port == "" || c.DeviceID == "" {
		t.mqttsAddr = dialAddr(info.MQTTSAddr)
	}
	t.tls, err = trust(o.caFile, info.CAFile)
	return t, err
}

// localHub finds the hub on this machine through its data folder, to act with
// the key of the policy, or of iothubowner if that is empty.
func (o *hubOptions) localHub(policy string) (target, error) {
	info, err := readRunningHub(o.data)
	if err != nil {
		return target{}, err
	}
	t := target{local: true, log: o.log, httpsAddr: dialAddr(info.HTTPSAddr), mqttsAddr: dialAddr(info.MQTTSAddr)}
	if t.connection, err = policyConnection(info, policy, ""); err != nil {
		return target{}, err
	}
	t.connection.HostName = info.HostName // the ports are in the addresses
	t.secondKey = policyKeys(info)[strings.ToLower(t.connection.SharedAccessKeyName)][1]
	t.tls, err = trust(o.caFile, info.CAFile)
	return t, err
}
