// Package provisioning is the Device Provisioning Service of a hub: enrollments,
// and the registrations that devices make by them. A device that knows an id scope
// and has a key or a certificate asks for its hub, and is told; its identity and
// twin are there by then.
//
// It stands on the rules of package hub as jobs and configurations do, parses no
// wire, and speaks to other hubs only where an enrollment names one.
//
// See the articles "What is Azure IoT Hub Device Provisioning Service?" and
// "Symmetric key attestation", "X.509 certificate attestation", "How to use custom
// allocation policies", "IoT Hub device reprovisioning concepts".
package provisioning

import (
	"cmp"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/linked"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// Options configure New.
type Options struct {
	// IDScope is what devices name the service by, such as "0ne00ABCDEF".
	IDScope string

	// HostName returns the name of this hub, which devices are assigned to unless
	// they have reached it under another of its names.
	HostName func() string

	// Linked are other hubs that devices may be assigned to.
	Linked []*linked.Hub

	// WebhookHosts are the hosts, besides those of this machine, whose webhooks
	// enrollments may name for custom allocation.
	WebhookHosts []string

	// Assigning is how long a registration stays "assigning", by the hub's clock.
	// 0 answers the first request with the assignment.
	Assigning time.Duration

	// Logger receives what an operator wants to know. Nil discards.
	Logger *slog.Logger
}

// A Service keeps enrollments and registers devices. Its methods may be called
// concurrently.
type Service struct {
	hub     *hub.Server
	store   *store.DB
	log     *slog.Logger
	often   *words.Limited // log, for what devices cause as often as they like
	opt     Options
	metrics *metrics

	turns       turns
	groups      groups
	individuals atomic.Int64 // how many enrollments of one device there are
}

// New returns the provisioning service of h, whose store is db.
func New(h *hub.Server, db *store.DB, opt Options) (*Service, error) {
	s := &Service{hub: h, store: db, log: cmp.Or(opt.Logger, slog.New(slog.DiscardHandler)), opt: opt}
	s.often = words.NewLimited(s.log)
	s.turns.ids = make(map[string]*turn)
	s.metrics = newMetrics(s)
	if err := s.follow(); err != nil {
		return nil, fmt.Errorf("load enrollments: %w", err)
	}
	return s, nil
}

// IDScope returns what devices name the service by.
func (s *Service) IDScope() string { return s.opt.IDScope }

// Metrics returns what is counted, to be registered.
func (s *Service) Metrics() []prometheus.Collector { return s.metrics.all }
