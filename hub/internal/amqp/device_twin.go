package amqp

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
)

// The annotations of twin requests and what stands in them.
const (
	twinOperation = "operation"
	twinResource  = "resource"
	twinVersion   = "version"
	twinStatus    = "status"

	resourceReported      = "/properties/reported"
	resourceDesired       = "/properties/desired"
	resourceNotifications = "/notifications/twin/properties/desired"
)

// maxTwinSize has room for a patch of 32 KB as the service counts it, with
// blanks and metadata.
const (
	twinCredit  = 32
	maxTwinSize = 256 << 10
)

// takeTwin sets up a link of the twin.
func (d *device) takeTwin(l *engine.Link) {
	if l.Role == wire.Sender {
		l.Inlet = twinInlet{d, l}
		l.Credit, l.MaxMessageSize = twinCredit, maxTwinSize
		return
	}
	l.Outlet = silent{d, l}
	l.MaxMessageSize = maxTwinSize
}

// twinInlet takes twin requests.
type twinInlet struct {
	d *device
	l *engine.Link
}

// Detached implements engine.Inlet.
func (i twinInlet) Detached() { i.d.left(i.l) }

// Receive implements engine.Inlet.
func (i twinInlet) Receive(m *engine.Delivery) {
	r, err := readTwinRequest(m.Payload)
	if err != nil {
		m.Reject(err)
		return
	}
	m.Accept() // it is no more than that: what became of it says the answer
	p := i.d.pairOf(i.l)
	if p == nil {
		return // d has ended
	}
	i.d.do(func() { i.d.answerTwin(p, r) })
}

// A twinRequest is what a device asks of its twin.
type twinRequest struct {
	operation, resource string
	version             int64 // of the reported properties that a patch is for, or hub.AnyVersion
	badVersion          bool
	correlation         any // as the device wrote it, to be echoed; nil wants no answer
	body                []byte
}

func (r *twinRequest) gets() bool { return strings.EqualFold(r.operation, "GET") }

func (r *twinRequest) patches() bool {
	return strings.EqualFold(r.operation, "PATCH") && strings.EqualFold(r.resource, resourceReported)
}

// readTwinRequest reads a request. It keeps nothing of payload.
func readTwinRequest(payload []byte) (r twinRequest, _ *wire.Error) {
	m, err := wire.DecodeMessage(payload)
	if err != nil {
		return r, refuse(condDecode, "%v", err)
	}
	r.operation, _ = textOf(m.Annotations.Get(twinOperation))
	r.resource, _ = textOf(m.Annotations.Get(twinResource))
	r.version = hub.AnyVersion
	if v := m.Annotations.Get(twinVersion); v != nil {
		n, ok := integer(v)
		r.version, r.badVersion = n, !ok || n < 0
	}
	if m.Properties != nil {
		r.correlation = m.Properties.CorrelationID
		if b, ok := r.correlation.([]byte); ok {
			r.correlation = slices.Clone(b)
		}
	}
	r.body = slices.Clone(bodyOf(m))
	return r, nil
}

// answerTwin does what a request asks for and answers it, if the other link of
// the pair is attached.
func (d *device) answerTwin(p *pair, r twinRequest) {
	f := d.twinFault(r)
	if f != nil && f.Drop {
		return
	}
	var a wire.Message
	if f != nil && f.Refusal != nil {
		a = d.twinError(f.Refusal)
	} else {
		a = d.twinAnswer(p, r)
	}
	if r.correlation == nil {
		return
	}
	a.Properties = &wire.Properties{CorrelationID: r.correlation}
	answer := func() {
		if out := d.outOf(p); out != nil {
			out.Post(wire.AppendMessage(nil, &a), mayPresettle(out))
		}
	}
	if f != nil && f.Latency > 0 {
		time.AfterFunc(f.Latency, answer)
		return
	}
	answer()
}

// twinFault returns what goes wrong with a request that gets the twin or patches it; nil is nothing.
func (d *device) twinFault(r twinRequest) *hub.Fault {
	switch {
	case r.gets():
		return d.conn.door.hub.TwinFault(d.Peer().ID, journal.Got, nil)
	case r.patches():
		return d.conn.door.hub.TwinFault(d.Peer().ID, journal.Reported, r.body)
	}
	return nil
}

// outOf returns the link of a pair on which the device receives, or nil.
func (d *device) outOf(p *pair) *engine.Link {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason != nil {
		return nil
	}
	return p.out
}

func (d *device) twinAnswer(p *pair, r twinRequest) wire.Message {
	h, id := d.conn.door.hub, d.Peer().ID
	switch {
	case r.gets():
		doc, err := h.DeviceTwin(id)
		if err != nil {
			return d.twinError(err)
		}
		return twinMessage(200, doc)
	case r.patches():
		if r.badVersion {
			return d.twinError(hub.ErrArgumentInvalid.With("the annotation %s is not a number", twinVersion))
		}
		version, err := h.PatchReported(id, r.body, r.version)
		if err != nil {
			return d.twinError(err)
		}
		return twinMessage(204, nil, wire.Entry{Key: wire.Symbol(twinVersion), Value: version})
	case strings.EqualFold(r.operation, "PUT") && strings.EqualFold(r.resource, resourceNotifications):
		d.subscribe(p, true)
		h.Ready(d)
		return twinMessage(200, nil)
	case strings.EqualFold(r.operation, "DELETE") && strings.EqualFold(r.resource, resourceNotifications):
		d.subscribe(p, false)
		return twinMessage(200, nil)
	}
	return d.twinError(hub.ErrArgumentInvalid.With("a twin has no operation %q on %q", words.Clip(r.operation), words.Clip(r.resource)))
}

func (d *device) subscribe(p *pair, subscribed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p.subscribed = subscribed
}

// twinMessage makes an answer. The .NET SDK reads a status of this type only.
func twinMessage(status int32, body []byte, more ...wire.Entry) wire.Message {
	return wire.Message{
		Annotations: append(wire.Map{{Key: wire.Symbol(twinStatus), Value: status}}, more...),
		Data:        [][]byte{body},
	}
}

func (d *device) twinError(err error) wire.Message {
	e, id := hub.RefusalOf(err), words.NewRequestID()
	if e.Status >= 500 {
		d.conn.door.log.Error("twin request", words.LogID, d.Peer().ID.String(), words.LogStatus, e.Status, words.LogTracking, id.Compact(), words.LogReason, err)
	}
	return twinMessage(int32(e.Status), id.TwinError(e.Code, e.Text, d.conn.door.hub.Now()))
}

// SendDesired implements hub.Link. Without a correlation id it is no answer.
func (d *device) SendDesired(_ int64, body json.RawMessage) {
	var message []byte
	for _, p := range d.whole(nodeDeviceTwin) {
		if !d.isSubscribed(p.pair) {
			continue
		}
		if message == nil {
			message = wire.AppendMessage(nil, &wire.Message{
				Annotations: wire.Map{{Key: wire.Symbol(twinResource), Value: resourceDesired}},
				Data:        [][]byte{body},
			})
		}
		p.out.Post(message, mayPresettle(p.out))
	}
}

func (d *device) isSubscribed(p *pair) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return p.subscribed
}
