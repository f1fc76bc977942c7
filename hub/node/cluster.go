package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// A Cluster is what a node has in common with the others of its hub, while it is a
// member. Package clusternode makes it. It stays the caller's.
type Cluster struct {
	Name    string // of the node
	Store   *store.DB
	Events  hub.EventLog
	Peers   hub.Peers
	Alone   bool // there is no other member
	Metrics []prometheus.Collector

	// Behind returns how far the node's copy of the state is behind, if that is too
	// far for it to serve, and else 0. Nil is never.
	Behind func(context.Context) time.Duration

	// Health answers health checks in place of Options.Health. Nil is none.
	Health *Health
}

// behind says that the node is behind, if it is.
func (c *Cluster) behind() string {
	if c.Behind == nil {
		return ""
	}
	const patience = time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if late := c.Behind(ctx); late > 0 {
		return fmt.Sprintf("this node is %v behind the others", late.Round(100*time.Millisecond))
	}
	return ""
}

// sharedLock is that of what all nodes share.
const sharedLock = "cluster"

// sharePolicies reads the policies that all nodes have, and adds more to them. The
// first node makes them.
func (f *folder) sharePolicies(c *Cluster, more []hub.Policy) error {
	made := f.list
	return c.Store.Update(sharedLock, func(tx *store.Tx) error {
		old, err := tx.Get([]byte(disk.ClusterPolicies))
		list := made
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		default:
			if list, err = decodeShared(old); err != nil {
				return err
			}
		}
		if f.list, err = mergePolicies(list, more); err != nil {
			return err
		}
		text, err := json.Marshal(f.list)
		if err == nil && string(text) != string(old) {
			tx.Set([]byte(disk.ClusterPolicies), text)
		}
		return err
	})
}

func decodeShared(text []byte) ([]hub.Policy, error) {
	list, err := decodePolicies(text)
	if err != nil {
		return nil, fmt.Errorf("policies of the cluster: %w", err)
	}
	return withProvisioning(list), nil
}

// followPolicies has this node know what another one makes of the policies when it
// starts. What is in the folder is for programs of this machine alone, and follows a
// moment later.
func (n *Node) followPolicies(log *slog.Logger) error {
	running := serve.NewGroup()
	n.atEnd(func() {
		running.Close()
		running.Wait()
	})
	return n.Server.Subscribe(disk.ClusterPolicies, func(c store.Change) error {
		if c.Value == nil {
			return nil
		}
		list, err := decodeShared(c.Value)
		if err != nil {
			return err
		}
		if !n.folder.setPolicies(list) {
			return nil
		}
		n.Server.SetPolicies(list)
		log.Info("another node has changed the shared access policies")
		running.Go(func() {
			if err := n.folder.writePolicies(); err != nil {
				log.Warn("the shared access policies could not be written to the data folder", words.LogReason, err)
			}
		})
		return nil
	})
}

// shareCA reads the CA that all nodes have, whose certificates clients trust. The
// first node makes it.
func (c *certs) shareCA(shared *Cluster) error {
	return shared.Store.Update(sharedLock, func(tx *store.Tx) error {
		c.remade = ""
		names := c.names
		old, err := tx.Get([]byte(disk.ClusterCA))
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		default:
			ca, err := tls.X509KeyPair(old, old)
			if err != nil {
				return fmt.Errorf("CA of the cluster: %w", err)
			}
			missing := c.missing(&ca)
			if missing == "" && c.lasting(&ca) {
				c.ca = ca
				return nil
			}
			if missing != "" && !shared.Alone {
				return fmt.Errorf("the cluster's CA may not vouch for %q: give all nodes the same --host; for another name stop them all, and start one with it before the others, which makes a new CA", missing)
			}
			if missing != "" {
				names, c.remade = c.withNamesOf(&ca), c.remadeFor(missing)
			}
		}
		made, err := c.makeCA(names)
		if err != nil {
			return err
		}
		text, err := encodePair(made)
		if err != nil {
			return err
		}
		c.ca = *made
		tx.Set([]byte(disk.ClusterCA), text)
		return nil
	})
}
