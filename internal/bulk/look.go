package bulk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
)

// A found is an identity as the hub has it, with its twin.
type found struct {
	hubrest.BulkEntry
	connected bool
}

// look finds out what the lines todo of the batch would do, by what the hub has now,
// and returns those that would do something. In a dry run none of them is left.
func (im *Import) look(ctx context.Context, b outcome, todo []int) ([]int, error) {
	var left, ask []int
	for _, i := range todo {
		e, r := b.lines[i].entry, &b.results[i]
		switch {
		case im.DryRun || isSystem(e):
			ask = append(ask, i)
		case e.ImportMode == hubrest.ImportCreate: // the answer tells all
			r.did, left = "created", append(left, i)
		case deletes(e.ImportMode):
			r.did, left = "deleted", append(left, i)
		default:
			ask = append(ask, i)
		}
	}
	if len(ask) == 0 {
		return left, nil
	}
	have, err := im.find(ctx, b, ask)
	if err != nil {
		return nil, err
	}
	if err := im.readIdentities(ctx, b, ask, have); err != nil {
		return nil, err
	}
	for _, i := range ask {
		e, r := b.lines[i].entry, &b.results[i]
		now := have[hubrest.Target{DeviceID: e.ID, ModuleID: e.ModuleID}]
		r.foresee(e, now, im.DryRun)
		if !im.DryRun && r.Result == "" {
			left = append(left, i)
		}
	}
	return left, nil
}

// find asks for the twins of what the lines are about.
func (im *Import) find(ctx context.Context, b outcome, todo []int) (map[hubrest.Target]*found, error) {
	var devices []string
	collections := []string{"devices"}
	for _, i := range todo {
		devices = append(devices, b.lines[i].entry.ID)
		if b.lines[i].entry.ModuleID != "" && len(collections) == 1 {
			collections = append(collections, "devices.modules")
		}
	}
	have := make(map[hubrest.Target]*found)
	for _, from := range collections {
		err := im.throttle.do(ctx, func() error {
			for row, err := range im.Client.Query(ctx, "SELECT * FROM "+from+" WHERE "+condition.AnyOf(devices), 0) {
				if err != nil {
					return err
				}
				e, connected, err := twinEntry(row)
				if err != nil {
					return fmt.Errorf("find what there is: the hub's answer is not as documented: %w", err)
				}
				have[hubrest.Target{DeviceID: e.ID, ModuleID: e.ModuleID}] = &found{e, connected}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return have, nil
}

// readIdentities reads of what is there what no twin shows and a line would replace:
// keys, and who manages a module.
func (im *Import) readIdentities(ctx context.Context, b outcome, todo []int, have map[hubrest.Target]*found) error {
	const atATime = 8
	turns := make(chan struct{}, atATime)
	errs := make([]error, len(todo))
	var wg sync.WaitGroup
	for n, i := range todo {
		e := b.lines[i].entry
		now := have[hubrest.Target{DeviceID: e.ID, ModuleID: e.ModuleID}]
		if now == nil || deletes(e.ImportMode) || onlyTwin(e) || e.ModuleID == "" && e.Authentication.SymmetricKey.PrimaryKey == "" {
			continue
		}
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			errs[n] = im.throttle.do(ctx, func() error { return readIdentity(ctx, im.Client, &now.BulkEntry) })
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// foresee says what becomes of a line about what is there now; nil is nothing. What
// has to be sent to the hub is not said as a result, unless it is a rehearsal.
func (r *LineResult) foresee(e hubrest.BulkEntry, now *found, rehearsal bool) {
	if now != nil && now.ID == "" { // it has gone in the meantime
		now = nil
	}
	says := func(did, would string) {
		if r.did = did; rehearsal {
			r.Result = would
		}
	}
	fails := func(code int) {
		if rehearsal {
			r.fail("would fail", code, reasonOf(code, "", ""))
		}
	}
	switch {
	case isSystem(e) && !deletes(e.ImportMode) && now == nil:
		says("created", "would create") // with its device
	case now != nil && e.ImportMode == hubrest.ImportCreate && !isSystem(e):
		fails(409001)
	case now == nil && !creates(e.ImportMode) && e.ModuleID != "":
		fails(404010)
	case now == nil && !creates(e.ImportMode):
		fails(404001)
	case now == nil:
		says("created", "would create")
	case isAnother(e, now.BulkEntry):
		fails(412001)
	case deletes(e.ImportMode):
		r.connected = now.connected
		says("deleted", "would delete")
	default:
		changes, err := changesOf(now.BulkEntry, e)
		if err != nil && rehearsal {
			r.fail("would fail", 0, err.Error())
			return
		}
		r.Changes, r.connected = changes, now.connected
		if r.did = "updated"; len(changes) == 0 && err == nil {
			r.Result = "unchanged"
			return
		}
		says("updated", "would update")
	}
}

// isAnother reports whether the mode of e compares an etag, which is another now.
func isAnother(e, now hubrest.BulkEntry) bool {
	want, have := "", ""
	switch e.ImportMode {
	case hubrest.ImportUpdateIfMatchETag, hubrest.ImportCreateOrUpdateIfMatchETag, hubrest.ImportDeleteIfMatchETag:
		want, have = e.ETag, now.ETag
	case hubrest.ImportUpdateTwinIfMatchETag:
		want, have = e.TwinETag, now.TwinETag
	}
	return want != "" && want != "*" && have != want
}

func creates(m hubrest.ImportMode) bool {
	return m == hubrest.ImportCreate || m == hubrest.ImportCreateOrUpdate || m == hubrest.ImportCreateOrUpdateIfMatchETag
}

// onlyTwin reports whether a line changes no more than a twin: by its mode, or since
// it is about a module of the IoT Edge runtime, which comes with its device.
func onlyTwin(e hubrest.BulkEntry) bool { return changesOnlyTwin(e.ImportMode) || isSystem(e) }

func isSystem(e hubrest.BulkEntry) bool {
	return e.ModuleID == "$edgeAgent" || e.ModuleID == "$edgeHub"
}
