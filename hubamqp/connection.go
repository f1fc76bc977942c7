package hubamqp

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/cenkalti/backoff/v5"

	"github.com/iotdm/iotdm/internal/dial"
)

const (
	// connectTimeout bounds one attempt: dialling, TLS, AMQP, and the token.
	connectTimeout = 30 * time.Second
	// openTimeout bounds AMQP's own handshake where WebSocket may do better.
	openTimeout = 8 * time.Second
	// closeTimeout bounds how long a connection says goodbye.
	closeTimeout = 2 * time.Second
	// renewAgain is how long to wait before a token that could not be replaced is tried again.
	renewAgain = 30 * time.Second
	// silence is how long the peer may say nothing at all. It is asked for an empty frame in half of it.
	silence = time.Minute
)

// An end is whom a connection is made to.
type end struct {
	host     string       // its name, without a port
	ways     *dial.Dialer // to it
	audience string       // what the token is for
	token    func(context.Context) (token, error)
}

// A connection is one AMQP connection with a token on it, which is replaced before it ends.
type connection struct {
	c    *Client
	to   end
	how  Connection
	amqp *amqp.Conn
	net  net.Conn
	cbs  *requester

	proof   string        // the first token, for questions that want one
	token   token         // that is on it; for renew
	renewed chan struct{} // closed when renew has ended
	stop    context.CancelFunc
	once    sync.Once
}

// open connects to e, and proves who this is.
func (c *Client) open(ctx context.Context, e end) (*connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, ErrNoAnswer)
	defer cancel()
	x := &connection{c: c, to: e}
	err := x.shake(ctx)
	if err != nil && !over(ctx) && len(e.ways.Routes) > 1 && x.net != nil && x.how.Transport == TCP {
		// Something on the way lets TLS through and AMQP not, or it is not the hub that listens there.
		route, _ := e.ways.RouteOf(x.net)
		e.ways.Silent(route, err)
		c.log.Warn("the hub does not speak AMQP here, using WebSocket", keyAddr, x.how.Addr, keyErr, err)
		if again := x.shake(ctx); again != nil {
			err = fmt.Errorf("%w; over WebSocket: %w", err, again)
		} else {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.host, err)
	}
	if err := x.authenticate(ctx); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// shake dials, and opens AMQP.
