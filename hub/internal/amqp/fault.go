package amqp

import (
	"slices"
	"time"

	"github.com/iotdm/iotdm/hub"
	faults "github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/internal/wait"
)

// What faults of the test controls do to AMQP: see docs/TEST-CONTROLS.md.

// meetFault does to an identity, which has proved who it is and has no link on the connection yet, what a fault wants. It
// returns how long the peer is to wait for the answer.
func (c *conn) meetFault(id hub.ID) (late time.Duration, err error) {
	f := c.door.hub.ConnectionFault(id)
	switch {
	case f == nil:
		return 0, nil
	case f.Drop:
		c.drop(hub.ErrDropped)
		return 0, hub.ErrDropped
	case f.Refusal != nil:
		return 0, f.Refusal
	}
	return f.Latency, nil
}

// serves reports whether an identity has links on the connection.
func (c *conn) serves(id hub.ID) bool {
	c.devices.mu.Lock()
	d := c.devices.byID[id]
	c.devices.mu.Unlock()
	return d != nil && d.why() == nil
}

// claims reports whether the peer has claimed to be this very identity: faults have met it then.
func (c *conn) claimed(id hub.ID) bool {
	return len(c.claims.all(func(cl *claim) bool { return cl.id == id })) > 0
}

// linger waits on behalf of a fault. Nothing else that the peer sends is read meanwhile.
func (c *conn) linger(d time.Duration) {
	if d > 0 {
		_ = wait.For(c.door.ctx, d)
	}
}

// meetTelemetryFault does the same to a delivery, and returns how much later it is to be settled. It is not ok if nothing
// more is to be done with it. A batch is struck once.
func (d *device) meetTelemetryFault(m *engine.Delivery, first hub.Telemetry) (late time.Duration, ok bool) {
	f := d.conn.door.hub.TelemetryFault(d.Peer(), first)
	switch {
	case f == nil:
		return 0, true
	case f.Drop: // the peer hears nothing of it
	case f.Refusal != nil:
		m.Reject(d.conn.refusalOf(f.Refusal))
	default:
		return f.Latency, true
	}
	return 0, false
}

// operationOf returns what the device asks for by a message, or, as the SDK for C does, by the batch around it.
func (d *device) operationOf(format uint32, payload []byte, first hub.Telemetry) (faults.Operation, bool) {
	h := d.conn.door.hub
	if !h.HasFaults() {
		return faults.Operation{}, false
	}
	if o, ok := h.FaultOperation(first.Properties); ok || format != formatBatch {
		return o, ok
	}
	batch, err := readMessage(payload)
	if err != nil {
		return faults.Operation{}, false
	}
	return h.FaultOperation(batch.application)
}

// operate does what the device asks for.
func (d *device) operate(o faults.Operation) {
	d.conn.door.hub.AfterDelay(o.Delay, func() { d.kill(o) })
	d.conn.door.hub.Operate(d.Peer().ID, o)
}

// kill ends what an operation names. The request of a pair is what the side that asks sends: the device for its twin, and
// the hub for direct methods; that the suites mean it so is assumed.
func (d *device) kill(o faults.Operation) {
	c := d.conn
	detach := func(match func(*engine.Link) bool) {
		for _, l := range c.Links() {
			if match(l) {
				l.Detach(refuse(condDetached, "%s", o.Reason))
			}
		}
	}
	switch o.Type {
	case faults.KillTCP:
		c.drop(hub.ErrDropped)
	case faults.KillConnection:
		// Node's client does not know amqp:connection:forced, and its suite wants it to connect again.
		c.ended(hub.ErrDropped)
		c.Close(refuse(condDetached, "%s", o.Reason))
	case faults.ShutDownAMQP:
		c.ended(hub.ErrDropped)
		c.Close(nil)
	case faults.KillSession:
		for _, l := range d.all() {
			l.EndSession(refuse(condDetached, "%s", o.Reason))
		}
	case faults.KillCBSRequest:
		detach(func(l *engine.Link) bool { _, ok := l.Inlet.(cbs); return ok })
	case faults.KillCBSResponse:
		detach(func(l *engine.Link) bool { r, ok := l.Outlet.(replier); return ok && r.of == &c.cbs })
	case faults.KillTelemetry:
		detach(func(l *engine.Link) bool { i, ok := l.Inlet.(telemetryInlet); return ok && i.d == d })
	case faults.KillMessages:
		detach(func(l *engine.Link) bool { o, ok := l.Outlet.(messageOutlet); return ok && o.d == d })
	case faults.KillTwinRequest:
		detach(func(l *engine.Link) bool { return l.Role == wire.Sender && d.isOf(l, nodeDeviceTwin) })
	case faults.KillTwinResponse:
		detach(func(l *engine.Link) bool { return l.Role == wire.Receiver && d.isOf(l, nodeDeviceTwin) })
	case faults.KillMethodRequest:
		detach(func(l *engine.Link) bool { return l.Role == wire.Receiver && d.isOf(l, nodeDeviceMethods) })
	case faults.KillMethodResponse:
		detach(func(l *engine.Link) bool { return l.Role == wire.Sender && d.isOf(l, nodeDeviceMethods) })
	}
}

// isOf reports whether l is in a pair of d of the node.
func (d *device) isOf(l *engine.Link, n node) bool {
	p := d.pairOf(l)
	return p != nil && p.node == n
}

// all returns the links of d.
func (d *device) all() []*engine.Link {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.links)
}
