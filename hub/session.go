package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/iotdm/iotdm/hub/store"
)

// A session is what MQTT keeps of an identity that connects with clean session
// 0: its subscriptions. The SDKs for Python and Node subscribe once and rely on
// them after every reconnect. It lasts until the identity connects with clean
// session 1 or is deleted.

// sessionPrefix begins the store's keys of sessions. The sessions of a device's
// modules are those with the device's key and "/" in front.
const sessionPrefix = "session/"

func (id ID) sessionKey() []byte { return []byte(sessionPrefix + id.String()) }

// sessionFormat is the first byte of a stored session. Each subscription
// follows as its QoS and its filter with the length in front.
const sessionFormat = 1

func encodeSession(filters []subscription) []byte {
	b := []byte{sessionFormat}
	for _, f := range filters {
		b = binary.AppendUvarint(b, uint64(f.qos))
		b = appendText(b, f.filter)
	}
	return b
}

func decodeSession(data []byte) ([]subscription, error) {
	if len(data) == 0 || data[0] != sessionFormat {
		return nil, errors.New("stored session: unknown format")
	}
	var filters []subscription
	d := fieldReader{rest: data[1:]}
	for len(d.rest) > 0 && !d.cut {
		qos := byte(d.number())
		filters = append(filters, subscription{string(d.text()), qos})
	}
	if d.cut {
		return nil, errors.New("stored session: cut short")
	}
	return filters, nil
}

// openSession begins the session of an attached connection: a stored one if c
// has not asked for a clean one. It reports whether there was one, and is
// durable when it returns.
func (s *Server) openSession(c *conn) (filters []subscription, present bool, err error) {
	err = s.store.Update(c.id.Device, func(tx *store.Tx) error {
		data, err := tx.Get(c.id.sessionKey())
		switch {
		case errors.Is(err, store.ErrNotFound):
			if c.clean {
				return nil
			}
			return s.writeSession(tx, c, nil)
		case err != nil:
			return err
		case c.clean:
			tx.Delete(c.id.sessionKey())
			return nil
		}
		present = true
		filters, err = decodeSession(data)
		return err
	})
	return filters, present, err
}

// subscribe adds subscriptions, or changes their QoS. When they are durable it
// queues ack, and from then on the hub sends to them.
func (s *Server) subscribe(c *conn, more []subscription, ack []byte) error {
	return s.changeFilters(c, ack, func(filters []subscription) ([]subscription, error) {
		for _, f := range more {
			if !c.id.allowed(f.filter) {
				return nil, fmt.Errorf("the topic filter %q is none of this identity's", clip(f.filter))
			}
			i := slices.IndexFunc(filters, func(have subscription) bool { return have.filter == f.filter })
			if i < 0 {
				filters = append(filters, f)
			} else {
				filters[i] = f
			}
		}
		if len(filters) > maxFilters {
			return nil, fmt.Errorf("more than %d topic filters", maxFilters)
		}
		return filters, nil
	})
}

// unsubscribe ends subscriptions, and queues ack when that is durable.
func (s *Server) unsubscribe(c *conn, less []string, ack []byte) error {
	return s.changeFilters(c, ack, func(filters []subscription) ([]subscription, error) {
		return slices.DeleteFunc(filters, func(f subscription) bool { return slices.Contains(less, f.filter) }), nil
	})
}

func (s *Server) changeFilters(c *conn, ack []byte, change func([]subscription) ([]subscription, error)) error {
	// Only this goroutine writes c.filters, so it may read them.
	filters, err := change(slices.Clone(c.filters))
	if err != nil {
		return err
	}
	if !c.clean && !slices.Equal(filters, c.filters) {
		err := s.store.Update(c.id.Device, func(tx *store.Tx) error { return s.writeSession(tx, c, filters) })
		if err != nil {
			return fmt.Errorf("store session: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.filters = filters
	c.replyLocked(ack)
	return nil
}

// writeSession stores c's session, unless c has been taken over or its identity
// deleted.
func (s *Server) writeSession(tx *store.Tx, c *conn, filters []subscription) error {
	if s.connection(c.id) != c {
		return errTakenOver
	}
	if _, err := tx.Get(c.id.identityKey()); err != nil {
		return errRevoked
	}
	tx.Set(c.id.sessionKey(), encodeSession(filters))
	return nil
}
