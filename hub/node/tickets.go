package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/wait"
)

// A device that comes back goes on with its TLS session, on whichever node: all of
// them have the keys of its ticket. The node that leads makes a new one each day, and
// tickets are good for a week, as those of a single node are.
const (
	ticketRotation = 24 * time.Hour
	ticketKeys     = 7
	ticketLook     = time.Hour
)

// A ticketKey is one of them.
type ticketKey struct {
	Key  []byte    `json:"key"`
	Made time.Time `json:"made"`
}

// shareTickets has this node take the tickets of all nodes. Until it knows their keys
// it has its own.
func (n *Node) shareTickets(db *store.DB, now func() time.Time, log *slog.Logger) error {
	tickets := new(tls.Config)
	// Doors copy the configuration, which takes along no keys but these.
	n.folder.certs.config.WrapSession = tickets.EncryptTicket
	n.folder.certs.config.UnwrapSession = tickets.DecryptTicket
	n.Server.WhileLeading(func(ctx context.Context) {
		for {
			if err := rotateTickets(db, now()); err != nil && ctx.Err() == nil {
				log.Warn("there is no new key of TLS sessions", words.LogReason, err)
			}
			if wait.For(ctx, ticketLook) != nil {
				return
			}
		}
	})
	return n.Server.Subscribe(disk.ClusterTickets, func(c store.Change) error {
		list, err := decodeTickets(c.Value)
		if err != nil || len(list) == 0 {
			return err
		}
		keys := make([][32]byte, len(list))
		for i, k := range list {
			keys[i] = [32]byte(k.Key)
		}
		tickets.SetSessionTicketKeys(keys)
		return nil
	})
}

// rotateTickets makes a new key if the newest one is a day old.
func rotateTickets(db *store.DB, now time.Time) error {
	return db.Update(sharedLock, func(tx *store.Tx) error {
		old, err := tx.Get([]byte(disk.ClusterTickets))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		list, err := decodeTickets(old)
		if err != nil {
			return err
		}
		if len(list) > 0 && now.Sub(list[0].Made) < ticketRotation {
			return nil
		}
		key := make([]byte, 32)
		rand.Read(key)
		list = append([]ticketKey{{key, now.UTC()}}, list[:min(len(list), ticketKeys-1)]...)
		text, err := json.Marshal(list)
		if err == nil {
			tx.Set([]byte(disk.ClusterTickets), text)
		}
		return err
	})
}

func decodeTickets(text []byte) (list []ticketKey, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("keys of TLS sessions: %w", err)
	}
	for _, k := range list {
		if len(k.Key) != 32 {
			return nil, fmt.Errorf("keys of TLS sessions: one has %d bytes", len(k.Key))
		}
	}
	return list, nil
}
