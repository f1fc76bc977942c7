package mqttdevice

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/internal/dial"
	"github.com/iotdm/iotdm/sas"
)

const (
	// connectTimeout bounds one attempt: dialling, TLS, CONNECT and SUBSCRIBE.
	connectTimeout = 30 * time.Second
	pingTimeout    = 10 * time.Second
	// quiesce is how long DISCONNECT may take to leave, in milliseconds.
	quiesce = 1000
)

// filters are what the client subscribes to. QoS is 0 except for messages: the hub sends methods and
// twin answers at that anyway, and repeating them later would only confuse.
func (c *Client) filters() map[string]byte {
	filters := map[string]byte{
		methodTopic + "#":       0,
		twinAnswerTopic + "#":   0,
		desiredPatchTopic + "#": 0,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.messages.handler != nil && c.opt.ConnectionString.ModuleID == "" {
		filters[messageFilter(c.id)] = 1
	}
	return filters
}

// A session is one connection, on one paho client. paho's own reconnecting has fixed delays and
// nowhere to put a fresh token, so the loop around sessions is ours (see Client.run).
type session struct {
	c       *Client
	id      string // the client's, which may be another in the next
	mq      mqtt.Client
	asked   map[string]byte // filters subscribed to
	conn    *wire           // nil until dialled
	route   *dial.Route     // that conn took
	instead error           // why not a better one; nil if there is none
	renew   time.Time       // when to replace the token; zero for never
	expiry  time.Time       // of the token; zero if there is none, or it cannot be read

	once   sync.Once
	lost   chan struct{} // closed when the connection has failed or was closed
	reason error         // valid once lost is closed

	left     bool                    // out of use; guarded by c.mu
	received int64                   // messages that receive is done with; guarded by c.mu
	answered int64                   // methods whose answer has left; guarded by c.mu
	pending  map[string]chan<- reply // twin requests by $rid; guarded by c.mu
}

// connect makes one attempt: a connection that is accepted and subscribed, or an error. It dials, unless
// there is a stream already, which it owns.
func (c *Client) connect(ctx context.Context, stream net.Conn) (*session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, ErrNoAnswer)
	defer cancel()
	s := &session{c: c, id: c.clientID(), asked: c.filters(), lost: make(chan struct{})}
	password, err := s.credential()
	if err != nil {
		if stream != nil {
			stream.Close()
		}
		return nil, err
	}
	opt := mqtt.NewClientOptions().
		SetProtocolVersion(4).
		SetClientID(s.id).
		SetUsername(c.user).
		SetPassword(password).
		SetCleanSession(false).
		SetAutoReconnect(false).
		SetAutoAckDisabled(true).
		SetStore(noStore{}).
		SetKeepAlive(c.opt.KeepAlive).
		SetPingTimeout(pingTimeout).
		SetConnectTimeout(2 * connectTimeout). // ctx ends first
		SetWriteTimeout(writeTimeout).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { s.lose(err) }).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { s.receive(m) })
	opt.Servers = []*url.URL{{}} // one attempt at whatever is dialled here
	var dialErr error
	unwatch := func() bool { return true }
	opt.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		if stream == nil {
			if stream, dialErr = c.dial(ctx); dialErr != nil {
				return nil, dialErr
			}
		}
		s.route, s.instead = c.dialer.RouteOf(stream)
		s.conn = &wire{Conn: stream, lose: s.lose, frames: framing{filters: len(s.asked)}}
		unwatch = context.AfterFunc(ctx, func() {
			s.lose(context.Cause(ctx))
			s.conn.Close()
		})
		return s.conn, nil
	})
	s.mq = mqtt.NewClient(opt)

	token := s.mq.Connect().(*mqtt.ConnectToken)
	<-token.Done()
	switch {
	case dialErr != nil:
		return nil, dialErr
	case token.Error() == nil:
		err = s.subscribe()
	case token.ReturnCode() != packets.ErrNetworkError:
		err = refusal(token.ReturnCode())
	default:
		err = token.Error()
	}
	if !unwatch() && err == nil {
		err = context.Cause(ctx) // it ended just now, and with it the connection
	}
	if err == nil {
		return s, nil
	}
	s.close(err)
	if s.reason == ErrNoAnswer {
		c.dialer.Silent(s.route, ErrNoAnswer)
	}
	return nil, s.explain(s.reason)
}

// credential returns the password for CONNECT and notes when it ends. There is none with X.509.
func (s *session) credential() (string, error) {
	cs := s.c.opt.ConnectionString
	if cs.X509 {
		return "", nil
	}
	if cs.SharedAccessSignature != "" {
		if token, err := sas.ParseToken(string(cs.SharedAccessSignature)); err == nil {
			s.expiry = token.Expiry // the hub is the judge of what cannot be read
		}
		return string(cs.SharedAccessSignature), nil
	}
	now := s.c.opt.Now()
	s.expiry = now.Add(s.c.opt.TokenLife)
	s.renew = sas.RenewAt(now, s.expiry)
	return sas.Sign(cs.Audience(), cs.SharedAccessKeyName, cs.SharedAccessKey, s.expiry)
}

