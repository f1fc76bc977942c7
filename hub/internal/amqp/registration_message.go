package amqp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// The application properties of requests, and their operations.
const (
	propertyOperation   = "iotdps-operation-type"
	propertyOperationID = "iotdps-operation-id"
	propertyForce       = "iotdps-forceRegistration"

	operationRegister = "iotdps-register"
	operationStatus   = "iotdps-get-operationstatus"
)

// retryAfter are the names by which an answer says when to ask again: clients for
// Node and Java read the one, those for .NET the other.
var retryAfter = [...]string{"retry-after", "Retry-After"}

// registrationInlet takes requests of a registration.
type registrationInlet struct{ conn *conn }

// Detached implements engine.Inlet.
func (i registrationInlet) Detached() {
	r := &i.conn.registrant
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inlets--
}

// Receive implements engine.Inlet.
func (i registrationInlet) Receive(d *engine.Delivery) {
	c := i.conn
	request, err := wire.DecodeMessage(bytes.Clone(d.Payload))
	if err != nil {
		d.Reject(refuse(condDecode, "%v", err))
		return
	}
	if !c.work.begin() {
		d.Reject(refuse(condForced, "%v", hub.ErrClosing))
		return
	}
	c.registrant.do(func() {
		defer c.work.end()
		c.answerRegistration(d, request)
	})
}

// answerRegistration does what a request asks for, answers it, and settles it.
func (c *conn) answerRegistration(d *engine.Delivery, request *wire.Message) {
	if c.why() != nil {
		return // nobody would hear of it
	}
	c.registrant.mu.Lock()
	peer := c.registrant.peer
	c.registrant.mu.Unlock()
	peer.Host = c.reached()
	var o provisioning.Operation
	err := c.door.hub.Inside(c.door.ctx, func(ctx context.Context) (err error) {
		o, err = c.register(ctx, peer, request)
		return err
	})
	if errors.Is(err, hub.ErrDropped) {
		c.drop(err)
		return
	}
	if err != nil {
		d.Reject(c.registrationRefused(peer.ID, err))
		return
	}
	answer := &wire.Message{Data: [][]byte{words.MustMarshal(o)}}
	if p := request.Properties; p != nil && p.CorrelationID != nil {
		answer.Properties = &wire.Properties{CorrelationID: p.CorrelationID} // in the type in which it came
	}
	if o.RetryAfter > 0 {
		for _, name := range retryAfter {
			answer.ApplicationProperties = append(answer.ApplicationProperties, wire.Entry{Key: name, Value: int32(words.Seconds(o.RetryAfter))})
		}
	}
	c.registrant.answers.send(d.Link, "", wire.AppendMessage(nil, answer))
	d.Accept()
}

// register asks the provisioning service.
func (c *conn) register(ctx context.Context, p provisioning.Peer, request *wire.Message) (provisioning.Operation, error) {
	none, service := provisioning.Operation{}, c.door.opt.Provisioning
	if service == nil {
		return none, provisioning.ErrUnauthorized.Because("this hub has no provisioning service")
	}
	if err := c.prove(p); err != nil {
		return none, err
	}
	operation, _ := request.ApplicationProperties.Get(propertyOperation).(string)
	switch operation {
	case operationRegister:
		r, err := provisioning.ParseRequest(p.ID, bodyOf(request))
		if err != nil {
			return none, err
		}
		force, _ := request.ApplicationProperties.Get(propertyForce).(bool)
		r.Force = r.Force || force
		return service.Register(ctx, p, r)
	case operationStatus:
		id, _ := request.ApplicationProperties.Get(propertyOperationID).(string)
		if id == "" {
			return none, provisioning.ErrBadRequest.With("a request of %s has no %s", operationStatus, propertyOperationID)
		}
		return service.Operation(p, id)
	}
	return none, provisioning.ErrBadRequest.With("%s must be %s or %s", propertyOperation, operationRegister, operationStatus)
}

// registrationRefused tells the operator of what is refused, and returns what the
// device is told: clients read the envelope in the description.
func (c *conn) registrationRefused(registration string, err error) *wire.Error {
	if errors.Is(err, hub.ErrClosing) || errors.Is(err, hub.ErrReset) {
		return refuse(condForced, "%v", err)
	}
	e, id := provisioning.RefusalOf(err), words.NewRequestID()
	attrs := []slog.Attr{
		slog.String(words.LogRegistration, words.Clip(registration)), slog.String(words.LogRemote, c.remote()),
		slog.Int(words.LogStatus, e.HTTPStatus()), slog.String(words.LogTracking, id.Compact()), slog.String(words.LogReason, err.Error()),
	}
	if e.HTTPStatus() >= 500 {
		c.door.log.LogAttrs(c.door.ctx, slog.LevelError, "registration", attrs...)
	} else {
		c.refused(registrationID(registration), err)
		c.door.far.Info("registration refused", attrs...)
	}
	now := c.door.hub.Now()
	refusal := &wire.Error{
		Condition:   conditionOfStatus(e.HTTPStatus()),
		Description: string(e.Envelope(id.Compact(), now)),
		Info:        wire.Fields{{Key: wire.Symbol(trackingID), Value: id.TrackingID(now)}},
	}
	if after := e.RetryAfter(); after > 0 {
		for _, name := range retryAfter {
			refusal.Info = append(refusal.Info, wire.Entry{Key: wire.Symbol(name), Value: int32(words.Seconds(after))})
		}
	}
	return refusal
}
