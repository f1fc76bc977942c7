// Package hubtest provides an IoT hub for tests, as package httptest provides
// an HTTP server. The hub is the real one, in this process, with its state in
// memory and its listeners on free ports of the loopback interface:
//
//	func TestThermostat(t *testing.T) {
//		h := hubtest.New(t)
//		client, err := mqttdevice.New(mqttdevice.Options{
//			ConnectionString: h.Device("thermostat-1"),
//			Addr:             h.MQTTSAddr,
//			TLS:              h.ClientTLS(),
//		})
//		...
//	}
//
// All of that test is in thermostat_test.go, and that of a back end, which reads
// what devices send, in backend_test.go. Programs in other languages run
// against it too: set Hub.Env in their environment. Those that have the ports
// 8883, 443 and 5671 built in need WithAddrs and WithAMQPAddrs.
package hubtest

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/several"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A Hub is a running hub. It stops when the test ends. Its methods may be
// called concurrently, and end the test when they fail.
type Hub struct {
	*node.Node

	HostName  string // for connection strings; the certificate names it
	MQTTSAddr string // where it listens for MQTT over TLS
	HTTPSAddr string // where it listens for REST, and MQTT and AMQP over WebSocket
	AMQPSAddr string // where it listens for AMQP over TLS
	AMQPAddr  string // where it listens for AMQP without TLS; empty without WithAMQPAddrs

	t     testing.TB
	ca    string
	many  bool // it is of several nodes
	doors map[string]*node.Node
}

// Option changes how a hub starts.
type Option func(*config)

type config struct {
	node         node.Options
	mqtts, https string
	amqps, amqp  string
	make         func(node.Options) (*node.Node, error)
}

// WithOptions starts the hub with opt, for instance to keep its state in a
// folder, to move its clock or to see its log.
func WithOptions(opt node.Options) Option { return func(c *config) { c.node = opt } }

// WithAddrs makes the hub listen on these addresses instead of free ports.
func WithAddrs(mqtts, https string) Option {
	return func(c *config) { c.mqtts, c.https = mqtts, https }
}

// WithAMQPAddrs makes the hub listen for AMQP over TLS on amqps instead of a
// free port, and also without TLS on amqp, for clients of Event Hubs that are
// told to use an emulator. An empty address is left as it is.
func WithAMQPAddrs(amqps, amqp string) Option {
	return func(c *config) { c.amqps, c.amqp = cmp.Or(amqps, c.amqps), cmp.Or(amqp, c.amqp) }
}

// WithNode has f make the node, as package clustertest does with those of a hub that
// has several. It has no test controls.
func WithNode(f func(node.Options) (*node.Node, error)) Option {
	return func(c *config) { c.make = f }
}

// New starts a hub and returns when it accepts connections. It has test controls,
// unless it is for a benchmark, which measures a hub as in production.
func New(t testing.TB, options ...Option) *Hub {
	t.Helper()
	const free = "127.0.0.1:0"
	c := config{mqtts: free, https: free, amqps: free}
	for _, o := range options {
		o(&c)
	}
	var on node.Listeners
	var err error
	for l, addr := range map[*net.Listener]string{&on.MQTTS: c.mqtts, &on.HTTPS: c.https, &on.AMQPS: c.amqps, &on.AMQP: c.amqp} {
		if addr == "" {
			continue
		}
		if *l, err = net.Listen("tcp", addr); err != nil {
			on.Close()
			t.Fatalf("hubtest: %v", err)
		}
	}
	_, benchmark := t.(*testing.B)
	many := Several() && c.make == nil && !benchmark
	if many {
		c.needSeveral(t, on)
	}
	c.node.TestControls = c.node.TestControls || !benchmark && c.make == nil && !many
	name := on.HostName(c.node.HostNames)
	c.node.HostNames = on.Names(c.node.HostNames)
	n, doors, err := c.start(t, many)
	if err != nil {
		on.Close()
		t.Fatalf("hubtest: %v", err)
	}
	info := on.Info(name)
	h := &Hub{
		Node:      n,
		HostName:  info.HostName,
		MQTTSAddr: info.MQTTSAddr,
		HTTPSAddr: info.HTTPSAddr,
		AMQPSAddr: info.AMQPSAddr,
		AMQPAddr:  info.AMQPAddr,
		t:         t,
		ca:        filepath.Join(t.TempDir(), "ca.pem"),
		many:      many,
		doors:     make(map[string]*node.Node),
	}
	if err := n.Publish(info); err != nil {
		on.Close()
		t.Fatalf("hubtest: %v", errors.Join(err, n.Close()))
	}
	failed := serve(doors, on)
	for i, addr := range []string{h.MQTTSAddr, h.HTTPSAddr, h.AMQPSAddr} {
		h.doors[addr] = doors[i%len(doors)]
	}
	t.Cleanup(func() {
		var errs []error
		for _, d := range doors {
			errs = append(errs, d.Close())
		}
		errs = append(errs, n.Close())
		for _, f := range failed {
			select {
			case served := <-f:
				errs = append(errs, served)
			default:
			}
		}
		if err := errors.Join(errs...); err != nil {
			t.Errorf("hubtest: %v", err)
		}
	})
	if err := os.WriteFile(h.ca, n.CACertificate(), 0o600); err != nil {
		t.Fatalf("hubtest: %v", err)
	}
	return h
}

