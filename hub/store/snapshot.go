package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"

	"github.com/iotdm/iotdm/internal/wait"
)

// A snapshot is a line, and then compressed: each key and value of a store in
// the order of the keys, with their lengths before them, an empty key, and the
// SHA-256 of all that. The position is among the keys.
const (
	snapshotBegin  = "iotdm snapshot "
	snapshotFormat = "1\n"
)

// maxRecord bounds a key or a value of a snapshot.
const maxRecord = 64 << 20

// keptLog is for how long the log is kept at least.
const keptLog = time.Hour

// Snapshot puts what this node has applied into the snapshots, and drops from the
// log what is before the one before that, but not what is younger than an hour.
// It has all nodes forget the locks that have not been changed since the one
// before.
//
// Errors: those of ctx, of the snapshots and of the log, ErrFenced, and that of
// Err.
func (r *Replica) Snapshot(ctx context.Context) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	pos, err := r.save(func(pos uint64, write func(*snapshotWriter) error) error {
		return put(ctx, r.snapshots, pos, write)
	})
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	// By what all nodes know of the older ones the next leader goes on.
	if _, err := r.propose(ctx, &stored{pos}); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	record, err := r.db.engine.get(keyApplied)
	if err != nil {
		return err
	}
	s, err := decodeState(record)
	if err != nil {
		return err
	}
	if n := len(s.snapshots); n > 1 {
		if err := r.sweep(ctx, s.snapshots[n-2].pos); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	if before := s.trimmable(); before > 0 {
		if err := r.log.Trim(ctx, before); err != nil {
			return fmt.Errorf("trim the log: %w", err)
		}
	}
	return nil
}

// sweep has all nodes forget the locks that were changed last before a position,
// in parts.
func (r *Replica) sweep(ctx context.Context, before uint64) error {
	e, err := r.db.enter()
	if err != nil {
		return err
	}
	defer e.users.Done()
	snapshot := e.NewSnapshot()
	defer snapshot.Close()
	part := sweep{before: before}
	looked, old := 0, 0
	propose := func() error {
		s := part
		part.from, looked, old = s.to, 0, 0
		_, err := r.propose(ctx, &s)
		return err
	}
	err = scan(snapshot, prefixLock, PrefixEnd(prefixLock), func(key, value []byte) error {
		part.to = string(key[len(prefixLock):]) + "\x00"
		looked++
		if len(value) == 8 && binary.BigEndian.Uint64(value) < before {
			old++
		}
		switch {
		case looked < sweepLocks/2: // others may be added meanwhile
			return nil
		case old == 0:
			part.from, looked = part.to, 0
			return nil
		}
		return propose()
	})
	if err == nil && old > 0 {
		err = propose()
	}
	return err
}

// trimmable returns up to where the log is no longer needed, or 0.
func (s *replicaState) trimmable() (before uint64) {
	if len(s.snapshots) < 2 {
		return 0
	}
	for _, m := range s.snapshots[:len(s.snapshots)-1] {
		if s.at-m.at >= int64(keptLog) {
			before = m.pos // the group there is what a node compares that has read up to it
		}
	}
	return before
}

// save calls to with what writes all that is applied at one position.
func (r *Replica) save(to func(pos uint64, write func(*snapshotWriter) error) error) (pos uint64, err error) {
	e, err := r.db.enter()
	if err != nil {
		return 0, err
	}
	defer e.users.Done()
	snapshot := e.NewSnapshot()
	defer snapshot.Close()
	record, closer, err := snapshot.Get(keyApplied)
	if err != nil {
		return 0, marked(err)
	}
	s, err := decodeState(bytes.Clone(record))
	if err := errors.Join(err, closer.Close()); err != nil {
		return 0, err
	}
	return s.pos, to(s.pos, func(w *snapshotWriter) error { return scan(snapshot, nil, nil, w.record) })
}

// put has write write a snapshot into snapshots.
func put(ctx context.Context, snapshots Snapshots, pos uint64, write func(*snapshotWriter) error) error {
	in, out := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		w, err := newSnapshotWriter(out)
		if err == nil {
			err = write(w)
		}
		if err == nil {
			err = w.end()
		}
		out.CloseWithError(err)
		wrote <- err
	}()
	err := snapshots.Put(ctx, pos, in)
	in.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // it may not have read to the end
	if wroteErr := <-wrote; err == nil {
		err = wroteErr
	}
	return err
}

