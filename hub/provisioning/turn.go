package provisioning

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// turns have the registrations of one device run one after the other, also while
// they wait for other hubs. Only ids that somebody has proved to be are in it.
type turns struct {
	mu  sync.Mutex // guards what follows; never held while waiting
	ids map[string]*turn
}

type turn struct {
	held chan struct{} // has one element while it is held
	refs int           // holders and waiters
}

// take waits for the turn of a registration id as long as ctx does, and reports
// whether it had to.
func (t *turns) take(ctx context.Context, id string) (done func(), waited bool, err error) {
	id = strings.ToLower(id)
	t.mu.Lock()
	one := t.ids[id]
	if one == nil {
		one = &turn{held: make(chan struct{}, 1)}
		t.ids[id] = one
	}
	one.refs++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if one.refs--; one.refs == 0 {
			delete(t.ids, id)
		}
	}
	done = func() {
		<-one.held
		leave()
	}
	select {
	case one.held <- struct{}{}:
		return done, false, nil
	default:
	}
	select {
	case one.held <- struct{}{}:
		return done, true, nil
	case <-ctx.Done():
		leave()
		return nil, false, context.Cause(ctx)
	}
}

// turnPatience is how long a registration waits for others of the same device, which
// is less than who asks waits.
const turnPatience = 20 * time.Second

var errBusy = hub.ErrServiceUnavailable.With("another request about this registration takes long")

// takeTurn is take among all nodes of a hub. Of several it reports to have waited,
// since only then is known here what others have done before.
func (s *Service) takeTurn(ctx context.Context, id string) (done func(), waited bool, err error) {
	ctx, end := context.WithTimeoutCause(ctx, turnPatience, errBusy)
	defer end()
	leave, waited, err := s.turns.take(ctx, id)
	if err != nil || !s.hub.Clustered() {
		return leave, waited, err
	}
	if err := s.claim(ctx, id); err != nil {
		// It may have come into the log all the same, or come yet.
		go s.unclaim(id, leave)
		return nil, false, err
	}
	return func() { s.unclaim(id, leave) }, true, nil
}

// How often it is looked whether another node has done with a registration.
const (
	firstLook = 5 * time.Millisecond
	lastLook  = 250 * time.Millisecond
)

func claimKey(id string) []byte { return key(disk.Registering, id) }

// claim waits until no other node registers a device, and takes down that this one
// does. The claim of a node that has gone, which can write nothing any more, does
// not count.
func (s *Service) claim(ctx context.Context, id string) error {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		free := false
		err := s.store.Update(string(registrationKey(id)), func(tx *store.Tx) error {
			by, err := claimant(tx, id)
			if free = by == 0 || by == s.hub.Epoch() || !s.hub.Alive(by); free {
				tx.Set(claimKey(id), binary.AppendUvarint(nil, s.hub.Epoch()))
			}
			return err
		})
		if err != nil || free {
			return err
		}
		if err := wait.For(ctx, pause); err != nil {
			return err
		}
	}
}

// claimant returns the node that has a registration's turn, or 0.
func claimant(tx *store.Tx, id string) (node uint64, err error) {
	data, err := tx.Get(claimKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	node, _ = binary.Uvarint(data)
	return node, err
}

// unclaimPause is between attempts to give a claim back.
const unclaimPause = time.Second

// unclaim gives the claim of this node back, and then its turn. While no change can
// be stored it goes on at that by itself: of a node that stops being one the claims
// do not count.
func (s *Service) unclaim(id string, leave func()) {
	try := func() (again bool) {
		err := s.store.Update(string(registrationKey(id)), func(tx *store.Tx) error {
			by, err := claimant(tx, id)
			if err == nil && by == s.hub.Epoch() {
				tx.Delete(claimKey(id))
			}
			return err
		})
		return errors.Is(err, store.ErrNoLog) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrStalled)
	}
	if !try() {
		leave()
		return
	}
	go func() {
		defer leave()
		for again := true; again; again = try() {
			time.Sleep(unclaimPause)
		}
	}()
}
