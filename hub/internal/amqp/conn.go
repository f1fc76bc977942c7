package amqp

import (
	"crypto/x509"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A conn is one AMQP connection. Who its peer is shows by the claims it has
// made, over SASL, TLS and CBS: a service, a reader of events, one device or many.
type conn struct {
	*engine.Conn
	door  *Door
	chain []*x509.Certificate
	host  string // the hub's name as the peer wrote it in open

	claims     claims  // claims.go
	devices    devices // device.go
	management replies // of $management
}

// Open implements engine.Handler.
func (c *conn) Open(o *wire.Open) error { panic("TODO door") }

// Attach implements engine.Handler.
func (c *conn) Attach(l *engine.Link) error {
	a := parseAddress(addressOf(l))
	sends := l.Role == wire.Sender
	switch {
	case a.node == nodeCBS:
		return c.attachCBS(l)
	case a.node == nodeManagement:
		return c.attachManagement(l)
	case a.node == nodeMessages && sends:
		return c.attachMessages(l)
	case a.node == nodeFeedback && !sends:
		return c.attachFeedback(l)
	case a.node == nodeFileNotifications && !sends:
		return c.attachFileNotifications(l)
	case a.node == nodeEventsRedirect && !sends:
		return c.redirect(l)
	case a.node == nodePartition && !sends:
		return c.attachPartition(l, a)
	case a.id != (hub.ID{}):
		return c.attachDevice(l, a)
	}
	return refuse(condNotFound, "there is no %q to %s", addressOf(l), "...")
}

// addressOf returns the address on the hub's side of a link.
func addressOf(l *engine.Link) string { panic("TODO door") }

// claims are what the peer of a connection has proved. (claims.go)
type claims struct{}

// caller returns the service client that the peer has proved to be, if it may do
// what needs the permission. The error is a *wire.Error for the link.
func (c *conn) caller(need hub.Permission, operation string) (hub.Caller, error) { panic("TODO door") }

// reader is caller for the event hub called name. Of tokens it takes those for
// the built-in endpoint too, which its clients sign with the text of the key.
func (c *conn) reader(name, operation string) (hub.Caller, error) { panic("TODO door") }

// grant returns what the peer has proved of an identity, with the expiry.
func (c *conn) grant(id hub.ID) (hub.Peer, error) { panic("TODO door") }

// The conditions of errors.
const (
	condNotFound     wire.Symbol = "amqp:not-found"
	condUnauthorized wire.Symbol = "amqp:unauthorized-access"
	condNotAllowed   wire.Symbol = "amqp:not-allowed"
	condStolen       wire.Symbol = "amqp:link:stolen"
	condRedirect     wire.Symbol = "amqp:link:redirect"
	condTooLarge     wire.Symbol = "amqp:link:message-size-exceeded"
	condLimit        wire.Symbol = "amqp:resource-limit-exceeded"
	condInternal     wire.Symbol = "amqp:internal-error"
)

// refuse returns an error with a condition. (error.go)
func refuse(condition wire.Symbol, format string, args ...any) *wire.Error { panic("TODO door") }

// refusalOf turns an error of the rules into AMQP's, by reference/amqp.md 11 and
// 6.1, with the tracking id that the log has too. (error.go)
func (c *conn) refusalOf(err error) *wire.Error { panic("TODO door") }
