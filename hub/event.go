package hub

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
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

var eventSources = []EventSource{SourceTelemetry, SourceTwinChange, SourceDeviceLifecycle, SourceConnectionState}

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

// MaxMessageSize bounds a device's message, counted as the service does.
const MaxMessageSize = 256 << 10

// eventTrim is how often the event log of a hub that receives nothing drops
// what is too old.
const eventTrim = time.Minute

func (s *Server) trimEvents() {
	tick := s.clock.NewTicker(eventTrim)
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

// ReceiveTelemetry takes a message from a device or module. It returns before
// the message is durable, so that a connection is read on meanwhile; then, or
// when that fails, it has stored called, in the order in which the messages
// came. stored must not block.
//
// Errors, after which stored is not called: ErrMessageTooLarge,
// ErrArgumentInvalid, and ErrServiceUnavailable when the hub closes.
func (s *Server) ReceiveTelemetry(from Peer, m Telemetry, stored func(error)) error {
	if s.journal == nil {
		return s.receiveTelemetry(from, m, stored)
	}
	note := s.noteTelemetry(from, m)
	err := s.receiveTelemetry(from, m, func(err error) {
		note(err)
		stored(err)
	})
	if err != nil {
		note(err)
	}
	return err
}

func (s *Server) receiveTelemetry(from Peer, m Telemetry, stored func(error)) error {
	if m.Size() > MaxMessageSize {
		return ErrMessageTooLarge.With("a message must be at most %d bytes", MaxMessageSize)
	}
	if err := cmp.Or(checkText(m.System), checkText(m.Properties)); err != nil {
		return err
	}
	e := Event{
		Source: SourceTelemetry, From: from.ID,
		Generation: from.Grant.generation, AuthMethod: from.Grant.method(), Model: from.Model,
		System: m.System, Properties: m.Properties, Body: m.Body,
	}
	buf := eventBuffers.Get().(*[]byte)
	defer eventBuffers.Put(buf)
	*buf = e.appendTo((*buf)[:0], nil)
	err := s.events.Append(e.From.Device, *buf, stored)
	switch {
	case err == nil:
		s.metrics.event(SourceTelemetry)
	case errors.Is(err, eventlog.ErrClosed):
		return ErrServiceUnavailable.With("%v", ErrClosing)
	case errors.Is(err, eventlog.ErrTooLarge):
		// The names of system properties do not count as size.
		return ErrMessageTooLarge.With("the message's properties are too large")
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
		b = disk.AppendText(b, text)
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

// appendProperties appends a count and the properties, each as its name and its
// value, if it has one.
func appendProperties(b []byte, list []Property) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, p := range list {
		b = disk.AppendText(b, p.Name)
		b = disk.AppendOptional(b, p.Value, !p.Null)
	}
	return b
}

// readProperties reads what appendProperties wrote.
func readProperties(r *disk.Reader) []Property {
	n := r.Count()
	if n == 0 {
		return nil
	}
	list := make([]Property, n)
	for i := range list {
		list[i].Name = string(r.Text())
		value, present := r.Optional()
		list[i].Value, list[i].Null = string(value), !present
	}
	return list
}

// readEvent returns a reader of a stored event.
func readEvent(data []byte) (r disk.Reader, isPatch bool) {
	if isPatch = len(data) > 0 && data[0] == patchFormat; isPatch {
		return disk.Read("event", data, patchFormat), true
	}
	return disk.Read("event", data, eventFormat), false
}

// decodeEvent reads an event of the log. The body may be a slice of the record.
func decodeEvent(record eventlog.Record) (Event, error) {
	r, isPatch := readEvent(record.Data)
	e := Event{
		Partition: record.Partition, Sequence: record.Sequence, Offset: record.Offset, Enqueued: record.Time,
		From:   ID{string(r.Text()), string(r.Text())},
		Source: EventSource(r.Text()), Generation: string(r.Text()), AuthMethod: string(r.Text()), Model: string(r.Text()),
	}
	var patch reportedPatch
	if isPatch {
		patch = reportedPatch{twin: int64(r.Number()), reported: int64(r.Number()), at: time.Unix(0, int64(r.Number()))}
	}
	e.System, e.Properties = readProperties(&r), readProperties(&r)
	e.Body = r.Rest()
	if err := r.Err(); err != nil {
		return Event{}, err
	}
	if isPatch {
		var err error
		if e.Body, err = patch.body(e.Body); err != nil {
			return Event{}, fmt.Errorf("stored event: %w", err)
		}
		e.Properties = append(e.Properties, Property{Name: changedBy, Value: e.From.title()})
	}
	return e, nil
}

// An EventQuery says which events to read. The zero value is all that are kept.
type EventQuery struct {
	Device    string        // of this device and its modules; empty is of all
	Sources   []EventSource // of these sources; none is of all
	Partition *int          // of this partition, which exists; nil is of all

	// Where to begin: with the events enqueued at Since or later, at Offset or
	// behind it, and with Sequence or a higher number, each in its partition.
	// Latest is behind all there are.
	Since    time.Time
	Offset   int64
	Sequence int64
	Latest   bool

	// Last, if it is not 0, leaves out all but the last so many of the events
	// that there are.
	Last int

	// Follow goes on at the end with the events that come, until ctx ends.
	// AtEnd is called before each wait for more, if it is not nil.
	Follow bool
	AtEnd  func()

	// Damaged is called, if it is not nil, where events are missing because the
	// disk has damaged them: between those before and behind. Of which devices
	// they were is not known. Its error ends the reading.
	Damaged func(EventDamage) error
}

// An EventDamage is a place of so many bytes in the event log whose events are
// lost.
type EventDamage struct{ Offset, Bytes int64 }

// Events returns the events of the query, in order, whose durability is
// certain. The slices of an event are valid only until the next one. An error is
// the last thing that comes: that of ctx, or ErrClosed when the hub closes.
func (s *Server) Events(ctx context.Context, q EventQuery) iter.Seq2[Event, error] {
	return store.Seq(func(yield func(Event) error) error {
		err := s.readEvents(ctx, q, yield)
		if errors.Is(err, eventlog.ErrClosed) {
			return ErrClosed
		}
		return err
	})
}

func (s *Server) readEvents(ctx context.Context, q EventQuery, yield func(Event) error) error {
	var atEnd func()
	if q.Follow {
		atEnd = func() {
			if q.AtEnd != nil {
				q.AtEnd()
			}
		}
	}
	damaged := func(d eventlog.Damage) error {
		if q.Damaged == nil {
			return nil
		}
		return q.Damaged(EventDamage(d))
	}
	partition := eventlog.All
	if q.Partition != nil {
		partition = *q.Partition
	}
	from := eventlog.Position{Offset: q.Offset, Sequence: q.Sequence, Time: q.Since, End: q.Latest}
	if q.Last > 0 {
		var err error
		if from.Offset, err = s.offsetOfLast(ctx, q, partition, from); err != nil {
			return err
		}
	}
	return s.events.ReadOver(ctx, partition, from, atEnd, damaged, func(r eventlog.Record) error {
		if !q.wants(r.Data) {
			return nil
		}
		e, err := decodeEvent(r)
		if err != nil {
			return fmt.Errorf("event at offset %d: %w", r.Offset, err)
		}
		return yield(e)
	})
}

// wants reports whether a query is about an event, without decoding all of it. Of
// one that cannot be read, decodeEvent says what is wrong.
func (q *EventQuery) wants(data []byte) bool {
	if q.Device != "" && !isEventOf(data, q.Device) {
		return false
	}
	return len(q.Sources) == 0 || slices.Contains(q.Sources, sourceOf(data))
}

// offsetOfLast returns where the last events of a query begin. It looks at the end
// of the log first, and then farther back until they are enough.
func (s *Server) offsetOfLast(ctx context.Context, q EventQuery, partition int, from eventlog.Position) (int64, error) {
	bounds, err := s.events.Bounds(ctx, 0)
	if err != nil {
		return 0, err
	}
	const (
		near    = 1 << 20
		farther = 8
	)
	for back := int64(near); ; back *= farther {
		at := from
		at.Offset = max(from.Offset, bounds.End-back)
		offsets := make([]int64, 0, q.Last) // of the last ones, in a ring
		n := 0
		err := s.events.Read(ctx, partition, at, nil, func(r eventlog.Record) error {
			switch {
			case !q.wants(r.Data):
				return nil
			case len(offsets) < q.Last:
				offsets = append(offsets, r.Offset)
			default:
				offsets[n%q.Last] = r.Offset
			}
			n++
			return nil
		})
		switch {
		case err != nil:
			return 0, err
		case n >= q.Last:
			return offsets[n%q.Last], nil
		case at.Offset <= max(from.Offset, 0):
			return at.Offset, nil
		}
	}
}

// sourceOf tells the source of an event without decoding all of it. Of one that
// it cannot read it says nothing.
func sourceOf(data []byte) EventSource {
	r, _ := readEvent(data)
	r.Text()
	r.Text()
	text := r.Text()
	for _, source := range eventSources {
		if string(text) == string(source) { // makes no string
			return source
		}
	}
	return EventSource(text)
}

// deviceOf tells whose event it is, or whose module's, without decoding all of it.
func deviceOf(data []byte) []byte {
	r, _ := readEvent(data)
	return r.Text()
}

// isEventOf tells whose event it is without decoding all of it. Of one that it
// cannot read, decodeEvent says what is wrong.
func isEventOf(data []byte, device string) bool {
	r, _ := readEvent(data)
	name := r.Text()
	return string(name) == device || r.Err() != nil
}
