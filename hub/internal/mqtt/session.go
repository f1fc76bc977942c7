package mqtt

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// The session of an identity that connects with clean session 0 is its
// subscriptions. The SDKs for Python and Node subscribe once and rely on them
// after every reconnect.

// sessionFormat is the first byte of a stored session. Each subscription
// follows as its QoS and its filter.
const sessionFormat = 1

func encodeSession(filters []subscription) []byte {
	b := []byte{sessionFormat}
	for _, f := range filters {
		b = binary.AppendUvarint(b, uint64(f.qos))
		b = disk.AppendText(b, f.filter)
	}
	return b
}

func decodeSession(data []byte) (filters []subscription, err error) {
	if len(data) == 0 {
		return nil, nil // one that has begun
	}
	r := disk.Read("session", data, sessionFormat)
	for r.More() {
		qos := byte(r.Number())
		filters = append(filters, subscription{string(r.Text()), qos})
	}
	return filters, r.Err()
}

// openSession begins the session of an attached connection: a stored one if c
// has not asked for a clean one. It reports whether there was one, and is
// durable when it returns.
func (d *Door) openSession(c *conn) (filters []subscription, present bool, err error) {
	stored, present, err := d.hub.OpenSession(c, !c.clean)
	if err == nil && present {
		filters, err = decodeSession(stored)
	}
	return filters, present, err
}

// subscribe adds subscriptions, or changes their QoS. When they are durable it
// queues ack, and from then on the hub sends to them.
func (d *Door) subscribe(c *conn, more []subscription, ack []byte) error {
	return d.changeFilters(c, ack, func(filters []subscription) ([]subscription, error) {
		for _, f := range more {
			if !allowed(c.peer.ID, f.filter) {
				return nil, fmt.Errorf("the topic filter %q is none of this identity's", words.Clip(f.filter))
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
func (d *Door) unsubscribe(c *conn, less []string, ack []byte) error {
	return d.changeFilters(c, ack, func(filters []subscription) ([]subscription, error) {
		return slices.DeleteFunc(filters, func(f subscription) bool { return slices.Contains(less, f.filter) }), nil
	})
}

func (d *Door) changeFilters(c *conn, ack []byte, change func([]subscription) ([]subscription, error)) error {
	// Only this goroutine writes c.filters, so it may read them.
	filters, err := change(slices.Clone(c.filters))
	if err != nil {
		return err
	}
	if !c.clean && !slices.Equal(filters, c.filters) {
		if err := d.hub.KeepSession(c, encodeSession(filters)); err != nil {
			return fault{fmt.Errorf("store session: %w", err), whyUnavailable}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.filters = filters
	c.replyLocked(ack)
	return nil
}