// subscribe asks for everything the hub may send. It does so on each connection, since a hub may
// have lost the session it kept.
func (s *session) subscribe() error {
	token := s.mq.SubscribeMultiple(s.asked, nil).(*mqtt.SubscribeToken)
	select {
	case <-token.Done():
	case <-s.lost:
		return s.reason
	}
	if token.Error() != nil {
		return token.Error()
	}
	granted := token.Result()
	for f := range s.asked {
		if qos, ok := granted[f]; !ok || qos > 2 {
			return fmt.Errorf("the hub refused the subscription to %s", f)
		}
	}
	return nil
}

// lose marks the connection as failed. Only the first reason counts.
func (s *session) lose(reason error) {
	s.once.Do(func() {
		s.reason = plainReason(reason)
		close(s.lost)
	})
}

func (s *session) isLost() bool {
	select {
	case <-s.lost:
		return true
	default:
		return false
	}
}

// lostError is what a call returns whose connection went away.
func (s *session) lostError() error {
	if s.reason == ErrClosed {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrConnectionLost, s.reason)
}

// wait waits for idle, but not when the connection is lost, ctx ends or d has passed.
func (s *session) wait(ctx context.Context, idle <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-idle:
	case <-s.lost:
	case <-ctx.Done():
	case <-t.C:
	}
}

// close disconnects, if the connection is still good, and returns when paho has ended.
func (s *session) close(reason error) {
	if s.isLost() {
		s.conn.Close()
	}
	s.lose(reason)
	s.mq.Disconnect(quiesce)
	// paho does not wait longer than it was told to. Without a connection nothing holds it up.
	s.conn.Close()
	s.mq.Disconnect(quiesce)
}

// publish sends one message and waits until it has left (QoS 0) or the hub has taken it (QoS 1).
func (s *session) publish(ctx context.Context, topic string, qos byte, payload []byte) error {
	token, err := s.hand(ctx, topic, qos, payload)
	if err != nil {
		return err
	}
	return s.await(ctx, token)
}

// answer is publish at QoS 0 for a caller with a goroutine of its own, which paho may hold up for
// writeTimeout.
func (s *session) answer(topic string, payload []byte) error {
	s.logSend(topic, payload)
	return s.await(context.Background(), s.mq.Publish(topic, 0, false, payload))
}

// await waits for what publish waits for.
func (s *session) await(ctx context.Context, token mqtt.Token) error {
	select {
	case <-token.Done():
	case <-s.lost:
		if !token.WaitTimeout(0) {
			return s.lostError()
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := token.Error(); err != nil {
		s.lose(err)
		return s.lostError()
	}
	return nil
}

func (s *session) logSend(topic string, payload []byte) {
	s.c.log.LogAttrs(context.Background(), slog.LevelDebug, "send", slog.String(logTopic, topic), slog.Int(logSize, len(payload)))
}

// hand gives one message to paho, which sends those it is given in their order.
func (s *session) hand(ctx context.Context, topic string, qos byte, payload []byte) (mqtt.Token, error) {
	s.logSend(topic, payload)
	// paho may hold its caller up for writeTimeout, whatever becomes of ctx or the connection.
	handed := make(chan mqtt.Token, 1)
	s.c.mu.Lock()
	started := s.c.start(func() { handed <- s.mq.Publish(topic, qos, false, payload) })
	s.c.mu.Unlock()
	if !started {
		return nil, ErrClosed
	}
	select {
	case token := <-handed:
		return token, nil
	case <-s.lost:
		return nil, s.lostError()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// receive handles a message on paho's goroutine, so it must not wait for anything.
func (s *session) receive(m mqtt.Message) {
	defer s.receivedOne()
	topic := m.Topic()
	s.c.log.LogAttrs(context.Background(), slog.LevelDebug, "received", slog.String(logTopic, topic), slog.Int(logSize, len(m.Payload())))
	if properties, ok := strings.CutPrefix(topic, messageTopic(s.id)); ok {
		s.receiveMessage(properties, m)
		return
	}
	known := false
	switch {
	case strings.HasPrefix(topic, methodTopic):
		var name, rid string
		if name, rid, known = parseMethodTopic(topic); known {
			s.receiveMethod(name, rid, m.Payload())
		}
	case strings.HasPrefix(topic, twinAnswerTopic):
		var r reply
		var rid string
		if r.status, rid, r.version, known = parseTwinAnswerTopic(topic); known {
			r.body = m.Payload()
			s.receiveReply(rid, r)
		}
	case strings.HasPrefix(topic, desiredPatchTopic):
		var version int64
		if version, known = parseDesiredPatchTopic(topic); known {
			s.c.receiveDesired(version, m.Payload())
		}
	}
	m.Ack() // whatever QoS it came at
	if !known {
		s.c.log.Warn("message of an unknown kind", logTopic, topic)
	}
}

func (s *session) receivedOne() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.received++
	s.c.announceRelease()
}

func (s *session) answers() int64 {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.answered
}

// caughtUp reports whether receive is done with all that has arrived; c.mu is held. paho hands messages
// on through several goroutines, and acknowledgements that came behind them may be faster.
func (s *session) caughtUp() bool { return s.received >= s.conn.frames.published.Load() }
