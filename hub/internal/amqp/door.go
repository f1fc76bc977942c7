// Package amqp is a hub's door for AMQP 1.0: it parses and prints what "Communicate
// with your IoT hub by using the AMQP Protocol" says, and what Event Hubs' clients
// say to the built-in endpoint, and decides nothing.
package amqp

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/serve"
)

// EventHubName is the name of the built-in endpoint that is compatible with
// Event Hubs: the EntityPath of its connection strings.
const EventHubName = "iothub-ehub-iotdm"

// Options configure New. The zero value works.
type Options struct {
	// EventSources are those of the events that readers of the built-in endpoint
	// get. None is telemetry alone, as on IoT Hub without routes.
	EventSources []hub.EventSource

	Logger *slog.Logger // nil discards
}

// A Door serves AMQP connections.
type Door struct {
	hub     *hub.Server
	opt     Options
	log     *slog.Logger
	running *serve.Group
}

// New returns a door to h.
func New(h *hub.Server, opt Options) *Door { panic("TODO door") }

// ServeTLS serves AMQP over TLS on l until the door closes, and then returns
// serve.ErrClosed. It owns l.
func (d *Door) ServeTLS(l net.Listener, config *tls.Config) error { panic("TODO door") }

// Serve serves AMQP over plain TCP on l as ServeTLS does.
func (d *Door) Serve(l net.Listener) error { panic("TODO door") }

// ServeConn serves one connection, whose peer has shown the certificates of
// chain. It owns nc, and does not wait for its end.
func (d *Door) ServeConn(nc net.Conn, chain []*x509.Certificate) { panic("TODO door") }

// StopListening closes the listeners; connections go on.
func (d *Door) StopListening() { panic("TODO door") }

// Close ends all connections and returns when they have ended.
func (d *Door) Close() { panic("TODO door") }

// Metrics returns what is counted, to be registered.
func (d *Door) Metrics() []prometheus.Collector { panic("TODO door") }
