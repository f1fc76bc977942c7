package amqp

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// maxMessage is what a link says its largest message is, if its kind has no
// smaller one. The SDK for C logs an error where a link says nothing.
const maxMessage = 1 << 20

// A conn is one AMQP connection. Who its peer is shows by the claims it has
// made, over SASL, TLS and CBS: a service, a reader of events, one device or many.
type conn struct {
	*engine.Conn
	door  *Door
	over  *serve.Connections // counts it
	chain []*x509.Certificate
	host  string // the hub's name as the peer wrote it in open

	dialed string // the same in TLS, or in the request for a WebSocket; empty if it did not say

	claims     claims     // claims.go
	devices    devices    // device.go
	registrant registrant // registration.go
	cbs        replies    // of $cbs
	management replies    // of $management
	work       work       // what is being done for the peer and will be answered

	mu       sync.Mutex // guards what follows
	reason   error      // why it ended or has to end, if the door says so; set once
	admitted bool       // the peer is known
	who      string     // it is, if it is a service
}

// Open implements engine.Handler.
func (c *conn) Open(o *wire.Open) error {
	// Some clients write what they dialled, which for WebSocket has a path.
	host, _, _ := strings.Cut(o.Hostname, "/")
	c.host = serve.HostOf(host)
	return nil
}

// Attach implements engine.Handler.
func (c *conn) Attach(l *engine.Link) error {
	text := addressOf(l)
	a := parseAddress(text)
	sends := l.Role == wire.Sender
	l.MaxMessageSize = maxMessage
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
	case a.node == nodeRegistration:
		return c.attachRegistration(l, a)
	case a.id != (hub.ID{}):
		return c.attachDevice(l, a)
	}
	what := "send to"
	if !sends {
		what = "receive from"
	}
	c.door.far.Info("refused", slog.String(words.LogRemote, c.remote()), slog.String(words.LogReason, "there is no address "+words.Clip(text)+" to "+what))
	return noEntity(condNotFound, "there is no address %q to %s", words.Clip(text), what)
}

// addressOf returns the address on the hub's side of a link.
func addressOf(l *engine.Link) string {
	address := l.Source.Address
	if l.Role == wire.Sender {
		address = l.Target.Address
	}
	switch text := address.(type) {
	case string:
		return text
	case wire.Symbol:
		return string(text)
	}
	return ""
}

// known says that the peer has shown who it is.
func (c *conn) known(cl *claim) {
	c.mu.Lock()
	first := !c.admitted
	c.admitted = true
	if cl.id == (hub.ID{}) && c.who == "" {
		c.who = cl.who() // devices are told of one by one
	}
	who := c.who
	c.mu.Unlock()
	if !first {
		return
	}
	serve.Admit(c.NetConn())
	c.over.In(stateOpening).Dec()
	c.over.In(stateOpen).Inc()
	if who != "" {
		c.door.log.Info("connected", words.LogCaller, who, words.LogRemote, c.remote())
	}
}

func (c *conn) remote() string { return c.NetConn().RemoteAddr().String() }

// why returns why the connection ended or has to end, and nil while it goes on.
func (c *conn) why() error {
	c.mu.Lock()
	reason := c.reason
	c.mu.Unlock()
	if reason != nil {
		return reason
	}
	return c.Reason()
}

// ended sets the reason, of which the first one counts.
func (c *conn) ended(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == nil {
		c.reason = reason
	}
}

// shut ends the connection in order, for a reason that is not the peer's.
func (c *conn) shut(reason error) {
	c.ended(reason)
	condition := condUnauthorized
	if errors.Is(reason, hub.ErrClosing) || errors.Is(reason, hub.ErrReset) {
		condition = condForced
	}
	c.Close(refuse(condition, "%v", reason))
}

// drop ends it at once.
func (c *conn) drop(reason error) {
	c.ended(reason)
	c.End(reason)
}

// A work counts what is being done for a peer that will be answered.
type work struct {
	mu      sync.Mutex // guards what follows
	n       int
	closing bool
	idle    chan struct{} // closed when nothing is done any more; nil if nobody waits
}

// begin reports whether something more may be done.
func (w *work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return false
	}
	w.n++
	return true
}

// end ends what begin began.
func (w *work) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n--
	if w.n == 0 && w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// close lets nothing more begin, and waits for what has.
func (w *work) close() {
	w.mu.Lock()
	w.closing = true
	if w.n > 0 && w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	if idle != nil {
		<-idle
	}
}
