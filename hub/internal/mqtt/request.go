package mqtt

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
)

// handle does what one packet asks for. An error ends the connection: MQTT
// 3.1.1 has no other way to refuse.
func (d *Door) handle(c *conn, header byte, body []byte) error {
	packet, err := decodePacket(header, body)
	if err != nil {
		return err
	}
	if p, ok := packet.(*packets.PublishPacket); ok {
		c.trace("PUBLISH", p.TopicName, len(p.Payload))
		if c.asks != nil {
			return d.handleRegistrationPublish(c, p)
		}
		return d.handlePublish(c, p)
	}
	c.awaitStored()
	switch p := packet.(type) {
	case *packets.PubackPacket:
		d.acknowledged(c, p.MessageID)
		return nil
	case *packets.SubscribePacket:
		if c.asks != nil {
			return c.subscribeRegistration(p)
		}
		return d.handleSubscribe(c, p)
	case *packets.UnsubscribePacket:
		if c.asks != nil {
			c.reply(appendAck(nil, packets.Unsuback, p.MessageID))
			return nil
		}
		for _, filter := range p.Topics {
			d.hub.NoteSubscription(c.peer, journal.Unsubscribed, filter)
		}
		return d.unsubscribe(c, p.Topics, appendAck(nil, packets.Unsuback, p.MessageID))
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
func (d *Door) handleSubscribe(c *conn, p *packets.SubscribePacket) error {
	granted, err := c.grantQoS(p)
	if err != nil {
		return err
	}
	more := make([]subscription, len(p.Topics))
	for i, filter := range p.Topics {
		more[i] = subscription{filter, granted[i]}
	}
	if err := d.subscribe(c, more, appendAck(nil, packets.Suback, p.MessageID, granted...)); err != nil {
		return err
	}
	for _, filter := range p.Topics {
		d.hub.NoteSubscription(c.peer, journal.Subscribed, filter)
	}
	d.hub.Ready(c)
	return nil
}

// grantQoS is what each filter of a SUBSCRIBE is granted, if it is.
func (c *conn) grantQoS(p *packets.SubscribePacket) ([]byte, error) {
	granted := make([]byte, len(p.Topics))
	for i, filter := range p.Topics {
		if p.Qoss[i] > 2 {
			return nil, errors.New("a SUBSCRIBE with QoS 3")
		}
		granted[i] = min(p.Qoss[i], 1)
		c.trace("SUBSCRIBE", filter, 0)
	}
	return granted, nil
}

// handlePublish does what a PUBLISH asks for, acknowledges it once that is
// durable, and then answers.
func (d *Door) handlePublish(c *conn, p *packets.PublishPacket) error {
	r, err := parseTopic(c.peer.ID, p.TopicName)
	if err != nil {
		return fmt.Errorf("PUBLISH to %q: %w", words.Clip(p.TopicName), err)
	}
	var answer []byte
	switch r.kind {
	case sendTelemetry:
		m, err := newTelemetry(r.bag, p.Payload, p.Retain, p.Dup)
		if err != nil {
			return fmt.Errorf("PUBLISH to %q: %w", words.Clip(p.TopicName), err)
		}
		return d.handleTelemetry(c, m, p.Qos, p.MessageID)
	case getTwin, patchReported:
		answer = d.answerTwin(c, r, p.Payload)
	case answerMethod:
		c.answer(r.rid, newAnswer(r.status, p.Payload))
		// The caller goes on at once, and not when this goroutine has found that
		// there is nothing more to read.
		runtime.Gosched()
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

// newAnswer reads a device's answer to a direct method, with an integer as
// status.
func newAnswer(status string, payload []byte) answer {
	n, err := strconv.ParseInt(status, 10, 32)
	if err != nil {
		return answer{err: hub.ErrBadDeviceResponse.With("the device's status %q is not an integer", words.Clip(status))}
	}
	return answer{MethodAnswer: hub.MethodAnswer{Status: int32(n), Payload: payload}}
}

// answerTwin does what a twin request asks for and returns the answer, nil if there is none now.
func (d *Door) answerTwin(c *conn, r request, payload []byte) (answer []byte) {
	what, patch := journal.Got, []byte(nil)
	if r.kind == patchReported {
		what, patch = journal.Reported, payload
	}
	f := d.hub.TwinFault(c.peer.ID, what, patch)
	switch {
	case f != nil && f.Drop:
		return nil
	case f != nil && f.Refusal != nil:
		return d.twinAnswer(c, "", r.rid, "", nil, f.Refusal)
	case r.kind == getTwin:
		doc, err := d.hub.DeviceTwin(c.peer.ID)
		answer = d.twinAnswer(c, "200", r.rid, "", doc, err)
	default:
		version, err := d.hub.PatchReported(c.peer.ID, patch, r.version)
		answer = d.twinAnswer(c, "204", r.rid, "&$version="+strconv.FormatInt(version, 10), nil, err)
	}
	if f != nil {
		c.replyLate(f.Latency, answer)
		return nil
	}
	return answer
}

// twinAnswer makes the answer to a twin request. It goes to the device that
// asked whether or not it has subscribed: Python asks first. A request without
// a $rid gets none.
func (d *Door) twinAnswer(c *conn, status, rid, version string, body []byte, err error) []byte {
	if err != nil {
		e, id := hub.RefusalOf(err), words.NewRequestID()
		if e.Status >= 500 {
			d.log.Error("twin request", words.LogID, c.peer.ID.String(), words.LogRID, rid, words.LogStatus, e.Status, words.LogTracking, id.Compact(), words.LogReason, err)
		}
		// The Node SDK tells failure from success by the body alone.
		status, version, body = strconv.Itoa(e.Status), "", id.TwinError(e.Code, e.Text, d.hub.Now())
	}
	if rid == "" {
		return nil
	}
	return appendPublish(nil, 0, 0, twinAnswerTopic+status+"/?$rid="+rid+version, body)
}

// trace logs a packet.
func (c *conn) trace(packet, topic string, size int) {
	if log := c.door.log; log.Enabled(c.door.ctx, slog.LevelDebug) {
		log.Debug("received", words.LogID, c.peer.ID.String(), words.LogPacket, packet, words.LogTopic, words.Clip(topic), words.LogSize, size)
	}
}

// handleTelemetry takes a message and reads on before it is durable, so that a
// device that sends many in a row waits for few fsyncs. Each is acknowledged
// once it is, in the order in which they came.
func (d *Door) handleTelemetry(c *conn, m hub.Telemetry, qos byte, id uint16) error {
	due, ok, err := d.meetTelemetryFault(c, m)
	if !ok || err != nil {
		return err
	}
	c.storing(1)
	err = d.hub.ReceiveTelemetry(c.peer, m, func(err error) { c.stored(qos, id, due, err) })
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

// stored acknowledges telemetry that has become durable, when it is due. If it has
// not, the connection ends, and the device sends the message again.
func (c *conn) stored(qos byte, id uint16, due time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstored--
	if c.unstored == 0 && c.allStored != nil {
		close(c.allStored)
		c.allStored = nil
	}
	switch {
	case err != nil:
		c.endLocked(fault{err, whyUnavailable})
	case qos > 0 && c.reason == nil:
		c.pubackLocked(id, due)
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
