package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// Environment variables that the samples of the official SDKs read.
var (
	serviceVariables = []string{"IOTHUB_CONNECTION_STRING", "IOTHUB_SERVICE_CONNECTION_STRING"}
	deviceVariables  = []string{"IOTHUB_DEVICE_CONNECTION_STRING"}
)

// ownerPolicy has every right on a hub.
const ownerPolicy = "iothubowner"

// hubOptions are the flags that say which hub a command talks to, and as whom:
// a connection string given as a flag, else one in the environment, else the
// hub on this machine.
type hubOptions struct {
	connectionString string
	data             string
	caFile           string
}

func (o *hubOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "connection-string", Category: "Which hub", Destination: &o.connectionString,
			Usage: "`TEXT`, @FILE or - (standard input); default: the environment, then the local hub"},
		dataFlag(&o.data),
		&urfave.StringFlag{Name: "ca-file", Category: "Which hub", Destination: &o.caFile, EnvVars: []string{"IOTDM_CA_FILE"},
			Usage: "trust the certificates in `FILE` (PEM) besides the system's"},
	}
}

func dataFlag(data *string) urfave.Flag {
	return &urfave.StringFlag{Name: "data", Category: "Which hub", Destination: data, EnvVars: []string{"IOTDM_DATA"},
		Usage: "the data `FOLDER` of the local hub"}
}

// A target is a hub that has been found, and as whom to talk to it.
type target struct {
	connection sas.ConnectionString
	httpsAddr  string // what to dial; empty: what connection says
	mqttsAddr  string
	tls        *tls.Config // nil: the system's roots
	local      bool        // found through the data folder
	disabled   bool        // the registry says that the device may not connect
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
	return hubrest.New(hubrest.Options{ConnectionString: t.connection, Addr: t.httpsAddr, TLS: t.tls})
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
	source, text := "--connection-string", o.connectionString
	for _, name := range variables {
		if text == "" {
			source, text = name, os.Getenv(name)
		}
	}
	if text == "" {
		return c, false, nil
	}
	if text, err = readValue(s, source, text); err != nil {
		return c, false, err
	}
	if c, err = sas.ParseConnectionString(text); err != nil {
		return c, false, usagef("%s: %s", source, strings.TrimPrefix(err.Error(), "connection string: "))
	}
	return c, true, nil
}

// service finds the hub for a service command. With a local hub the command
// acts with the key of the policy, or of iothubowner if that is empty.
func (o *hubOptions) service(s streams, policy string) (target, error) {
	c, found, err := o.given(s, serviceVariables)
	if err != nil {
		return target{}, err
	}
	if !found {
		return o.localHub(policy)
	}
	if c.DeviceID != "" {
		return target{}, usagef("this is the connection string of device %q; a service needs that of a shared access policy such as service or %s", c.DeviceID, ownerPolicy)
	}
	if policy != "" && !strings.EqualFold(policy, c.SharedAccessKeyName) {
		return target{}, usagef("--policy %s only goes with a local hub; the connection string names the policy %q", policy, c.SharedAccessKeyName)
	}
	return o.target(c)
}

// target completes a connection string that was given. When it names the hub
// on this machine, that hub's CA is trusted and its ports are found, as if it
// had not been given.
func (o *hubOptions) target(c sas.ConnectionString) (target, error) {
	t := target{connection: c}
	pool := &roots{}
	if err := pool.addFile("--ca-file", o.caFile); err != nil {
		return t, err
	}
	host, port := splitPort(t.host())
	if info, err := readRunningHub(o.data); err == nil && namesThisMachine(host, info) {
		if err := pool.addFile("the local hub's CA", info.CAFile); err != nil {
			return t, err
		}
		// A port is that of the door for which the connection string is made.
		t.httpsAddr, t.mqttsAddr = dialAddr(info.HTTPSAddr), dialAddr(info.MQTTSAddr)
		if port != "" && c.DeviceID == "" {
			t.httpsAddr = ""
		}
		if port != "" && c.DeviceID != "" {
			t.mqttsAddr = ""
		}
	}
	t.tls = pool.config()
	return t, nil
}

// localHub finds the hub on this machine through its data folder, to act with
// the key of the policy, or of iothubowner if that is empty.
func (o *hubOptions) localHub(policy string) (target, error) {
	info, err := readRunningHub(o.data)
	if err != nil {
		return target{}, err
	}
	t := target{local: true, httpsAddr: dialAddr(info.HTTPSAddr), mqttsAddr: dialAddr(info.MQTTSAddr)}
	if t.connection, err = policyConnection(info, policy, ""); err != nil {
		return target{}, err
	}
	t.connection.HostName = info.HostName // the ports are in the addresses
	pool := &roots{}
	if err := firstError(pool.addFile("--ca-file", o.caFile), pool.addFile("the local hub's CA", info.CAFile)); err != nil {
		return target{}, err
	}
	t.tls = pool.config()
	return t, nil
}

