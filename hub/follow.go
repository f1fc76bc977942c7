package hub

import (
	"encoding/binary"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// What follows of the changes of a Tx is told in notices of the store: so every
// node hears of it, in the order of the changes, and does what concerns those
// that it has.
// Events are notices of their own, before that of the changes.
const changeNotice = "change"

// changeFormat is the first byte of a notice of changes.
const changeFormat = 1

// tellChanges tells of the changes of a Tx.
func (tx *Tx) tellChanges() {
	if len(tx.changes) == 0 {
		return
	}
	size := 1
	for i := range tx.changes {
		c := &tx.changes[i]
		size += len(c.id.Device) + len(c.id.Module) + len(c.write.Desired) + 4*binary.MaxVarintLen32
	}
	b := append(make([]byte, 0, size), changeFormat)
	for i := range tx.changes {
		c := &tx.changes[i]
		b = append(b, byte(c.kind), byte(c.write.Side))
		b = disk.AppendText(disk.AppendText(b, c.id.Device), c.id.Module)
		if c.write.Desired == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(c.write.Desired))+1)
		b = append(b, c.write.Desired...)
		b = binary.AppendUvarint(b, uint64(c.twin.Desired.Version))
	}
	tx.Store.Tell(changeNotice, b)
}

// A told is what is told of a change.
type told struct {
	kind    changeKind
	side    Side
	id      ID
	desired []byte // what was written of the desired properties; nil is nothing
	version int64  // which they have then
}

// readTold reads what tellChanges told of the next change. The desired
// properties are a slice of it.
func readTold(r *disk.Reader) (c told) {
	c.kind, c.side = changeKind(r.Number()), Side(r.Number())
	c.id = ID{Device: string(r.Text()), Module: string(r.Text())}
	if desired, present := r.Optional(); present {
		c.desired, c.version = desired, int64(r.Number())
	}
	return c
}

// hearChanges lets follow what does, after the changes are durable and before
// the next ones of the device: so versions arrive in order.
func (s *Server) hearChanges(n store.Notice) {
	r := disk.Read("notice of changes", n.Data, changeFormat)
	for r.More() {
		c := readTold(&r)
		if r.Err() == nil {
			s.follow(&c, n.Mine)
		}
	}
	if err := r.Err(); err != nil {
		s.log.Error("a change is not understood", words.LogReason, err)
	}
}

// follow lets follow what does of a change, which this node has made if it is
// mine.
func (s *Server) follow(c *told, mine bool) {
	touched := c.id
	switch c.kind {
	case updated:
		s.recheckLinks(c.id)
	case deleted:
		s.recheckLinks(c.id)
		touched.Module = "" // a deployment may want it back
	case written:
		s.twinWritten(c, mine)
	}
	// What configurations set is not shown to them again: two whose conditions
	// ask for what the other sets would never come to an end.
	if touch := s.touch.Load(); touch != nil && c.side != ByConfiguration && s.Leads() {
		(*touch)(touched)
	}
}

// twinWritten lets follow what does after a write of a twin.
func (s *Server) twinWritten(c *told, mine bool) {
	if mine {
		switch {
		case c.side == ByService:
			s.metrics.twinWrite("service")
		case c.side == ByDevice:
			s.metrics.twinWrite("device")
		case c.side == ByConfiguration && c.desired != nil:
			s.metrics.twinWrite("configuration")
		}
	}
	if c.desired == nil {
		return
	}
	if l := s.Link(c.id); l != nil {
		s.Note(c.id, journal.Twin, journal.Desired, func(e *journal.Entry) { e.Door, e.Body = l.Peer().Door, journal.NewBody(c.desired) })
		l.SendDesired(c.version, twin.WithVersion(c.desired, c.version))
	}
}
