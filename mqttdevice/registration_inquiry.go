package mqttdevice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/sas"
)

// Topics between a device and a provisioning service.
const (
	registerTopic       = "$dps/registrations/PUT/iotdps-register/"            // ?$rid={rid}
	operationTopic      = "$dps/registrations/GET/iotdps-get-operationstatus/" // ?$rid={rid}&operationId={id}
	registrationAnswers = "$dps/registrations/res/"                            // {status}/?$rid={rid}[&retry-after={seconds}]
)

const (
	// usualRetryAfter is how long to wait for a service that does not say: as the SDKs do.
	usualRetryAfter = 2 * time.Second
	// maxRetryAfter bounds what it may say.
	maxRetryAfter = 5 * time.Minute
	// registrationKeepAlive is longer than anything that is waited for, so that no ping is due, in seconds.
	registrationKeepAlive = 600
	// maxOperationID bounds what stands in a topic of ours.
	maxOperationID = 1024
)

var (
	errServiceClosed = errors.New("the provisioning service closed the connection")
	errServiceSilent = fmt.Errorf("the provisioning service did not answer within %v", connectTimeout)
	errServiceBusy   = errors.New("the provisioning service is busy or unavailable")
)

// A registration is one Register. It keeps from one connection to the next which operation is under way,
// since to register a second time may have a second effect.
type registration struct {
	opt       RegistrationOptions
	log       *slog.Logger
	dialer    *dialer
	operation string // under way; empty: none
	last      error  // why the last attempt failed
}

func newRegistration(opt RegistrationOptions) *registration {
	r := &registration{opt: opt, log: opt.Logger.With(logRegistration, opt.RegistrationID)}
	r.dialer = newDialer(opt.link(), r.log)
	for i := range r.dialer.Routes {
		if ws := r.dialer.Routes[i].WebSocket; ws != nil {
			ws.RawQuery = "" // what is there is for hubs
		}
	}
	return r
}

// An inquiry is one connection to a provisioning service: one request after the other, by one goroutine.
// It needs nothing of what the client's sessions do, and thousands of devices may make one each.
type inquiry struct {
	conn *wire
	rid  int // of the last request
}

// attempt registers, or goes on with that, on a connection of its own.
func (r *registration) attempt(ctx context.Context) (Assignment, error) {
	x, err := r.connect(ctx)
	if err != nil {
		return Assignment{}, r.explain(err)
	}
	defer x.close()
	a, err := r.carryOut(ctx, x)
	return a, r.explain(err)
}

// carryOut asks until the service has decided.
func (r *registration) carryOut(ctx context.Context, x *inquiry) (Assignment, error) {
	body, err := json.Marshal(struct {
		ID      string          `json:"registrationId"`
		Payload json.RawMessage `json:"payload,omitempty"`
	}{r.opt.RegistrationID, r.opt.Payload})
	if err != nil {
		return Assignment{}, err
	}
	for {
		topic, sent := registerTopic, body
		if r.operation != "" {
			topic, sent = operationTopic, nil
		}
		status, retryAfter, answer, err := x.ask(ctx, topic, r.operation, sent)
		if err != nil {
			return Assignment{}, plainServiceReason(err)
		}
		if status == 404 && r.operation != "" {
			r.operation = "" // the service has forgotten it; whether it knows the device shows next
			continue
		}
		if status >= 300 {
			return Assignment{}, refusalOf(status, answer, retryAfter)
		}
		var d registrationDocument
		if err := json.Unmarshal(answer, &d); err != nil {
			return Assignment{}, errors.New("the answer of the provisioning service is not as documented")
		}
		if status != 202 && !strings.EqualFold(d.Status, statusAssigning) {
			return d.assignment()
		}
		if d.OperationID == "" || len(d.OperationID) > maxOperationID || !alphanumericOr(d.OperationID, "-._~:=") {
			return Assignment{}, errors.New("the provisioning service names no operation to ask for")
		}
		r.operation = d.OperationID
		if retryAfter == 0 {
			retryAfter = usualRetryAfter
		}
		r.log.Debug("assigning", logRetry, retryAfter)
		if err := wait.For(ctx, min(retryAfter, maxRetryAfter)); err != nil {
			return Assignment{}, err
		}
	}
}

// explain finds the cause of a refusal that shows at this end.
func (r *registration) explain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && refusesCertificate(op.Err) { // of dialling
		err = plainServiceReason(err)
	}
	if end := certificateEnd(r.opt.link()); errors.Is(err, ErrUnauthorized) && !end.IsZero() && r.opt.Now().After(end) {
		return &expiredError{ErrCertificateExpired, end, err}
	}
	return err
}

// plainServiceReason is plainReason of a connection to a provisioning service.
func plainServiceReason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && refusesCertificate(op.Err) {
		return &RegistrationError{Status: 401, Message: op.Err.Error()}
	}
	if plain := plainReason(err); plain != ErrHubClosed {
		return plain
	}
	return errServiceClosed
}

