package hub

import (
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/twin"
)

// handle does what one packet asks for. An error ends the connection: MQTT
// 3.1.1 has no other way to refuse.
func (s *Server) handle(c *conn, header byte, body []byte) error {
	packet, err := decodePacket(header, body)
	if err != nil {
		return err
	}
	if p, ok := packet.(*packets.PublishPacket); ok {
		c.trace("PUBLISH", p.TopicName, len(p.Payload))
		return s.handlePublish(c, p)
	}
	c.awaitStored()
	switch p := packet.(type) {
	case *packets.PubackPacket:
		c.acknowledged(p.MessageID)
		return nil
	case *packets.SubscribePacket:
		return s.handleSubscribe(c, p)
	case *packets.UnsubscribePacket:
		return s.unsubscribe(c, p.Topics, appendAck(nil, packets.Unsuback, p.MessageID))
	case *packets.PingreqPacket:
		c.reply([]byte{packets.Pingresp << 4, 0})
		return nil
	case *packets.DisconnectPacket:
		return errDisconnect
	default:
		return errors.New("a second CONNECT")
	}
}

// handleSubscribe grants at most QoS 1. The subscription is durable before
// SUBACK, and what it lets others send goes out behind it.
func (s *Server) handleSubscribe(c *conn, p *packets.SubscribePacket) error {
	more := make([]subscription, len(p.Topics))
	granted := make([]byte, len(p.Topics))
	for i, filter := range p.Topics {
		if p.Qoss[i] > 2 {
			return errors.New("a SUBSCRIBE with QoS 3")
		}
		granted[i] = min(p.Qoss[i], 1)
		more[i] = subscription{filter, granted[i]}
		c.trace("SUBSCRIBE", filter, 0)
	}
	if err := s.subscribe(c, more, appendAck(nil, packets.Suback, p.MessageID, granted...)); err != nil {
		return err
	}
	s.links.notify(c.id)
	s.deliverTo(c)
	return nil
}

// handlePublish does what a PUBLISH asks for, acknowledges it once that is
// durable, and then answers.
func (s *Server) handlePublish(c *conn, p *packets.PublishPacket) error {
	r, err := parseTopic(c.id, p.TopicName)
	if err != nil {
		return err
	}
	var answer []byte
	switch r.kind {
	case sendTelemetry:
		m, err := newTelemetry(r.bag, p.Payload, p.Retain, p.Dup)
		if err != nil {
			return err
		}
		return s.handleTelemetry(c, m, p.Qos, p.MessageID)
	case getTwin:
		doc, err := s.DeviceTwin(c.id)
		answer = s.twinAnswer(c, "200", r.rid, "", doc, err)
	case patchReported:
		version, err := s.PatchReported(c.id, p.Payload, r.version)
		answer = s.twinAnswer(c, "204", r.rid, "&$version="+strconv.FormatInt(version, 10), nil, err)
	case answerMethod:
		c.answer(r.rid, newMethodAnswer(r.status, p.Payload))
	}
	if p.Qos == 1 {
		c.awaitStored()
		c.reply(appendAck(nil, packets.Puback, p.MessageID))
	}
	if answer != nil {
		c.reply(answer)
	}
	return nil
}

// twinAnswer makes the answer to a twin request. It goes to the device that
// asked whether or not it has subscribed: Python asks first. A request without
// a $rid gets none.
func (s *Server) twinAnswer(c *conn, status, rid, version string, body []byte, err error) []byte {
	if err != nil {
		e, id := refusalOf(err), newRequestID()
		if e.Status >= 500 {
			s.log.Error("twin request", logID, c.id.String(), logRID, rid, logStatus, e.Status, logTracking, id.compact(), logReason, err)
		}
		// The Node SDK tells failure from success by the body alone.
		status, version, body = strconv.Itoa(e.Status), "", twinErrorBody(e, id, s.now())
	}
	if rid == "" {
		return nil
	}
	return appendPublish(nil, 0, 0, twinAnswerTopic+status+"/?$rid="+rid+version, body)
}

// trace logs a packet.
func (c *conn) trace(packet, topic string, size int) {
	if log := c.server.log; log.Enabled(c.server.ctx, slog.LevelDebug) {
		log.Debug("received", logID, c.id.String(), logPacket, packet, logTopic, clip(topic), logSize, size)
	}
}

// twinErrorBody is the body of an answer to a twin request that is an error.
func twinErrorBody(e *Error, id requestID, now time.Time) []byte {
	return mustMarshal(struct {
		ErrorCode    int    `json:"errorCode"`
		TrackingID   string `json:"trackingId"`
		Message      string `json:"message"`
		TimestampUTC string `json:"timestampUtc"`
	}{e.Code, id.trackingID(now), e.Text, twin.FormatTime(now)})
}

// handleTelemetry takes a message and reads on before it is durable, so that a
// device that sends many in a row waits for few fsyncs. Each is acknowledged
// once it is, in the order in which they came.
func (s *Server) handleTelemetry(c *conn, m telemetry, qos byte, id uint16) error {
	c.storing(1)
	err := s.receiveTelemetry(c.id, c.grant, c.model, m, func(err error) { c.stored(qos, id, err) })
	if err != nil {
		c.storing(-1)
	}
	return err
}

// storing counts telemetry that is not durable yet.
func (c *conn) storing(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstored += n
}

// stored acknowledges telemetry that has become durable. If it has not, the
// connection ends, and the device sends the message again.
func (c *conn) stored(qos byte, id uint16, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstored--
	if c.unstored == 0 && c.allStored != nil {
		close(c.allStored)
		c.allStored = nil
	}
	switch {
	case err != nil:
		c.endLocked(err)
	case qos > 0 && c.reason == nil:
		c.replyLocked(appendAck(nil, packets.Puback, id))
		c.writeLocked()
	}
}

// awaitStored returns when all telemetry is acknowledged: answers go out in the
// order of what they answer.
func (c *conn) awaitStored() {
	c.mu.Lock()
	if c.unstored == 0 {
		c.mu.Unlock()
		return
	}
	all := make(chan struct{})
	c.allStored = all
	c.mu.Unlock()
	<-all
}