func (x *connection) shake(ctx context.Context) error {
	x.net = nil
	stream, err := x.to.ways.Dial(ctx)
	if err != nil && over(ctx) {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	route, instead := x.to.ways.RouteOf(stream)
	x.net, x.how = stream, Connection{Transport: TCP, Addr: route.Addr, Instead: instead}
	opening, cancel := ctx, context.CancelFunc(func() {})
	if route.WebSocket != nil {
		x.how.Transport = WebSocket
	} else if len(x.to.ways.Routes) > 1 {
		opening, cancel = context.WithTimeout(ctx, openTimeout)
	}
	defer cancel()
	x.amqp, err = amqp.NewConn(opening, stream, &amqp.ConnOptions{
		HostName:     x.to.host,
		IdleTimeout:  silence,
		WriteTimeout: silence / 2,
		SASLType:     amqp.SASLTypeAnonymous(), // the token says who it is
		Properties:   map[string]any{"product": "iotdm", "platform": runtime.GOOS + "/" + runtime.GOARCH, "version": runtime.Version()},
	})
	if err == nil {
		x.c.log.Debug("connected", keyHost, x.to.host, keyAddr, x.how.Addr, keyTransport, x.how.Transport)
		return nil
	}
	stream.Close()
	switch {
	case over(ctx):
		return context.Cause(ctx)
	case over(opening):
		return fmt.Errorf("%s did not answer AMQP within %v", x.how.Addr, openTimeout)
	}
	return fmt.Errorf("%s does not speak AMQP: %w", x.how.Addr, wireError(ctx, err))
}

// authenticate puts a token on the connection, and sees to it that there is one as long as it lives.
func (x *connection) authenticate(ctx context.Context) error {
	var err error
	if x.cbs, err = x.newRequester(ctx, "cbs"); err != nil {
		return fmt.Errorf("authenticate at %s: %w", x.to.host, err)
	}
	if x.token, err = x.to.token(ctx); err != nil {
		return err
	}
	if err := x.put(ctx); err != nil {
		return fmt.Errorf("authenticate at %s: %w", x.to.host, err)
	}
	x.proof, x.renewed = x.token.text, make(chan struct{})
	var renewing context.Context
	renewing, x.stop = context.WithCancel(context.Background())
	go x.renew(renewing)
	return nil
}

// put puts the token on the connection.
func (x *connection) put(ctx context.Context) error {
	_, err := x.cbs.call(ctx, &amqp.Message{
		ApplicationProperties: map[string]any{"operation": "put-token", "type": x.token.kind, "name": x.to.audience},
		Value:                 x.token.text,
	})
	return err
}

// renew replaces the token in time, until the connection ends. If that fails the hub ends what the token was for,
// and says why.
func (x *connection) renew(ctx context.Context) {
	defer close(x.renewed)
	stop := context.AfterFunc(x.c.closing, x.stop)
	defer stop()
	at := x.token.renewAt
	for !at.IsZero() {
		timer := time.NewTimer(at.Sub(x.c.opt.Now()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		case <-x.amqp.Done():
			timer.Stop()
			return
		}
		next, err := x.next(ctx)
		if err == nil {
			at = next
			continue
		}
		if ctx.Err() != nil || !x.alive() {
			return
		}
		x.c.log.Warn("the token is not renewed", keyHost, x.to.host, keyErr, err)
		at = x.c.opt.Now().Add(renewAgain)
	}
}

// next makes a token and puts it on the connection, unless it is the one that is there.
func (x *connection) next(ctx context.Context) (renewAt time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, ErrNoAnswer)
	defer cancel()
	t, err := x.to.token(ctx)
	if err != nil {
		return time.Time{}, err
	}
	same := t.text == x.token.text
	x.token = t
	if same {
		return t.renewAt, nil
	}
	x.c.log.Debug("renewing the token", keyHost, x.to.host)
	return t.renewAt, x.put(ctx)
}

// alive reports whether the connection has not ended.
func (x *connection) alive() bool {
	select {
	case <-x.amqp.Done():
		return false
	default:
		return true
	}
}

// close says goodbye, if the peer listens, and returns when all of the connection has ended.
func (x *connection) close() {
	x.once.Do(func() {
		deaf := time.AfterFunc(closeTimeout, func() { x.net.Close() })
		defer deaf.Stop()
		if x.stop != nil {
			x.stop()
		}
		_ = x.amqp.Close() // it ends, whatever there is to say
		if x.renewed != nil {
			<-x.renewed
		}
	})
}

// end ends a session and its links, of which a connection has not any number. What comes of it is of no interest.
func (x *connection) end(session *amqp.Session) {
	if !x.alive() {
		return
	}
	ctx, cancel := context.WithTimeout(x.c.closing, closeTimeout)
	defer cancel()
	_ = session.Close(ctx)
}

// A requester asks questions of a node that answers on a link of its own. It is used by one goroutine at a time.
type requester struct {
	session  *amqp.Session
	sender   *amqp.Sender
	receiver *amqp.Receiver
	replyTo  string
}

// newRequester attaches the two links of the node, "cbs" or "management".
func (x *connection) newRequester(ctx context.Context, node string) (*requester, error) {
	r := &requester{replyTo: node + "-" + rand.Text()}
	address := "$" + node
	var err error
	if r.session, err = x.amqp.NewSession(ctx, nil); err != nil {
		return nil, wireError(ctx, err)
	}
	if r.receiver, err = r.session.NewReceiver(ctx, address, &amqp.ReceiverOptions{Credit: 10, TargetAddress: r.replyTo}); err != nil {
		return nil, wireError(ctx, err)
	}
	if r.sender, err = r.session.NewSender(ctx, address, nil); err != nil {
		return nil, wireError(ctx, err)
	}
	return r, nil
}

// call asks a question and returns the answer, if it is a good one.
func (r *requester) call(ctx context.Context, m *amqp.Message) (*amqp.Message, error) {
	id := rand.Text()
	m.Properties = &amqp.MessageProperties{MessageID: id, ReplyTo: &r.replyTo}
	if err := r.sender.Send(ctx, m, nil); err != nil {
		return nil, wireError(ctx, err)
	}
	for {
		answer, err := r.receiver.Receive(ctx, nil)
		if err != nil {
			return nil, wireError(ctx, err)
		}
		if err := r.receiver.AcceptMessage(ctx, answer); err != nil {
			return nil, wireError(ctx, err)
		}
		if answer.Properties == nil || answer.Properties.CorrelationID != any(id) {
			continue // to a question that was given up
		}
		status := integer(answer.ApplicationProperties["status-code"])
		if status/100 == 2 {
			return answer, nil
		}
		words, _ := answer.ApplicationProperties["status-description"].(string)
		condition, _ := answer.ApplicationProperties["errorCondition"].(string)
		e := newError(&amqp.Error{Condition: amqp.ErrCond(condition), Description: words})
		e.Status = int(cmp.Or(status, http.StatusInternalServerError))
		return nil, e
	}
}

// integer is a number of any type that AMQP has for whole ones.
func integer(v any) int64 {
	switch v := v.(type) {
	case int32:
		return int64(v)
	case int64:
		return v
	case uint32:
		return int64(v)
	case uint64:
		return int64(v)
	case int:
		return int64(v)
	case int16:
		return int64(v)
	case uint16:
		return int64(v)
	case int8:
		return int64(v)
	case uint8:
		return int64(v)
	}
	return 0
}

// newPauses are those between attempts to connect again.
func newPauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: time.Second, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 30 * time.Second}
}
