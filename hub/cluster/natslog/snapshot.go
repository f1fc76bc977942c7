package natslog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/store"
)

const (
	chunk = 512 << 10

	// patience is how long NATS may take for one chunk.
	patience = 30 * time.Second

	// posKey is the member of an object's metadata that holds the position.
	posKey = "iotdm-position"
)

// places are the names of the two snapshots. A new one takes the place of the older,
// which NATS replaces in one step.
var places = [2]string{"a", "b"}

// Snapshots is store.Snapshots in an object store of NATS.
type Snapshots struct {
	conn    *natsconn.Conn
	objects jetstream.ObjectStore
}

var _ store.Snapshots = (*Snapshots)(nil)

func bucketConfig(copies int) jetstream.ObjectStoreConfig {
	return jetstream.ObjectStoreConfig{Bucket: bucket, Description: "states of the hub", Storage: jetstream.FileStorage, Replicas: copies}
}

// newest returns the newest snapshot, its position, and the other place. The
// position is 0 if there is none.
func (s *Snapshots) newest(ctx context.Context) (newest *jetstream.ObjectInfo, pos uint64, other string, err error) {
	other = places[0]
	for i, name := range places {
		info, err := s.objects.GetInfo(ctx, name)
		if errors.Is(err, jetstream.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, "", s.conn.Explain(err)
		}
		at, err := strconv.ParseUint(info.Metadata[posKey], 10, 64)
		if err != nil {
			return nil, 0, "", fmt.Errorf("object %s of %s is no snapshot of the hub", name, bucket)
		}
		if at > pos {
			newest, pos, other = info, at, places[1-i]
		}
	}
	return newest, pos, other, nil
}

// Newest returns the position of the newest snapshot, and when it was put. There is
// none if pos is 0.
func (s *Snapshots) Newest(ctx context.Context) (pos uint64, at time.Time, err error) {
	info, pos, _, err := s.newest(ctx)
	if err != nil || pos == 0 {
		return 0, at, err
	}
	return pos, info.ModTime, nil
}

// Put implements store.Snapshots.
func (s *Snapshots) Put(ctx context.Context, pos uint64, state io.Reader) error {
	_, newest, place, err := s.newest(ctx)
	if err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	if newest >= pos { // another node was faster
		_, err := io.Copy(io.Discard, state)
		return err
	}
	if err := s.sweep(ctx); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow := newWatch(cancel)
	defer slow.stop()
	_, err = s.objects.Put(ctx, jetstream.ObjectMeta{
		Name: place, Metadata: map[string]string{posKey: strconv.FormatUint(pos, 10)},
		Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunk},
	}, &whole{bufio.NewReaderSize(state, chunk), slow})
	if err != nil {
		return fmt.Errorf("write a snapshot: %w", s.conn.Explain(slow.reason(ctx, err)))
	}
	return nil
}

// Latest implements store.Snapshots. What is read is checked at its end.
func (s *Snapshots) Latest(ctx context.Context) (pos uint64, state io.ReadCloser, err error) {
	newest, pos, _, err := s.newest(ctx)
	if err != nil || pos == 0 {
		return 0, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	slow := newWatch(cancel)
	// Without a deadline of its own the client would give it five seconds.
	long, stop := context.WithTimeout(ctx, 24*time.Hour)
	o, err := s.objects.Get(long, newest.Name)
	if err == nil {
		var info *jetstream.ObjectInfo
		if info, err = o.Info(); err == nil {
			pos, err = strconv.ParseUint(info.Metadata[posKey], 10, 64)
		}
	}
	if err != nil {
		err = fmt.Errorf("read a snapshot: %w", s.conn.Explain(slow.reason(ctx, err)))
		stop()
		slow.stop()
		cancel(nil)
		return 0, nil, err
	}
	return pos, &object{o, slow, ctx, func() { stop(); slow.stop(); cancel(nil) }}, nil
}

// sweep removes chunks that belong to no snapshot, since who wrote them has died.
func (s *Snapshots) sweep(ctx context.Context) error {
	const old = time.Hour
	str, err := s.conn.JetStream.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		return s.conn.Explain(err)
	}
	prefix := "$O." + bucket + ".C."
	info, err := str.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return s.conn.Explain(err)
	}
	for _, name := range places {
		if o, err := s.objects.GetInfo(ctx, name); err == nil {
			delete(info.State.Subjects, prefix+o.NUID)
		}
	}
	for subject := range info.State.Subjects {
		last, err := str.GetLastMsgForSubject(ctx, subject)
		if err != nil || time.Since(last.Time) < old {
			continue
		}
		if err := str.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return s.conn.Explain(err)
		}
	}
	return nil
}

// whole fills every buffer that it is given, so that chunks are not small.
type whole struct {
	r    io.Reader
	slow *watch
}

func (w *whole) Read(p []byte) (int, error) {
	n, err := io.ReadFull(w.r, p)
	w.slow.moved()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

type object struct {
	jetstream.ObjectResult
	slow  *watch
	ctx   context.Context // that it is read with
	close func()
}

func (o *object) Read(p []byte) (int, error) {
	n, err := o.ObjectResult.Read(p)
	o.slow.moved()
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read a snapshot: %w", o.slow.reason(o.ctx, err))
	}
	return n, err
}

func (o *object) Close() error {
	err := o.ObjectResult.Close()
	o.close()
	return err
}

// A watch ends what makes no progress.
type watch struct{ timer *time.Timer }

var errSlow = errors.New("NATS has not answered for 30 s")

func newWatch(cancel context.CancelCauseFunc) *watch {
	return &watch{time.AfterFunc(patience, func() { cancel(errSlow) })}
}

func (w *watch) moved() { w.timer.Reset(patience) }
func (w *watch) stop()  { w.timer.Stop() }

// reason is why something has failed.
func (w *watch) reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
