package jobs

import (
	"errors"
	"time"

	"github.com/iotdm/iotdm/hub"
)

// errSpent is why a device is called no more. It may be one that reboots
// whenever it is called.
var errSpent = hub.ErrGatewayTimeout.With("the hub stopped during the call, and again when it was repeated, so that it is not known whether the device received it")

// call calls the direct method on the devices of batch. Those that can be
// called now are marked with one write. The others are marked when they have
// connected: a hub that is killed meanwhile has not called them.
func (r *run) call(batch []row) {
	online := make([]row, 0, len(batch))
	for _, d := range batch {
		if d.spent {
			r.turn(func() bool { return r.finish(d, r.calls, errSpent) })
		} else if r.scheduler.hub.Takes(d.id(), r.job.Method.Name) {
			online = append(online, d)
		} else {
			r.turn(func() bool { return r.await(d, r.connectTimeout) })
		}
	}
	if len(online) == 0 {
		return
	}
	if r.mark(online) != nil {
		for range online {
			<-r.slots
		}
		return // the server closes
	}
	for _, d := range online {
		r.turn(func() bool { return r.invoke(d) })
	}
}

// await calls the direct method on a device once that has connected.
func (r *run) await(d row, timeout time.Duration) (handedIn bool) {
	err := r.scheduler.hub.AwaitMethod(r.feed, d.id(), r.job.Method.Name, timeout)
	if err != nil {
		return r.finish(d, r.feed, err)
	}
	one := []row{d}
	return r.mark(one) == nil && r.invoke(one[0])
}

func (r *run) invoke(d row) (handedIn bool) {
	call := *r.job.Method
	if d.repeated { // its node may not know yet that the connection has ended
		call.ConnectTimeout = max(r.connectTimeout, reconnect)
	}
	result, err := r.scheduler.hub.InvokeMethod(r.calls, d.id(), call)
	switch {
	case err == nil:
		d.result = &result
	case !errors.Is(err, hub.ErrPeerGone):
	case d.repeated:
		err = errSpent
	default: // as when the hub has stopped
		d.repeated = true
		return r.await(d, max(r.connectTimeout, reconnect))
	}
	return r.finish(d, r.calls, err)
}

// update merges the change into the twins of batch. Each twin and its row
// change in one step, once: what the disk seemed to refuse may have come all the same.
func (r *run) update(batch []row) {
	change := *r.job.Twin
	change.By = "job " + r.job.ID
	for _, d := range batch {
		r.turn(func() bool {
			d.started = r.scheduler.hub.Now()
			id := hub.ID{Device: d.device}
			done := d
			done.outcome(d.started, nil)
			document := done.encode(r.job, d.started)
			err := r.scheduler.insist(func() error {
				return r.scheduler.hub.Update(id.Device, func(tx *hub.Tx) error {
					before, err := tx.Store.Get(rowKey(r.job.ID, d.device))
					if err != nil || !storedStatus(before).open() {
						return err
					}
					tx.Store.Set(rowKey(r.job.ID, d.device), document)
					return tx.PatchTwin(id, change, hub.Match{})
				})
			})
			var refusal *hub.Error
			switch {
			case err == nil:
			case r.stopped() && !errors.As(err, &refusal):
				return false // the disk refuses: the row stays open
			default:
				return r.finish(d, r.calls, err)
			}
			done.counted = d.counted
			r.scheduler.jobs.move(r.active, []row{done}, r.scheduler.metrics.outcome)
			return false
		})
	}
}
