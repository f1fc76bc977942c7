package store

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors of a Log.
var (
	// ErrTrimmed means that the log no longer keeps a position.
	ErrTrimmed = errors.New("the log of the cluster does not reach back so far")

	// ErrLogWentBack means that the log has lost what it had acknowledged.
	ErrLogWentBack = errors.New("the log of the cluster went back")
)

// A Log is a totally ordered, durable log that the replicas of a store append
// groups to. Positions count from 1, without gaps.
type Log interface {
	// Append adds a group, and returns when a majority has it on disk. After an
	// error it is not known whether the log has it. A second Append with the same
	// id within two minutes adds nothing.
	Append(ctx context.Context, id string, group []byte) error

	// Follow calls fn with the group at position from and with each one behind it,
	// in order and without gaps, with the time at which the log took it, until ctx
	// ends or fn fails, whose error it returns. A position that is no longer kept
	// is ErrTrimmed.
	Follow(ctx context.Context, from uint64, fn func(pos uint64, at time.Time, group []byte) error) error

	// Bounds returns the first position that is kept and the one behind the last,
	// as whoever orders the log knows them, or did until a moment ago.
	Bounds(ctx context.Context) (first, end uint64, err error)

	// End returns the position behind the last, and whether that is sure: whoever
	// orders the log no more, since it is cut off, may be asked, and not know of that
	// yet. If it is, all that was appended before the call is in front of it.
	End(ctx context.Context) (end uint64, sure bool, err error)

	// Trim drops the groups before a position.
	Trim(ctx context.Context, before uint64) error
}

// Snapshots keep whole states of a replicated store, for nodes that the log does
// not reach back to.
type Snapshots interface {
	// Put keeps the state at a position and then forgets all but the two newest.
	Put(ctx context.Context, pos uint64, state io.Reader) error

	// Latest returns the newest state. There is none if pos is 0.
	Latest(ctx context.Context) (pos uint64, state io.ReadCloser, err error)
}