// namesThisMachine reports whether host is a name under which the local hub
// can only be meant: its own, or one that every machine uses for itself.
func namesThisMachine(host string, info hub.Info) bool {
	own, _ := splitPort(info.HostName)
	if strings.EqualFold(host, own) || strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

func splitPort(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return host, ""
}

// dialAddr turns an address that is listened on into one to dial.
func dialAddr(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// roots collects the certificates to trust besides the system's.
type roots struct{ pool *x509.CertPool }

// addFile adds the certificates in a PEM file, named what in errors. An empty
// file name adds nothing.
func (r *roots) addFile(what, file string) error {
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("%s: there is no file %s", what, file)
	}
	if err != nil {
		return failf(statusFailed, "%s: %v", what, plainPathError(err))
	}
	if r.pool == nil {
		if r.pool, err = x509.SystemCertPool(); err != nil {
			r.pool = x509.NewCertPool()
		}
	}
	if !r.pool.AppendCertsFromPEM(pem) {
		return usagef("%s: %s holds no certificate in PEM form", what, file)
	}
	return nil
}

func (r *roots) config() *tls.Config {
	if r.pool == nil {
		return nil
	}
	return &tls.Config{RootCAs: r.pool, MinVersion: tls.VersionTLS12}
}

// A deviceChoice says which device a device command acts as.
type deviceChoice struct {
	device, module string
	// create registers a device that is missing. It is only done on a local hub.
	create bool
}

// device finds the hub for a device command and the device's own credential:
// in its connection string, or in the hub's registry when a policy's connection
// string or the local hub gives the right to look there.
func (o *hubOptions) device(ctx context.Context, s streams, choice deviceChoice) (target, error) {
	c, found, err := o.given(s, deviceVariables)
	if err != nil {
		return target{}, err
	}
	if found && c.DeviceID != "" {
		if choice.device != "" && choice.device != c.DeviceID || choice.module != "" && choice.module != c.ModuleID {
			return target{}, usagef("the connection string is that of device %q; leave out --device, or name the same", c.DeviceID)
		}
		return o.target(c)
	}
	var t target
	if found {
		t, err = o.target(c)
	} else {
		t, err = o.localHub("")
	}
	if err != nil {
		return t, err
	}
	if choice.device == "" {
		return t, missingDevice
	}
	return t, t.become(ctx, s, choice)
}

// become replaces the policy's key in t by that of the device or module.
func (t *target) become(ctx context.Context, s streams, choice deviceChoice) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	defer client.Close()
	on := hubrest.Target{DeviceID: choice.device, ModuleID: choice.module}
	i, err := lookUp(ctx, client, on)
	if errors.Is(err, hubrest.ErrNotFound) && t.local && choice.create {
		if i, err = register(ctx, client, on); err == nil {
			s.note("Created %s on the local hub", noun(on))
		}
	}
	if err != nil {
		return t.explain(ctx, err, on)
	}
	key := i.Authentication.SymmetricKey.PrimaryKey
	if key == "" {
		return failf(statusUnauthorized, "%s has no shared access key (it authenticates by %s); give its connection string", noun(on), i.Authentication.Type)
	}
	host, _ := splitPort(t.connection.HostName) // the port is that of REST
	t.connection = sas.ConnectionString{
		HostName:        host,
		GatewayHostName: t.connection.GatewayHostName,
		DeviceID:        choice.device,
		ModuleID:        choice.module,
		SharedAccessKey: key,
	}
	t.disabled = i.Status == hubrest.Disabled
	return nil
}

// lookUp returns the device identity, or that of the module with the status of
// its device.
func lookUp(ctx context.Context, client *hubrest.Client, on hubrest.Target) (hubrest.Device, error) {
	d, err := client.Device(ctx, on.DeviceID)
	if err == nil && on.ModuleID != "" {
		var m hubrest.Module
		m, err = client.Module(ctx, on)
		d.Authentication = m.Authentication
	}
	return d, err
}

// register creates a device, or a module and its device if that is missing too.
func register(ctx context.Context, client *hubrest.Client, on hubrest.Target) (hubrest.Device, error) {
	_, err := client.CreateDevice(ctx, hubrest.Device{DeviceID: on.DeviceID})
	if on.ModuleID != "" && (err == nil || errors.Is(err, hubrest.ErrAlreadyExists)) {
		_, err = client.CreateModule(ctx, hubrest.Module{DeviceID: on.DeviceID, ModuleID: on.ModuleID})
	}
	if err != nil && !errors.Is(err, hubrest.ErrAlreadyExists) { // somebody else may have been faster
		return hubrest.Device{}, err
	}
	return lookUp(ctx, client, on)
}
