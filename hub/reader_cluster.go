package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// In a cluster the readers of a place are those of all nodes. The store has who
// they are, and every node ends those of its own that are not among them any more.
// Those of a node that has gone do not count.

// A readerRecord is one of the readers of a place in the store.
type readerRecord struct {
	Node   uint64 `json:"node"`   // its epoch
	Number uint64 `json:"number"` // which of the node's
	Epoch  *int64 `json:"epoch,omitempty"`
}

func (p readerPlace) key() []byte {
	return fmt.Appendf(nil, "%s%s/%d", disk.Readers, p.group, p.partition)
}

func readerPlaceOf(key []byte) (p readerPlace, ok bool) {
	group, partition, ok := strings.Cut(strings.TrimPrefix(string(key), disk.Readers), "/")
	n, err := strconv.Atoi(partition)
	return readerPlace{group, n}, ok && err == nil
}

// updateReaders changes the readers of a place, of the nodes that are alive.
func (s *Server) updateReaders(place readerPlace, change func([]readerRecord) ([]readerRecord, error)) error {
	key := place.key()
	return s.store.Update(string(key), func(tx *store.Tx) error {
		data, err := tx.Get(key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		list, err := change(slices.DeleteFunc(decodeReaders(data), func(r readerRecord) bool { return !s.peers.Alive(r.Node) }))
		if err != nil {
			return err
		}
		if len(list) == 0 {
			tx.Delete(key)
		} else if text := words.MustMarshal(list); !bytes.Equal(text, data) {
			tx.Set(key, text)
		}
		return nil
	})
}

// decodeReaders reads a record of readers. One that cannot be read is of none: so
// it costs nobody more than a reader.
func decodeReaders(data []byte) (list []readerRecord) {
	if json.Unmarshal(data, &list) != nil {
		return nil
	}
	return list
}

// attachReader is AttachReader in a cluster.
func (s *Server) attachReader(place readerPlace, r *Reader) error {
	s.readers.await(place, r)
	err := s.updateReaders(place, func(there []readerRecord) ([]readerRecord, error) {
		var epoch *int64
		if len(there) > 0 {
			epoch = there[0].Epoch
		}
		replaces, err := r.admit(len(there), epoch)
		if replaces {
			there = nil
		}
		return append(there, readerRecord{s.peers.Self(), r.number, r.Epoch}), err
	})
	if err != nil {
		s.readers.remove(place, r)
	}
	return err
}

// await adds r, which is to be found among the readers of its place.
func (rs *readers) await(place readerPlace, r *Reader) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.number++
	r.number, r.admitted = rs.number, false
	rs.in[place] = append(rs.in[place], r)
	rs.size++
}

// hearReaders ends the readers of this node that others have taken the place of.
func (s *Server) hearReaders(c store.Change) {
	place, ok := readerPlaceOf(c.Key)
	if !ok || c.End != nil {
		return
	}
	list := decodeReaders(c.Value)
	ended, unknown := s.readers.compare(place, s.peers.Self(), list)
	for _, r := range ended {
		var epoch *int64
		if len(list) > 0 {
			epoch = list[0].Epoch
		}
		r.End(r.stolen(epoch))
	}
	if unknown {
		s.running.Go(func() { s.dropReaders(place) })
	}
}

// compare removes the node's readers of a place that are not in the list any more,
// and returns them, and whether the list has one of the node's that is not there.
func (rs *readers) compare(place readerPlace, self uint64, list []readerRecord) (ended []*Reader, unknown bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	in := map[uint64]bool{}
	for _, r := range list {
		if r.Node == self {
			in[r.Number] = true
		}
	}
	var left []*Reader
	for _, r := range rs.in[place] {
		switch {
		case in[r.number]:
			r.admitted = true
			delete(in, r.number)
		case r.admitted:
			ended = append(ended, r)
			continue
		}
		left = append(left, r)
	}
	rs.size -= len(ended)
	if rs.in[place] = left; len(left) == 0 {
		delete(rs.in, place)
	}
	return ended, len(in) > 0
}

// has reports whether a reader is there.
func (rs *readers) has(place readerPlace, number uint64) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return slices.ContainsFunc(rs.in[place], func(r *Reader) bool { return r.number == number })
}

// dropReaders removes the node's readers of a place that are not there from the
// store: those that were detached, and those whose attaching failed, but was
// stored later.
func (s *Server) dropReaders(place readerPlace) {
	for {
		err := s.updateReaders(place, func(there []readerRecord) ([]readerRecord, error) {
			return slices.DeleteFunc(there, func(r readerRecord) bool {
				return r.Node == s.peers.Self() && !s.readers.has(place, r.Number)
			}), nil
		})
		if err == nil || wait.For(s.ctx, time.Second) != nil {
			return
		}
		s.log.Debug("detaching a reader", words.LogReason, err)
	}
}
