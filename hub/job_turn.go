package hub

import (
	"github.com/iotdm/iotdm/hub/store"
)

// call calls the direct method on the devices of batch. Those that can be
// called now are marked with one write. The others are marked when they have
// connected: a hub that is killed meanwhile has not called them.
func (r *jobRun) call(batch []jobDevice) {
	online := make([]jobDevice, 0, len(batch))
	topic := topicOfMethod(r.job.Method.Name, "")
	for _, d := range batch {
		if c := r.connection(d.id()); c != nil && c.takes(topic) {
			online = append(online, d)
		} else {
			r.turn(func() bool { return r.await(d) })
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
func (r *jobRun) await(d jobDevice) (handedIn bool) {
	err := r.callable(d.id())
	if err == nil {
		_, err = r.awaitMethod(r.feed, d.id(), topicOfMethod(r.job.Method.Name, ""), r.connectTimeout)
	}
	if err != nil {
		return r.finish(d, r.feed, err)
	}
	one := []jobDevice{d}
	return r.mark(one) == nil && r.invoke(one[0])
}

func (r *jobRun) invoke(d jobDevice) (handedIn bool) {
	result, err := r.InvokeMethod(r.calls, d.id(), *r.job.Method)
	if err == nil {
		d.result = &result
	}
	return r.finish(d, r.calls, err)
}

// update merges the change into the twins of batch. Each twin and its row
// change in one step.
func (r *jobRun) update(batch []jobDevice) {
	change := *r.job.Twin
	change.By = "job " + r.job.ID
	for _, d := range batch {
		r.turn(func() bool {
			d.started = r.now()
			id := ID{Device: d.device}
			done := d
			done.outcome(d.started, nil)
			row := done.encode(r.job, d.started)
			err := r.persist(id.Device, func(tx *store.Tx) error {
				tx.Set(jobRow(r.job.ID, d.device), row)
				_, err := r.writeTwin(tx, id, Match{}, change.patch)
				return err
			})
			if err != nil {
				return r.finish(d, r.calls, err)
			}
			done.counted = d.counted
			r.jobs.move(r.active, []jobDevice{done})
			return false
		})
	}
}
