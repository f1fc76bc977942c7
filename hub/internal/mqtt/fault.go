package mqtt

import (
	"errors"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	faults "github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/internal/wait"
)

// What faults of the test controls do to MQTT 3.1.1, which has no other way to refuse a packet than to end the connection:
// see docs/TEST-CONTROLS.md.

// meetFault does to a connection, whose credential is accepted, what a fault wants.
func (d *Door) meetFault(c *conn) error {
	f := d.hub.ConnectionFault(c.peer.ID)
	switch {
	case f == nil:
		return nil
	case f.Drop:
		return hub.ErrDropped
	case f.Refusal != nil:
		return refuseFor(f.Refusal)
	}
	serve.Admit(c.net) // it is known, and may take its time
	c.net.SetDeadline(time.Now().Add(f.Latency + connectTimeout))
	return wait.For(d.ctx, f.Latency)
}

// meetTelemetryFault does the same to a message, and returns when it is to be acknowledged. It is not ok if the message
// is lost.
func (d *Door) meetTelemetryFault(c *conn, m hub.Telemetry) (due time.Time, ok bool, err error) {
	if o, asked := d.hub.FaultOperation(m.Properties); asked {
		d.operate(c, o)
	}
	f := d.hub.TelemetryFault(c.peer, m)
	switch {
	case f == nil:
		return due, true, nil
	case f.Drop:
		return due, false, nil
	case f.Refusal != nil:
		return due, false, fault{f.Refusal, whyUnavailable}
	}
	return time.Now().Add(f.Latency), true, nil
}

// operate does what the device asks for by a message. The message itself is stored and acknowledged before; that the
// service acknowledges none over MQTT has clients send it again and again
// (Azure/azure-iot-sdk-csharp: e2e/test/helpers/templates/FaultInjection.cs).
func (d *Door) operate(c *conn, o faults.Operation) {
	switch o.Type {
	case faults.KillTCP, faults.ShutDownMQTT:
		d.hub.AfterDelay(o.Delay, func() { c.End(hub.ErrDropped) })
	default:
		d.hub.Operate(c.peer.ID, o)
	}
}

// errHeldBack ends the connection of a peer that asks for ever more while a fault keeps the answers back.
var errHeldBack = errors.New("more answers are kept back by a fault than one connection may have waiting")

// maxLateAcks are as many as there are packet ids.
const maxLateAcks = 1<<16 - 1

// A lateAck is a PUBACK that a fault keeps back, or that waits behind such a one: they go out in the order of what they
// acknowledge (MQTT-4.6.0-2).
type lateAck struct {
	id  uint16
	due time.Time
}

// pubackLocked acknowledges telemetry, as soon as that is due.
func (c *conn) pubackLocked(id uint16, due time.Time) {
	if len(c.late) == 0 && (due.IsZero() || !due.After(time.Now())) {
		c.replyLocked(appendAck(nil, packets.Puback, id))
		c.writeLocked()
		return
	}
	if len(c.late) == maxLateAcks {
		c.endLocked(errHeldBack)
		return
	}
	c.late = append(c.late, lateAck{id, due})
	if len(c.late) == 1 {
		time.AfterFunc(time.Until(due), c.sendLate)
	}
}

// sendLate sends the acknowledgements that are due.
func (c *conn) sendLate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		c.late = nil
		return
	}
	now := time.Now()
	for len(c.late) > 0 && !c.late[0].due.After(now) {
		c.replyLocked(appendAck(nil, packets.Puback, c.late[0].id))
		c.late = c.late[1:]
	}
	if len(c.late) > 0 {
		time.AfterFunc(time.Until(c.late[0].due), c.sendLate)
	}
	c.writeLocked()
}

// replyLate sends packets later, if the connection is still there.
func (c *conn) replyLate(d time.Duration, packets []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lateBytes += len(packets); c.lateBytes > maxQueued {
		c.endLocked(errHeldBack)
		return
	}
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lateBytes -= len(packets)
		c.replyLocked(packets)
		c.writeLocked()
	})
}
