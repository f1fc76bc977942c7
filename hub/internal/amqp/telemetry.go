package amqp

import (
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

const (
	// A device may have this many messages under way that are not durable.
	telemetryCredit = 200

	// encodingRoom is how much longer a message may be on the wire than as the
	// service counts it: the names of system properties, and the types of values.
	encodingRoom = 64 << 10

	maxTelemetry = hub.MaxMessageSize + encodingRoom

	// batchSlack is how much longer than it is told a batch may be. The SDK for C
	// fills a batch with messages up to that, and does not count the heads of the
	// data sections: 5 bytes for each message, which has 5 itself at least.
	batchSlack = maxTelemetry

	// formatBatch is the message format of several messages in one: the body is
	// a data section for each, which holds it encoded.
	formatBatch = 0x80013700
)

// takeTelemetry sets up a link for telemetry.
func (d *device) takeTelemetry(l *engine.Link) {
	l.Inlet = telemetryInlet{d, l}
	l.Credit = telemetryCredit
	l.MaxMessageSize, l.Slack = maxTelemetry, batchSlack
}

// telemetryInlet takes telemetry.
type telemetryInlet struct {
	d *device
	l *engine.Link
}

// Detached implements engine.Inlet.
func (i telemetryInlet) Detached() { i.d.left(i.l) }

// Receive implements engine.Inlet. It returns before the message is durable,
// and accepts it then.
func (i telemetryInlet) Receive(m *engine.Delivery) {
	if i.d.why() != nil {
		return // the link is being detached
	}
	list, err := readTelemetry(m.Format, m.Payload)
	if err != nil {
		m.Reject(i.d.conn.refusalOf(err))
		return
	}
	if o, ok := i.d.operationOf(m.Format, m.Payload, list[0]); ok {
		i.d.operate(o)
	}
	late, ok := i.d.meetTelemetryFault(m, list[0])
	if !ok {
		return
	}
	settle := func(err error) {
		if err != nil {
			m.Reject(i.d.conn.refusalOf(err))
		} else if late == 0 {
			m.Accept()
		} else {
			time.AfterFunc(late, m.Accept)
		}
	}
	if len(list) > 1 {
		settle = afterAll(len(list), settle)
	}
	h, peer := i.d.conn.door.hub, i.d.Peer()
	for _, t := range list {
		if err := h.ReceiveTelemetry(peer, t, settle); err != nil {
			m.Reject(i.d.conn.refusalOf(err))
			return
		}
	}
}

// afterAll returns a function that calls settle at its nth call, or at the first
// with an error.
func afterAll(n int, settle func(error)) func(error) {
	var left atomic.Int64
	left.Store(int64(n))
	return func(err error) {
		if last := left.Add(-1) == 0; last || err != nil {
			settle(err)
		}
	}
}

// readTelemetry reads a delivery: one message, or a batch.
func readTelemetry(format uint32, payload []byte) ([]hub.Telemetry, error) {
	if format != formatBatch {
		t, err := newTelemetry(payload)
		return []hub.Telemetry{t}, err
	}
	batch, err := wire.DecodeMessage(payload)
	if err != nil {
		return nil, refuse(condDecode, "%v", err)
	}
	if len(batch.Data) == 0 {
		return nil, refuse(condArgument, "a batch without a message")
	}
	list := make([]hub.Telemetry, len(batch.Data))
	for i, encoded := range batch.Data {
		if list[i], err = newTelemetry(encoded); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// newTelemetry reads a message.
func newTelemetry(payload []byte) (hub.Telemetry, error) {
	m, err := readMessage(payload)
	if err != nil {
		return hub.Telemetry{}, err
	}
	t := hub.Telemetry{Body: m.body, Properties: m.application}
	add := func(name, value string) {
		if value != "" {
			t.System = append(t.System, hub.Property{Name: name, Value: value})
		}
	}
	p := &m.properties
	text := func(v any) string { s, _ := textOf(v); return s }
	add("message-id", text(p.MessageID))
	add("correlation-id", text(p.CorrelationID))
	add("user-id", string(p.UserID))
	add("to", p.To)
	add("content-type", p.ContentType)
	add("content-encoding", p.ContentEncoding)
	created := ""
	if !p.CreationTime.IsZero() {
		created = p.CreationTime.UTC().Format(eventTime)
	}
	for _, s := range m.system {
		switch s.Name {
		case "iothub-creation-time-utc":
			created = s.Value
		case "iothub-outputname", "iothub-message-schema", "iothub-operation":
			add(s.Name, s.Value)
		}
	}
	add("iothub-creation-time-utc", created)
	for _, name := range []string{"dt-subject", "iothub-interface-id"} {
		add(name, text(m.annotations.Get(name)))
	}
	return t, nil
}

// eventTime is how the SDKs write a time over other protocols.
const eventTime = "2006-01-02T15:04:05.0000000Z"
