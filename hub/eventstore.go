package hub

import (
	"context"

	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
)

// An EventLog keeps events: *eventlog.Log, whose methods say what they mean, on a
// hub of one node, and streams that all nodes share in a cluster. In these the
// numbers of a partition rise with gaps.
type EventLog interface {
	Partitions() int
	Append(key string, data []byte, called func(error)) error
	AppendLate(key string, data []byte, called func(error)) error
	Read(ctx context.Context, partition int, from eventlog.Position, atEnd func(), fn func(eventlog.Record) error) error
	ReadOver(ctx context.Context, partition int, from eventlog.Position, atEnd func(), damaged func(eventlog.Damage) error, fn func(eventlog.Record) error) error
	Bounds(ctx context.Context, partition int) (eventlog.Bounds, error)
	Trim()
	Clear() error
}

// A SharedEventLog is an EventLog that all nodes share, each through one of its
// own. The hub's own events come to all nodes in the order of the store's log;
// each keeps them, and the leader appends them.
type SharedEventLog interface {
	EventLog

	// KeepOwn keeps an event that the store has told at a position of its log,
	// until the log of events has it, whichever node appended it. It must not
	// wait, and keeps the slice.
	KeepOwn(pos uint64, index int, key string, data []byte)

	// PublishOwn appends what is kept, in order and each event once, until ctx
	// ends.
	PublishOwn(ctx context.Context)
}

// KeepOwnEvents has a node of a cluster keep the hub's own events until they are
// in the log of events. It begins when the store is opened, before it changes
// anything, and goes on while there is no Server: what is told meanwhile may be
// for this node to append.
func KeepOwnEvents(db *store.DB, log SharedEventLog) (cancel func()) {
	return db.OnTell(eventNotice, func(n store.Notice) {
		log.KeepOwn(n.Pos, n.Index, string(deviceOf(n.Data)), numberedEvent(n))
	})
}
