package mqtt

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// How a device asks the provisioning service is in "Communicate with DPS using the
// MQTT protocol". Its connection is no link of an identity: it has a clean session,
// whatever it asks for, takes no will, and is sent answers alone, in the order of the
// requests and at QoS 0 (assumed), whether it has subscribed or not.

// A registrant is the device behind such a connection.
type registrant struct {
	provisioning.Peer
	leave func() // nothing has to end it any more
}

var errNoProvisioning = errors.New("this hub has no provisioning service")

// admitRegistration is connect for a device that asks for its hub.
func (d *Door) admitRegistration(c *conn, p *packets.ConnectPacket, name registrationName, host string, chain []*x509.Certificate) error {
	if id := (hub.ID{Device: name.id}); id.Validate() == nil {
		c.peer.ID = id
	}
	c.asks = &registrant{leave: func() {}}
	switch {
	case d.dps == nil:
		return &refusal{packets.ErrRefusedNotAuthorised, errNoProvisioning}
	case !strings.EqualFold(name.id, p.ClientIdentifier):
		return refuse(packets.ErrRefusedNotAuthorised, "the user name is of registration %q, and the client id another", words.Clip(name.id))
	case p.WillFlag:
		return refuse(packets.ErrRefusedNotAuthorised, "a registration has no will") // assumed
	}
	c.asks.Peer = provisioning.Peer{
		Scope: name.scope, ID: name.id, Password: string(p.Password), Chain: chain,
		Host: serve.HostOf(cmp.Or(host, c.net.LocalAddr().String())), Door: c.peer.Door, Remote: c.peer.Remote,
	}
	c.peer.Host, c.keepAlive = c.asks.Host, keepAlive(p.Keepalive)
	return d.hub.Inside(d.ctx, func(context.Context) error {
		expires, err := d.dps.Authenticate(c.asks.Peer)
		if err != nil {
			return refuseRegistration(err)
		}
		c.expireAt(expires)
		closing := context.AfterFunc(d.ctx, func() { c.End(hub.ErrClosing) })
		reset := d.hub.OnReplace(func() { c.End(hub.ErrReset) })
		c.asks.leave = func() { closing(); reset() }
		c.reply(appendConnack(nil, false, packets.Accepted))
		return nil
	})
}

// refuseRegistration turns an error of the provisioning service into a refusal.
func refuseRegistration(err error) error {
	switch provisioning.RefusalOf(err).HTTPStatus() {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable:
		return &refusal{packets.ErrRefusedServerUnavailable, err}
	}
	return &refusal{packets.ErrRefusedNotAuthorised, err}
}

// subscribeRegistration grants at most QoS 1.
func (c *conn) subscribeRegistration(p *packets.SubscribePacket) error {
	granted, err := c.grantQoS(p)
	if err != nil {
		return err
	}
	for _, filter := range p.Topics {
		if !strings.HasPrefix(filter, registrationTopics) {
			return fmt.Errorf("the topic filter %q is none of the provisioning service", words.Clip(filter))
		}
	}
	c.reply(appendAck(nil, packets.Suback, p.MessageID, granted...))
	return nil
}

// handleRegistrationPublish does what a PUBLISH asks of the provisioning service,
// acknowledges it, and answers.
func (d *Door) handleRegistrationPublish(c *conn, p *packets.PublishPacket) error {
	r, err := parseRegistrationTopic(p.TopicName)
	if err != nil {
		return fmt.Errorf("PUBLISH to %q: %w", words.Clip(p.TopicName), err)
	}
	c.flush() // what was asked before need not wait for this
	var o provisioning.Operation
	err = d.hub.Inside(d.ctx, func(ctx context.Context) (err error) {
		o, err = d.register(ctx, c.asks.Peer, r, p.Payload)
		return err
	})
	if errors.Is(err, hub.ErrClosing) || errors.Is(err, hub.ErrReset) || errors.Is(err, hub.ErrDropped) {
		return err
	}
	if p.Qos == 1 {
		c.reply(appendAck(nil, packets.Puback, p.MessageID))
	}
	c.reply(d.registrationAnswer(c, r.rid, o, err))
	return nil
}

// register asks the provisioning service.
func (d *Door) register(ctx context.Context, p provisioning.Peer, r registrationRequest, payload []byte) (provisioning.Operation, error) {
	switch {
	case r.poll && r.operation != "":
		return d.dps.Operation(p, r.operation)
	case r.poll:
		return provisioning.Operation{}, provisioning.ErrBadRequest.With("the topic has no operationId")
	}
	request, err := provisioning.ParseRequest(p.ID, payload)
	if err != nil {
		return provisioning.Operation{}, err
	}
	return d.dps.Register(ctx, p, request)
}

// registrationAnswer makes the answer to a request. Clients for .NET and Python want
// the $rid in front.
func (d *Door) registrationAnswer(c *conn, rid string, o provisioning.Operation, err error) []byte {
	status, after, body := o.HTTPStatus(), o.RetryAfter, []byte(nil)
	if err == nil {
		body = words.MustMarshal(o)
	} else {
		e := provisioning.RefusalOf(err)
		status, after = e.HTTPStatus(), e.RetryAfter()
		body = e.Envelope(d.noteRegistrationRefusal(c, rid, e, err), d.hub.Now())
	}
	topic := registrationAnswerTopic + strconv.Itoa(status) + "/?$rid=" + rid
	if after > 0 {
		topic += "&retry-after=" + strconv.Itoa(words.Seconds(after)) // nothing behind it: Java reads to the end
	}
	return appendPublish(nil, 0, 0, topic, body)
}

// noteRegistrationRefusal tells the operator of a request that is refused, and
// returns the tracking id.
func (d *Door) noteRegistrationRefusal(c *conn, rid string, e *provisioning.Error, err error) string {
	id := words.NewRequestID()
	attrs := []slog.Attr{
		c.who(), slog.String(words.LogRemote, c.peer.Remote), slog.String(words.LogRID, words.Clip(rid)),
		slog.Int(words.LogStatus, e.HTTPStatus()), slog.String(words.LogTracking, id.Compact()), slog.Any(words.LogReason, err),
	}
	if e.HTTPStatus() >= 500 {
		d.log.LogAttrs(d.ctx, slog.LevelError, "registration", attrs...)
	} else {
		d.noteRefusal(c, refuseRegistration(err))
		d.far.Info("registration refused", attrs...)
	}
	return id.Compact()
}
