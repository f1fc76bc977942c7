package hub

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/eventlog"
)

// An EventSource is what IoT Hub calls the message source: why an event was
// made.
type EventSource string

// The message sources. All but SourceTelemetry are the hub's own: see "Azure
// IoT Hub non-telemetry event schemas".
const (
	SourceTelemetry       EventSource = "Telemetry"
	SourceTwinChange      EventSource = "twinChangeEvents"
	SourceDeviceLifecycle EventSource = "deviceLifecycleEvents"
	SourceConnectionState EventSource = "deviceConnectionStateEvents"
)

// An Event is a message in the hub's event log: what a device sent, or what the
// hub says of it.
type Event struct {
	// Where it stands: the events of a device are in one partition, numbered
	// without gaps; the offset orders the events of all partitions.
	Partition int
	Sequence  int64
	Offset    int64

	Enqueued   time.Time
	Source     EventSource
	From       ID         // who sent it or whom it is about
	Generation string     // generation id of From, of telemetry only
	AuthMethod string     // JSON that says how From was authenticated, of telemetry only
	Model      string     // the Plug and Play model From announced, of telemetry only
	System     []Property // what the sender set, such as message-id; see "Create and read IoT Hub messages"
	Properties []Property // the application's
	Body       []byte
}

// EventPartitions returns the number of partitions of the event log, which is
// set when that is made.
func (s *Server) EventPartitions() int { return s.events.Partitions() }

// maxMessageSize bounds a device's message, counted as the service does.
const maxMessageSize = 256 << 10

// memoryEvents bounds the event log of a hub that keeps nothing on disk.
const memoryEvents = 64 << 20

func openEvents(f *folder, opt Options) (*eventlog.Log, error) {
	o := eventlog.Options{MaxAge: opt.EventAge, MaxBytes: opt.EventBytes, Logger: opt.Logger, Now: opt.Now}
	if f.dir != "" {
		return eventlog.Open(f.eventDir(), o)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = memoryEvents
	}
	return eventlog.OpenMemory(o)
}

// eventTrim is how often the event log of a hub that receives nothing drops
// what is too old.
const eventTrim = time.Minute

func (s *Server) trimEvents() {
	tick := time.NewTicker(eventTrim)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.events.Trim()
		case <-s.ctx.Done():
			return
		}
	}
}

// receiveTelemetry takes a message from the identity that g was granted to. It
// returns before the message is durable, so that a connection is read on
// meanwhile; then, or when that fails, it has stored called, in the order in
// which the messages came. stored must not block.
//
// Errors, after which stored is not called: ErrMessageTooLarge, and
// ErrServiceUnavailable when the hub closes.
func (s *Server) receiveTelemetry(id ID, g grant, model string, m telemetry, stored func(error)) error {
	if m.size() > maxMessageSize {
		return ErrMessageTooLarge.with("a message must be at most %d bytes", maxMessageSize)
	}
	return s.appendEvent(Event{
		Source: SourceTelemetry, From: id,
		Generation: g.generation, AuthMethod: `{"scope":"` + g.scope + `","type":"` + g.kind + `","issuer":"iothub"}`, Model: model,
		System: m.System, Properties: m.Properties, Body: m.Body,
	}, nil, stored)
}

// appendEvent appends e, whose body is a patch if that is not nil.
func (s *Server) appendEvent(e Event, patch *reportedPatch, stored func(error)) error {
	buf := eventBuffers.Get().(*[]byte)
	defer eventBuffers.Put(buf)
	*buf = e.appendTo((*buf)[:0], patch)
	err := s.events.Append(e.From.Device, *buf, stored)
	switch {
	case errors.Is(err, eventlog.ErrClosed):
		return ErrServiceUnavailable.with("%v", errHubClosed)
	case errors.Is(err, eventlog.ErrTooLarge):
		// The names of system properties do not count as size.
		return ErrMessageTooLarge.with("the message's properties are too large")
	}
	return err
}

var eventBuffers = sync.Pool{New: func() any { return new([]byte) }}

// The first byte of a stored event is one of these. Texts follow with their
// length in front, the device first, and the body last.
const (
	eventFormat = 1
	patchFormat = 2 // with the numbers of a reportedPatch behind the texts, and the patch as body
)

func (e *Event) appendTo(b []byte, patch *reportedPatch) []byte {
	format := byte(eventFormat)
	if patch != nil {
		format = patchFormat
	}
	b = append(b, format)
	for _, text := range []string{e.From.Device, e.From.Module, string(e.Source), e.Generation, e.AuthMethod, e.Model} {
		b = appendText(b, text)
	}
	if patch != nil {
		b = binary.AppendUvarint(b, uint64(patch.twin))
		b = binary.AppendUvarint(b, uint64(patch.reported))
		b = binary.AppendUvarint(b, uint64(patch.at.UnixNano()))
	}
	b = appendProperties(b, e.System)
	b = appendProperties(b, e.Properties)
	return append(b, e.Body...)
}

