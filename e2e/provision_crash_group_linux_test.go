package e2e

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/sas"
)

// A provisionGroupWriter has devices of an enrollment group register, all at the
// same time, and their registrations deleted.
type provisionGroupWriter struct {
	id      string
	devices []string

	mu         sync.Mutex // guards what follows
	registered map[string]*register[bool]
	acked      int
}

func newProvisionGroupWriter(id string, devices int) *provisionGroupWriter {
	w := &provisionGroupWriter{id: id, registered: make(map[string]*register[bool])}
	for i := range devices {
		device := fmt.Sprintf("%s-%d", id, i)
		w.devices = append(w.devices, device)
		w.registered[device] = &register[bool]{can: []bool{false}}
	}
	return w
}

func (w *provisionGroupWriter) groupKey() sas.Key {
	return sas.Key(base64.StdEncoding.EncodeToString([]byte(w.id)))
}

func (w *provisionGroupWriter) setup(h *crashHub) error {
	p, err := provisioningOf(h)
	if err != nil {
		return err
	}
	key := string(w.groupKey())
	a, err := p.ask("PUT", "/enrollmentGroups/"+w.id, fmt.Sprintf(
		`{"enrollmentGroupId":%q,"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":%q,"secondaryKey":%q}},"initialTwin":{"tags":{"n":1}}}`, w.id, key, key))
	if err == nil && !a.ok() {
		err = fmt.Errorf("enroll %s: %v", w.id, a)
	}
	return err
}

func (w *provisionGroupWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	p, err := provisioningOf(h)
	if err != nil {
		h.t.Error(err)
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, device := range w.devices {
		seed := r.Uint64()
		all.Go(func() { w.writeOne(ctx, p, device, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func (w *provisionGroupWriter) writeOne(ctx context.Context, p crashProvisioning, device string, r *rand.Rand) {
	w.mu.Lock()
	state := w.registered[device] // nobody else writes it
	w.mu.Unlock()
	for ctx.Err() == nil {
		is := !state.can[0] || r.IntN(3) > 0
		var a crashAnswer
		var err error
		if is {
			a, err = p.register(device, keyOf(w.id, device))
		} else {
			a, err = p.ask("DELETE", "/registrations/"+device, "")
		}
		change := func(bool) bool { return is }
		switch {
		case err == nil && a.ok() && (!is || strings.Contains(string(a.body), `"assigned"`)):
			state.acked(change)
			w.mu.Lock()
			w.acked++
			w.mu.Unlock()
		case err == nil && (a.ok() || a.refused()):
			p.t.Errorf("%s, registers %t: %v", device, is, a)
			return
		default:
			state.unknown(change)
			return
		}
	}
}

func (w *provisionGroupWriter) check(h *crashHub) error {
	p, err := provisioningOf(h)
	if err != nil {
		return err
	}
	a, err := p.ask("POST", "/registrations/"+w.id+"/query", `{"query":"SELECT * FROM registrations"}`)
	if err != nil {
		return err
	}
	var rows []struct{ RegistrationID string }
	if err := a.decode(&rows); err != nil {
		return err
	}
	var found []string
	for _, row := range rows {
		found = append(found, row.RegistrationID)
	}
	var there []string
	for _, device := range w.devices {
		a, err := p.ask("GET", "/registrations/"+device, "")
		if err != nil {
			return err
		}
		if err := w.registered[device].is(a.ok()); err != nil {
			return fmt.Errorf("that %s is registered %w", device, err)
		}
		if !a.ok() {
			continue
		}
		there = append(there, device)
		if doc, err := readTwin(h, device); err != nil || doc.Tags.N != 1 {
			return cmp.Or(err, fmt.Errorf("%s, which is registered, has tag %d, want its initial 1", device, doc.Tags.N))
		}
		if err := p.connect(device, keyOf(w.id, device)); err != nil {
			return err
		}
	}
	slices.Sort(found)
	slices.Sort(there)
	if !slices.Equal(found, there) {
		return fmt.Errorf("registrations of %s are %q by the query, and %q by themselves", w.id, found, there)
	}
	return nil
}