// A snapshotWriter writes a snapshot.
type snapshotWriter struct {
	zip    *zstd.Encoder
	buf    *bufio.Writer
	hash   hash.Hash
	length []byte
}

func newSnapshotWriter(to io.Writer) (*snapshotWriter, error) {
	if _, err := io.WriteString(to, snapshotBegin+snapshotFormat); err != nil {
		return nil, err
	}
	zip, err := zstd.NewWriter(to, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	return &snapshotWriter{zip: zip, buf: bufio.NewWriterSize(io.MultiWriter(zip, h), 256<<10), hash: h}, nil
}

func (w *snapshotWriter) record(key, value []byte) error {
	for _, b := range [][]byte{key, value} {
		w.length = binary.AppendUvarint(w.length[:0], uint64(len(b)))
		if _, err := w.buf.Write(w.length); err != nil {
			return err
		}
		if _, err := w.buf.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *snapshotWriter) end() error {
	if err := w.buf.WriteByte(0); err != nil {
		return err
	}
	if err := w.buf.Flush(); err != nil {
		return err
	}
	if _, err := w.zip.Write(w.hash.Sum(nil)); err != nil {
		return err
	}
	return w.zip.Close()
}

// errSnapshot means that a snapshot does not hold what was written to it.
var errSnapshot = errors.New("the snapshot is damaged")

// readSnapshot calls fn with each key and value of a snapshot. What it gave is
// good only if it returns nil.
func readSnapshot(from io.Reader, fn func(key, value []byte) error) error {
	begin := make([]byte, len(snapshotBegin)+len(snapshotFormat))
	if _, err := io.ReadFull(from, begin); err != nil || string(begin[:len(snapshotBegin)]) != snapshotBegin {
		return errors.Join(errSnapshot, err)
	}
	if string(begin[len(snapshotBegin):]) != snapshotFormat {
		return fmt.Errorf("snapshot: %w", ErrNewerLog)
	}
	zip, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return err
	}
	defer zip.Close()
	r := &hashingReader{from: bufio.NewReaderSize(zip, 256<<10), hash: sha256.New()}
	var key, value, last []byte
	for {
		if key, err = r.field(key); err != nil {
			return errors.Join(errSnapshot, err)
		}
		if len(key) == 0 {
			break
		}
		if value, err = r.field(value); err != nil {
			return errors.Join(errSnapshot, err)
		}
		if bytes.Compare(key, last) <= 0 {
			return errSnapshot
		}
		if err := fn(key, value); err != nil {
			return err
		}
		last = append(last[:0], key...)
	}
	want, got := r.hash.Sum(nil), make([]byte, hashSize)
	if _, err := io.ReadFull(r.from, got); err != nil || !bytes.Equal(want, got) {
		return errors.Join(errSnapshot, err)
	}
	return nil
}

// A hashingReader reads fields and hashes what it has read.
type hashingReader struct {
	from *bufio.Reader
	hash hash.Hash
	one  [1]byte
}

func (r *hashingReader) ReadByte() (byte, error) {
	b, err := r.from.ReadByte()
	if err == nil {
		r.one[0] = b
		r.hash.Write(r.one[:])
	}
	return b, err
}

func (r *hashingReader) field(b []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > maxRecord {
		return nil, errSnapshot
	}
	if uint64(cap(b)) < n {
		b = make([]byte, n)
	}
	b = b[:n]
	if _, err := io.ReadFull(r.from, b); err != nil {
		return nil, err
	}
	r.hash.Write(b)
	return b, nil
}

// restore replaces the copy by the newest snapshot. An empty copy stays as it is if
// there is none, and the log begins with nothing.
func (r *Replica) restore(ctx context.Context, first uint64) error {
	const attempts = 3 // who reads one may lose the server, or have a newer one take its place
	for i := 1; ; i++ {
		pos, from, err := r.newest(ctx, first)
		if err != nil || pos == 0 {
			return err
		}
		err = r.restoreFrom(pos, from)
		_ = from.Close() // what was read is checked
		if !errors.Is(err, errSnapshot) || i == attempts {
			return err
		}
		r.logger.Warn("a snapshot could not be read to its end; trying again", "position", pos, "err", err)
	}
}

// newest returns the newest snapshot, and asks until ctx ends. There is none, and none
// is needed, if pos is 0. Whoever names an older one than there must be does not know
// of that yet.
func (r *Replica) newest(ctx context.Context, first uint64) (pos uint64, from io.ReadCloser, err error) {
	own, needed := r.applier.state.pos, r.applier.state.pos > 0
	for {
		pos, from, err = r.snapshots.Latest(r.ctx) // for which it is read, as long as that takes
		if err == nil && pos == 0 && !needed {
			if needed, err = r.identify(ctx, first); err != nil || !needed {
				return 0, nil, err
			}
		}
		switch {
		case err != nil:
			err = fmt.Errorf("snapshot: %w", err)
		case pos == 0:
			err = fmt.Errorf("%w as this node needs, and there is no snapshot", ErrTrimmed)
		case pos+1 < first || pos < own:
			err = fmt.Errorf("%w as the newest snapshot needs, to position %d", ErrTrimmed, pos)
			_ = from.Close()
		default:
			return pos, from, nil
		}
		if wait.For(ctx, retryPause) != nil {
			return 0, nil, err
		}
	}
}

// restoreFrom replaces the copy by a snapshot, which changes nothing if it is not good.
func (r *Replica) restoreFrom(pos uint64, from io.Reader) error {
	e := r.db.engine
	if err := e.restore(r.ctx, r.db.dir, from); err != nil {
		return fmt.Errorf("snapshot at %d: %w", pos, err)
	}
	if err := r.applier.load(e); err != nil {
		return err
	}
	if got := r.applier.state.pos; got != pos {
		return fmt.Errorf("snapshot at %d: it says that it is at %d", pos, got)
	}
	r.logger.Info("this node begins with a snapshot", "position", pos)
	return nil
}

// What a snapshot is unpacked to on its way into the engine.
const tableBegin, tableEnd = "snapshot-", ".tmp"

// removeTables removes what a crash has left of a restore.
func (e *engine) removeTables(dir string) error {
	names, err := e.disk.List(dir)
	for _, name := range names {
		if strings.HasPrefix(name, tableBegin) && strings.HasSuffix(name, tableEnd) {
			err = errors.Join(err, e.disk.Remove(e.disk.PathJoin(dir, name)))
		}
	}
	return err
}

// restore replaces everything by a snapshot, in one step.
func (e *engine) restore(ctx context.Context, dir string, from io.Reader) (err error) {
	const tableSize = 64 << 20
	all := engineOptions(e.disk, nil)
	all.EnsureDefaults()
	opts := all.MakeWriterOptions(len(all.Levels)-1, e.FormatMajorVersion().MaxTableFormat())
	var paths []string
	var table *sstable.Writer
	defer func() {
		if table != nil {
			_ = table.Close()
		}
		for _, p := range paths {
			_ = e.disk.Remove(p) // the engine has linked them
		}
	}()
	finish := func() error {
		t := table
		table = nil
		return t.Close()
	}
	err = readSnapshot(from, func(key, value []byte) error {
		if table != nil && table.Raw().EstimatedSize() >= tableSize {
			if err := finish(); err != nil {
				return err
			}
		}
		if table == nil {
			path := e.disk.PathJoin(dir, fmt.Sprintf("%s%06d%s", tableBegin, len(paths), tableEnd))
			f, err := e.disk.Create(path, vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			paths = append(paths, path)
			table = sstable.NewWriter(objstorageprovider.NewFileWritable(f), opts)
		}
		return table.Set(key, value)
	})
	if err != nil {
		return err
	}
	if table == nil {
		return errSnapshot
	}
	if err := finish(); err != nil {
		return err
	}
	every := pebble.KeyRange{Start: []byte{0}, End: bytes.Repeat([]byte{0xff}, 64)}
	if _, err := e.IngestAndExcise(ctx, paths, nil, nil, every); err != nil {
		return marked(err)
	}
	return nil
}