// appendProperties appends a count and the properties: each as its name, and
// its value with 0 for none or else 1 more than its length in front.
func appendProperties(b []byte, list []Property) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, p := range list {
		b = appendText(b, p.Name)
		if p.Null {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(p.Value))+1)
		b = append(b, p.Value...)
	}
	return b
}

// properties reads what appendProperties wrote.
func (d *fieldReader) properties() []Property {
	n := d.number()
	if n == 0 || n > uint64(len(d.rest)) {
		d.cut = d.cut || n > 0
		return nil
	}
	list := make([]Property, n)
	for i := range list {
		list[i].Name = string(d.text())
		size := d.number()
		if size == 0 {
			list[i].Null = true
			continue
		}
		if size-1 > uint64(len(d.rest)) {
			d.cut = true
			return nil
		}
		list[i].Value = string(d.rest[:size-1])
		d.rest = d.rest[size-1:]
	}
	return list
}

// decodeEvent reads an event of the log. The body may be a slice of the record.
func decodeEvent(r eventlog.Record) (Event, error) {
	if !isEvent(r.Data) {
		return Event{}, errors.New("stored event: unknown format")
	}
	d := fieldReader{rest: r.Data[1:]}
	e := Event{
		Partition: r.Partition, Sequence: r.Sequence, Offset: r.Offset, Enqueued: r.Time,
		From:   ID{string(d.text()), string(d.text())},
		Source: EventSource(d.text()), Generation: string(d.text()), AuthMethod: string(d.text()), Model: string(d.text()),
	}
	var patch reportedPatch
	if r.Data[0] == patchFormat {
		patch = reportedPatch{twin: int64(d.number()), reported: int64(d.number()), at: time.Unix(0, int64(d.number()))}
	}
	e.System, e.Properties = d.properties(), d.properties()
	e.Body = d.rest
	if d.cut {
		return Event{}, errors.New("stored event: cut short")
	}
	if r.Data[0] == patchFormat {
		var err error
		if e.Body, err = patch.body(d.rest); err != nil {
			return Event{}, fmt.Errorf("stored event: %w", err)
		}
		e.Properties = append(e.Properties, Property{Name: changedBy, Value: e.From.title()})
	}
	return e, nil
}

func isEvent(data []byte) bool {
	return len(data) > 0 && (data[0] == eventFormat || data[0] == patchFormat)
}

// An EventQuery says which events to read. The zero value is all that are kept.
type EventQuery struct {
	Device  string        // of this device and its modules; empty is of all
	Sources []EventSource // of these sources; none is of all

	// Where to begin: with the events enqueued at Since or later, and at
	// Offset or behind it. Latest is behind all there are.
	Since  time.Time
	Offset int64
	Latest bool

	// Follow goes on at the end with the events that come, until ctx ends.
	Follow bool
}

// Events calls fn for the events of the query, in order, whose durability is
// certain. The slices of an event are valid only until fn returns. Events
// returns the error of fn, which ends it, that of ctx, or ErrClosed when the
// hub closes.
func (s *Server) Events(ctx context.Context, q EventQuery, fn func(Event) error) error {
	return s.readEvents(ctx, q, func() {}, fn)
}

// readEvents is Events, and calls atEnd before it waits for more.
func (s *Server) readEvents(ctx context.Context, q EventQuery, atEnd func(), fn func(Event) error) error {
	if !q.Follow {
		atEnd = nil
	}
	from := eventlog.Position{Offset: q.Offset, Time: q.Since, End: q.Latest}
	err := s.events.Read(ctx, eventlog.All, from, atEnd, func(r eventlog.Record) error {
		if q.Device != "" && !isEventOf(r.Data, q.Device) {
			return nil
		}
		e, err := decodeEvent(r)
		if err != nil {
			return fmt.Errorf("event at offset %d: %w", r.Offset, err)
		}
		if len(q.Sources) > 0 && !slices.Contains(q.Sources, e.Source) {
			return nil
		}
		return fn(e)
	})
	if errors.Is(err, eventlog.ErrClosed) {
		return ErrClosed
	}
	return err
}

// isEventOf tells whose event it is without decoding all of it.
func isEventOf(data []byte, device string) bool {
	if !isEvent(data) {
		return true // decodeEvent says what is wrong
	}
	d := fieldReader{rest: data[1:]}
	return string(d.text()) == device
}