// connect makes a connection that is accepted and subscribed.
func (r *registration) connect(ctx context.Context) (*inquiry, error) {
	password := ""
	if r.opt.Key != "" {
		var err error
		password, err = sas.Sign(r.opt.IDScope+"/registrations/"+r.opt.RegistrationID, "registration", r.opt.Key, r.opt.Now().Add(DefaultTokenLife))
		if err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errServiceSilent)
	defer cancel()
	stream, err := r.dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	x := &inquiry{conn: &wire{Conn: stream, lose: func(error) {}, frames: framing{filters: 1}}}
	err = x.bounded(ctx, func() error { return x.hello(r.opt.IDScope, r.opt.RegistrationID, password) })
	if err == nil {
		return x, nil
	}
	x.conn.Close()
	if err == errServiceSilent {
		route, _ := r.dialer.RouteOf(stream)
		r.dialer.Silent(route, err)
	}
	return nil, plainServiceReason(err)
}

// bounded has do use the connection, which ends if ctx does, or nothing comes of it in time.
func (x *inquiry) bounded(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errServiceSilent)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { x.conn.Close() })
	err := do()
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

// hello says who the device is, and asks for answers.
func (x *inquiry) hello(scope, id, password string) error {
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion, connect.CleanSession = "MQTT", 4, true
	connect.Keepalive, connect.ClientIdentifier = registrationKeepAlive, id
	connect.UsernameFlag, connect.Username = true, registrationUser(scope, id)
	connect.PasswordFlag, connect.Password = password != "", []byte(password)
	if err := connect.Write(x.conn); err != nil {
		return err
	}
	connack, err := readPacket[*packets.ConnackPacket](x.conn)
	if err != nil {
		return err
	}
	switch connack.ReturnCode {
	case packets.Accepted:
	case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised:
		return &RegistrationError{Status: 401}
	case packets.ErrRefusedServerUnavailable:
		return errServiceBusy
	default:
		return &RegistrationError{Status: 400, Message: fmt.Sprintf("code %d to CONNECT", connack.ReturnCode)}
	}
	subscribe := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	subscribe.MessageID, subscribe.Topics, subscribe.Qoss = 1, []string{registrationAnswers + "#"}, []byte{1}
	if err := subscribe.Write(x.conn); err != nil {
		return err
	}
	suback, err := readPacket[*packets.SubackPacket](x.conn)
	if err != nil {
		return err
	}
	if suback.ReturnCodes[0] > 2 { // there is one: see wire
		return errors.New("the provisioning service refused the subscription to its answers")
	}
	return nil
}

// registrationUser is the MQTT user name.
func registrationUser(scope, id string) string {
	agent := fmt.Sprintf("iotdm (%s; %s/%s)", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return scope + "/registrations/" + id + "/api-version=2019-03-31&ClientVersion=" + escape(agent)
}

// ask publishes a request and waits for its answer.
func (x *inquiry) ask(ctx context.Context, topic, operation string, body []byte) (status int, retryAfter time.Duration, answer []byte, err error) {
	x.rid++
	rid := strconv.Itoa(x.rid)
	request := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	request.Qos, request.MessageID = 1, uint16(x.rid%0xffff)+1
	request.TopicName, request.Payload = topic+"?$rid="+rid, body
	if operation != "" {
		request.TopicName += "&operationId=" + operation
	}
	err = x.bounded(ctx, func() error {
		if err := request.Write(x.conn); err != nil {
			return err
		}
		for {
			m, err := readPacket[*packets.PublishPacket](x.conn)
			if err != nil {
				return err
			}
			if m.Qos > 0 {
				ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				ack.MessageID = m.MessageID
				if err := ack.Write(x.conn); err != nil {
					return err
				}
			}
			var of string
			var known bool
			if status, of, retryAfter, known = parseRegistrationAnswer(m.TopicName); known && of == rid {
				answer = m.Payload
				return nil
			}
		}
	})
	return status, retryAfter, answer, err
}

// parseRegistrationAnswer takes apart the topic of an answer. It reports false for another topic.
func parseRegistrationAnswer(topic string) (status int, rid string, retryAfter time.Duration, ok bool) {
	rest, ok := strings.CutPrefix(topic, registrationAnswers)
	if !ok {
		return 0, "", 0, false
	}
	code, query, _ := strings.Cut(rest, "/")
	status, err := strconv.Atoi(code)
	rid, ok = param(query, "$rid")
	if text, found := param(query, "retry-after"); found {
		if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
			retryAfter = time.Duration(seconds) * time.Second
		}
	}
	return status, rid, retryAfter, ok && err == nil
}

// readPacket returns the next packet that is a P. Acknowledgements of requests tell nothing, since their
// answers come; anything else before the P is a peer that does not speak MQTT.
func readPacket[P packets.ControlPacket](conn net.Conn) (P, error) {
	var none P
	for {
		packet, err := packets.ReadPacket(conn)
		if err != nil {
			return none, err
		}
		switch p := packet.(type) {
		case P:
			return p, nil
		case *packets.PubackPacket:
		default:
			return none, errors.New("the provisioning service does not speak MQTT as documented")
		}
	}
}

// close says good-bye, if the connection is still good.
func (x *inquiry) close() {
	_ = packets.NewControlPacket(packets.Disconnect).Write(x.conn) // nothing depends on it
	x.conn.Close()
}
