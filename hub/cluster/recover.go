package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natslog"
	"github.com/iotdm/iotdm/hub/store"
)

// ErrIntact means that there is nothing to recover.
var ErrIntact = errors.New("the log has everything that this node has")

// Recover begins a new log with what a node has in its copy in the folder dir, in
// place of one that has lost some of that, and returns up to which position of the
// old one it goes. The nodes must not run; the others have to begin without their
// copies then. Of several nodes the one that has read the most is the one to take.
//
// Errors: ErrIntact if the log is not lost, and those of Init and store.OpenCopy.
func Recover(ctx context.Context, opt InitOptions, dir string) (pos uint64, err error) {
	c, err := Open(ctx, Options{NATS: opt.NATS, Name: "recover", Dir: dir, Logger: opt.Logger})
	switch {
	case err == nil:
		return 0, errors.Join(fmt.Errorf("%w: start it", ErrIntact), c.Close())
	case !errors.Is(err, store.ErrLogWentBack) && !errors.Is(err, store.ErrNoState) && !errors.Is(err, natsconn.ErrNoHub):
		return 0, err
	}
	r, err := store.OpenCopy(dir)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	pos, _, _ = r.Applied()
	conn, err := natsconn.Connect(ctx, opt.NATS)
	if err != nil {
		return 0, err
	}
	copies := 0
	err = natsconn.Retry(ctx, func(ctx context.Context) error {
		copies, err = natslog.Copies(ctx, conn)
		if errors.Is(err, natsconn.ErrNoHub) {
			err = nil
		}
		if err != nil {
			return err
		}
		return natslog.Remove(ctx, conn)
	})
	conn.Close()
	if err != nil {
		return 0, err
	}
	if opt.Copies == 0 {
		opt.Copies = copies
	}
	opt.From = r.DB().Records
	_, err = Init(ctx, opt)
	return pos, err
}
