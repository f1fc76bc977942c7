package provisioning_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/sas"
)

// Whatever is enrolled, registered and deleted, and in whatever order, what is
// registered is there: each registration that is assigned has a device with the
// credential that it was made with, the index of groups has those of groups and no
// other, and who has no enrollment has nothing.
func TestRegistrationsAgreeWithTheHub(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			l := &law{bench: newBench(t, node.Options{}), told: make(map[string]provisioning.Registration)}
			var writers sync.WaitGroup
			for w := range uint64(3) {
				writers.Go(func() {
					r := rand.New(rand.NewPCG(seed, w))
					for range 150 {
						l.change(r, w)
					}
				})
			}
			writers.Wait()
			l.check()
			if err := l.Reload(); err != nil { // as after a start
				t.Fatal(err)
			}
			l.check()
		})
	}
}

var (
	lawIDs    = []string{"a", "B", "c", "d"} // each also in the other case
	lawGroups = []string{"g", "H"}
)

type law struct {
	bench
	mu   sync.Mutex // guards what follows
	told map[string]provisioning.Registration
}

func one[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// change makes one change. Writers have devices of their own, by their number, and
// share the groups.
func (l *law) change(r *rand.Rand, w uint64) {
	id := fmt.Sprintf("%s-%d", one(r, lawIDs), w)
	group := one(r, lawGroups)
	var err error
	switch what := r.IntN(100); {
	case what < 15:
		_, err = l.PutEnrollment(l.enrollment(r, byKey(id)), hub.Match{Any: r.IntN(2) == 0})
	case what < 20:
		_, err = l.PutEnrollment(l.enrollment(r, groupByKey(group)), hub.Match{Any: r.IntN(2) == 0})
	case what < 25:
		e, _ := l.Enrollment(provisioning.Individual, id)
		if err = l.DeleteEnrollment(provisioning.Individual, id, hub.Match{}); err == nil && e.Registration != nil {
			if _, err := l.Registration(id); code(err) != 404 {
				l.t.Errorf("%s: registered without its enrollment: %v", id, err)
			}
		}
	case what < 28:
		err = l.DeleteEnrollment(provisioning.Group, group, hub.Match{})
	case what < 33:
		err = l.DeleteRegistration(id, hub.Match{})
	case what < 40:
		err = l.hub.DeleteIdentity(hub.ID{Device: id}, hub.Match{})
	default:
		l.try(r, id)
	}
	var refused *provisioning.Error
	var byHub *hub.Error
	if err != nil && !errors.As(err, &refused) && !errors.As(err, &byHub) {
		l.t.Errorf("a change of %s: %v", id, err)
	}
}

func (l *law) enrollment(r *rand.Rand, e provisioning.Enrollment) provisioning.Enrollment {
	e.Reprovision = &provisioning.Reprovision{UpdateHub: r.IntN(2) == 0, Migrate: r.IntN(2) == 0}
	e.Status = one(r, []hub.Status{hub.StatusEnabled, hub.StatusEnabled, hub.StatusDisabled})
	if r.IntN(4) == 0 {
		e.Attestation.SymmetricKey = &provisioning.SymmetricKey{Primary: sas.NewKey()}
	}
	if e.RegistrationID != "" && r.IntN(3) == 0 {
		e.DeviceID = "x" + e.RegistrationID
	}
	return e
}

// try registers a device by whatever enrollment fits it now, or by a key of before.
func (l *law) try(r *rand.Rand, id string) {
	if r.IntN(2) == 0 {
		id = strings.ToUpper(id)
	}
	key := sas.NewKey()
	if m, err := l.AttestationMechanism(provisioning.Individual, id); err == nil {
		key = m.SymmetricKey.Primary
	} else if m, err := l.AttestationMechanism(provisioning.Group, one(r, lawGroups)); err == nil {
		key = derived(l.t, m.SymmetricKey.Secondary, id)
	}
	op, err := l.Register(l.t.Context(), bySAS(l.t, id, key), provisioning.Request{})
	if err != nil {
		if status := code(err); status != 401 && status != 404 {
			l.t.Errorf("register %s: %v", id, err)
		}
		return
	}
	if op.Status != provisioning.Assigned {
		return
	}
	// Its writer is the only one who changes it.
	i := l.identity(op.Registration.DeviceID)
	if k := i.Auth.SymmetricKey; k.Primary != key && k.Secondary != key {
		l.t.Errorf("%s was assigned and has another key", id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[strings.ToLower(id)] = *op.Registration
}

// check checks what there is in the end.
func (l *law) check() {
	l.t.Helper()
	indexed := map[string]bool{}
	for _, g := range lawGroups {
		list, _, err := l.Registrations(g, "", 0)
		if err != nil && code(err) != 404 {
			l.t.Errorf("registrations of %s: %v", g, err)
		}
		for _, r := range list {
			id := strings.ToLower(r.RegistrationID)
			if indexed[id] {
				l.t.Errorf("%s is registered twice", id)
			}
			indexed[id] = true
			if own, err := l.Enrollment(provisioning.Individual, id); err == nil && own.Registration != nil {
				l.t.Errorf("%s is registered by a group and by an enrollment of its own", id)
			}
		}
	}
	for w := range 3 {
		for _, name := range lawIDs {
			id := strings.ToLower(fmt.Sprintf("%s-%d", name, w))
			r, err := l.Registration(id)
			switch {
			case code(err) == 404:
				if indexed[id] {
					l.t.Errorf("%s is in an index and not registered", id)
				}
				continue
			case err != nil:
				l.t.Fatal(err)
			}
			told := l.told[id]
			if r.Status != provisioning.Assigned || r.ETag != told.ETag || r.DeviceID != told.DeviceID {
				l.t.Errorf("%s was told %+v, and is %+v", id, told, r)
			}
			e, err := l.Enrollment(provisioning.Individual, id)
			if own := err == nil && e.Registration != nil; own == indexed[id] {
				l.t.Errorf("%s: shown by its enrollment: %v, by its group: %v", id, own, indexed[id])
			}
			if _, err := l.hub.Twin(hub.ID{Device: r.DeviceID}); err != nil && hub.RefusalOf(err).Code != hub.ErrDeviceNotFound.Code {
				l.t.Errorf("twin of %s: %v", id, err)
			}
		}
	}
	list, _, err := l.Enrollments(provisioning.Individual, "*", "", 0)
	if err != nil || !slices.IsSortedFunc(list, func(a, b provisioning.Enrollment) int {
		return strings.Compare(strings.ToLower(a.ID()), strings.ToLower(b.ID()))
	}) {
		l.t.Errorf("enrollments are not in order: %v", err)
	}
}

func TestManyRegistrationsOfOneDeviceAtOnce(t *testing.T) {
	b := newBench(t, node.Options{})
	e := groupByKey("g")
	e.Reprovision = resetData
	key := b.put(e).Attestation.SymmetricKey.Primary
	operations := make([]provisioning.Operation, 100)
	var all sync.WaitGroup
	for n := range operations {
		id := one(rand.New(rand.NewPCG(1, uint64(n))), []string{"dev", "DEV"})
		p := bySAS(t, id, derived(t, key, id))
		all.Go(func() {
			var err error
			if operations[n], err = b.Register(t.Context(), p, provisioning.Request{}); err != nil {
				t.Errorf("register: %v", err)
			}
		})
	}
	all.Wait()
	device, first := operations[0].Registration.DeviceID, 0
	for _, op := range operations {
		if op.Registration.DeviceID != device {
			t.Errorf("devices %s and %s", device, op.Registration.DeviceID)
		}
		if op.Registration.Substatus == "initialAssignment" {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d of them were the first", first)
	}
	devices := 0
	for range b.hub.Devices() {
		devices++
	}
	if list, _, err := b.Registrations("g", "", 0); err != nil || len(list) != 1 || devices != 1 {
		t.Errorf("%d devices, %d registrations, %v", devices, len(list), err)
	}
}

func TestManyDevicesOfAGroupAtOnce(t *testing.T) {
	b := newBench(t, node.Options{})
	key := b.put(groupByKey("g")).Attestation.SymmetricKey.Primary
	for n := range 20 {
		b.put(groupByKey(fmt.Sprintf("other-%d", n)))
	}
	const devices = 1000
	turns := make(chan struct{}, 64)
	var all sync.WaitGroup
	for n := range devices {
		id := fmt.Sprintf("dev-%04d", n)
		p := bySAS(t, id, derived(t, key, id))
		turns <- struct{}{}
		all.Go(func() {
			if op, err := b.Register(t.Context(), p, provisioning.Request{}); err != nil || op.Status != provisioning.Assigned {
				t.Errorf("register %s: %v, %v", id, op.Status, err)
			}
			<-turns
		})
	}
	all.Wait()
	seen, after := 0, ""
	for {
		list, next, err := b.Registrations("g", after, 300)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(list)
		if after = next; after == "" {
			break
		}
	}
	if seen != devices {
		t.Errorf("%d of %d are registered", seen, devices)
	}
}
