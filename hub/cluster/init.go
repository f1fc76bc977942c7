package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natslog"
	"github.com/iotdm/iotdm/hub/store"
)

// InitOptions configure Init.
type InitOptions struct {
	NATS natsconn.Options

	// Copies is how many servers of NATS keep everything: 3, or 5, or 1 for trying
	// out. 0 is as many as there were, or 3.
	Copies int

	// From is what the hub shall hold at its beginning. Nil is nothing.
	From store.Records

	// More makes what is needed besides, such as the stream of events.
	More func(ctx context.Context, conn *natsconn.Conn, copies int) error

	Logger *slog.Logger // nil discards
}

// ErrExists means that there is a hub in NATS, which must not be replaced.
var ErrExists = errors.New("there is a hub in NATS already")

// Init makes a hub in NATS: its streams, and the beginning of its log. If there is
// one, its streams get the settings that they need, and everything else stays; the
// result says so.
//
// Errors: those of natsconn.Connect, natslog.Create and store.StartLog; ErrExists if
// there is one, and From is not nil.
func Init(ctx context.Context, opt InitOptions) (existed bool, err error) {
	log := cmp.Or(opt.Logger, slog.New(slog.DiscardHandler))
	opt.NATS.Name, opt.NATS.Logger = cmp.Or(opt.NATS.Name, "iotdm hub cluster"), log
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	conn, err := natsconn.Connect(ctx, opt.NATS)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	copies := opt.Copies
	var groups *natslog.Log
	var snapshots *natslog.Snapshots
	err = natsconn.Retry(ctx, func(ctx context.Context) error {
		if opt.Copies == 0 {
			if copies, err = natslog.Copies(ctx, conn); errors.Is(err, natsconn.ErrNoHub) {
				copies = 3
			} else if err != nil {
				return err
			}
		}
		if err := natslog.Create(ctx, conn, copies); err != nil {
			return err
		}
		if opt.More != nil {
			if err := opt.More(ctx, conn, copies); err != nil {
				return err
			}
		}
		groups, snapshots, err = natslog.Open(ctx, conn)
		return err
	})
	if err != nil {
		return false, err
	}
	// A whole store may take its time.
	err = store.StartLog(context.WithoutCancel(ctx), groups, snapshots, opt.From)
	if errors.Is(err, store.ErrBegun) {
		if opt.From != nil {
			return true, fmt.Errorf("%w at %s, and it stays as it is: use an account of NATS that has none", ErrExists, opt.NATS.URL)
		}
		return true, nil
	}
	return false, err
}