// start makes the node that the test asks, and those that serve.
func (c *config) start(t testing.TB, many bool) (n *node.Node, doors []*node.Node, err error) {
	t.Helper()
	switch {
	case many:
		n, doors = several.Start(t, c.node)
	case c.make != nil:
		n, err = c.make(c.node)
	default:
		n, err = node.New(c.node)
	}
	if doors == nil {
		doors = []*node.Node{n}
	}
	return n, doors, err
}

// needSeveral skips a test whose hub cannot be of several nodes, and gives the others
// a clock that can be moved, which a hub of one node has with its test controls.
func (c *config) needSeveral(t testing.TB, on node.Listeners) {
	t.Helper()
	why := ""
	switch {
	case c.node.Storage != node.Storage{}:
		why = "it has a data folder"
	case c.node.TestControls:
		why = "it has test controls"
	case c.node.Health != nil:
		why = "its health is that of one node"
	}
	if why != "" {
		on.Close()
		OneNode(t, why)
	}
	if c.node.Clock == nil {
		c.node.Clock = clock.New()
	}
}

// serve has each door served by another node, while there are any.
func serve(nodes []*node.Node, on node.Listeners) (failed []<-chan error) {
	for i, l := range []node.Listeners{{MQTTS: on.MQTTS}, {HTTPS: on.HTTPS}, {AMQPS: on.AMQPS, AMQP: on.AMQP}} {
		failed = append(failed, nodes[i%len(nodes)].Serve(l))
	}
	return failed
}

// Several reports whether New starts hubs of several nodes: that is so of a test
// binary that imports package clustertest, with the flag -nodes.
func Several() bool { return several.Start != nil }

// OneNode skips a test of what only a hub of one node has, where New starts hubs of
// several.
func OneNode(t testing.TB, why string) {
	t.Helper()
	if Several() {
		t.Skip("for a hub of one node: " + why)
	}
}

// At returns the node that listens at one of the hub's addresses over TLS, for what that
// node alone knows or does. On a hub of one node it is Node.
func (h *Hub) At(addr string) *node.Node { return h.doors[addr] }

// Device returns the connection string of a device, which is created if the
// registry does not have it.
func (h *Hub) Device(id string) sas.ConnectionString {
	h.t.Helper()
	return h.identity(hub.ID{Device: id})
}

// Module returns the connection string of a module of a device. Both are
// created if the registry does not have them.
func (h *Hub) Module(device, module string) sas.ConnectionString {
	h.t.Helper()
	h.identity(hub.ID{Device: device})
	return h.identity(hub.ID{Device: device, Module: module})
}

func (h *Hub) identity(id hub.ID) sas.ConnectionString {
	h.t.Helper()
	i, err := h.Identity(id)
	if err != nil {
		i, err = h.PutIdentity(id, hub.IdentitySpec{}, hub.Match{})
	}
	if err != nil {
		h.t.Fatalf("hubtest: %v", err)
	}
	return sas.ConnectionString{
		HostName: h.HostName, DeviceID: id.Device, ModuleID: id.Module,
		SharedAccessKey: i.Auth.SymmetricKey.Primary,
	}
}

// Policy returns the connection string of a shared access policy, such as
// "iothubowner" or "service", or "provisioningserviceowner" for clients of the
// provisioning service, which is where the hub is. Its host name carries the port of
// the HTTPS listener, which Python and Go service clients understand.
func (h *Hub) Policy(name string) sas.ConnectionString {
	h.t.Helper()
	return sas.ConnectionString{HostName: h.hostAt(h.HTTPSAddr), SharedAccessKeyName: name, SharedAccessKey: h.policyKey(name)}
}

// EventHub returns the connection string with which clients of Event Hubs read
// the events of the hub, with the key of the shared access policy "service". If
// the hub listens without TLS it is one for clients that are told to use an
// emulator: they need no trust and take any port. Else its host name carries the
// port of the AMQPS listener, which those for JavaScript and Go understand.
func (h *Hub) EventHub() sas.EventHubConnectionString {
	h.t.Helper()
	const policy = "service"
	return sas.EventHubConnectionString{
		Host:                h.hostAt(cmp.Or(h.AMQPAddr, h.AMQPSAddr)),
		SharedAccessKeyName: policy, SharedAccessKey: h.policyKey(policy),
		EntityPath: node.EventHubName, UseDevelopmentEmulator: h.AMQPAddr != "",
	}
}

func (h *Hub) policyKey(name string) sas.Key {
	h.t.Helper()
	policies := h.Policies()
	i := slices.IndexFunc(policies, func(p hub.Policy) bool { return p.Name == name })
	if i < 0 {
		h.t.Fatalf("hubtest: there is no policy %q", name)
	}
	return policies[i].PrimaryKey
}

// hostAt returns the hub's name with the port of addr.
func (h *Hub) hostAt(addr string) string {
	h.t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		h.t.Fatalf("hubtest: %v", err)
	}
	return net.JoinHostPort(h.HostName, port)
}

// ClientTLS returns a TLS configuration that trusts the hub and nothing else.
func (h *Hub) ClientTLS() *tls.Config { return &tls.Config{RootCAs: h.RootCAs()} }

// CAFile returns the path of a PEM file with the CA of the hub's certificate.
func (h *Hub) CAFile() string { return h.ca }

// Env returns the variables, as os/exec takes them, that make Python and Node
// programs trust the hub.
func (h *Hub) Env() []string {
	var env []string
	for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} {
		env = append(env, fmt.Sprintf("%s=%s", name, h.ca))
	}
	return env
}
