package service

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/phrase"
)

// maxCondition leaves room in the length of a query, 8192 characters, for what
// stands around a condition.
const maxCondition = 7500

// A rollout has many devices do a task, batch by batch: by a job that calls the
// method on each (rollout_job.go), and by reading their twins until each has said
// what has come of it.
type rollout struct {
	output.Streams
	target   target.Target
	client   *hubrest.Client
	task     *task
	call     hubrest.Method
	o        *taskOptions
	devices  map[string]*rolloutDevice
	failures int
	bar      progressBar
	told     failureNotes
}

// A rolloutDevice is one device of a rollout.
type rolloutDevice struct {
	taskReport
	judge judge
	seen  reported
}

func rollOut(ctx context.Context, s output.Streams, t target.Target, client *hubrest.Client, k *task, call hubrest.Method, o *taskOptions) error {
	r := &rollout{Streams: s, target: t, client: client, task: k, call: call, o: o, devices: make(map[string]*rolloutDevice), bar: newProgressBar(s)}
	r.told = failureNotes{Streams: s, bar: &r.bar}
	if err := r.find(ctx); err != nil {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	if len(r.devices) == 0 { // any more
		return noDevice(t.Host(), o.where)
	}
	return r.conclude(ctx, r.run(ctx))
}

// find finds the devices, and remembers what they report before they are called.
func (r *rollout) find(ctx context.Context) error {
	return r.reported(ctx, r.o.where, func(device string, now reported) {
		r.devices[device] = &rolloutDevice{taskReport: taskReport{Device: device, Finding: Finding{Verdict: verdictNotCalled}}, judge: r.task.judge(now)}
	})
}

// reported calls fn with what each device that the condition chooses reports.
func (r *rollout) reported(ctx context.Context, where string, fn func(device string, now reported)) error {
	for row, err := range r.client.Query(ctx, r.task.selection()+condition.Where(where), 0) {
		if err != nil {
			return err
		}
		device, now, err := r.task.parseRow(row)
		if err != nil {
			return err
		}
		fn(device, now)
	}
	return nil
}

// run goes through the batches: the next one when the last one is done.
func (r *rollout) run(ctx context.Context) error {
	batches := batches(slices.Sorted(maps.Keys(r.devices)), r.o.batchSize)
	for n, batch := range batches {
		where := r.o.where
		if len(batches) > 1 {
			r.Note("Batch %d of %d: %s", n+1, len(batches), output.Count(len(batch), "device"))
			where = condition.AnyOf(batch)
		}
		if err := r.callAll(ctx, where); err != nil {
			return err
		}
		if !r.o.noWait {
			if err := r.await(ctx, where, batch); err != nil {
				return err
			}
		}
		if r.tooManyFailures() {
			return errTooManyFailures
		}
	}
	return nil
}

// batches splits the devices. A batch is named in a condition, which is of
// limited length, so that it may be smaller than asked for. All devices at
// once, a size of 0, need no names.
func batches(devices []string, most int) (batches [][]string) {
	if most == 0 || most >= len(devices) {
		return [][]string{devices}
	}
	size, begin := 0, 0
	for i, d := range devices {
		n := len(condition.Quote(d)) + 2
		if i > begin && (i-begin == most || size+n > maxCondition) {
			batches = append(batches, devices[begin:i])
			begin, size = i, 0
		}
		size += n
	}
	return append(batches, devices[begin:])
}

// await polls the twins of the devices that answered until each has said what
// has come of its task, or it has taken too long.
func (r *rollout) await(ctx context.Context, where string, batch []string) error {
	missing := make(map[string]bool)
	for _, d := range batch {
		if r.devices[d].Verdict == verdictAnswered {
			missing[d] = true
		}
	}
	defer r.bar.clear()
	all := len(missing)
	limited, cancel := context.WithTimeout(ctx, time.Duration(r.o.wait))
	defer cancel()
	const longest = 5 * time.Second
	for pause := 200 * time.Millisecond; ; pause = min(pause*3/2, longest) {
		if len(missing) <= 100 {
			where = condition.AnyOf(slices.Sorted(maps.Keys(missing)))
		}
		if len(missing) == 0 {
			return nil
		}
		err := r.reported(limited, where, func(device string, now reported) {
			if missing[device] && r.heard(r.devices[device], now) {
				delete(missing, device)
			}
		})
		if _, refused := asAnswer(err); refused {
			return err
		}
		if r.tooManyFailures() {
			return errTooManyFailures
		}
		if len(missing) == 0 {
			continue
		}
		r.showWaiting(missing, all)
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err() // what is known of them stands
			}
			for d := range missing {
				d := r.devices[d]
				d.Verdict, d.Reason = verdictLost, r.task.late(r.o.wait, d.Finding, d.seen)
				r.failures++
			}
			return nil
		case <-time.After(pause):
		}
	}
}

// heard takes what a device reports. It returns true for the last word.
func (r *rollout) heard(d *rolloutDevice, now reported) bool {
	d.seen = now
	found := d.judge.find(now)
	if found.Verdict != "" {
		d.Finding = found
	}
	if found.final && !r.task.did(found.Verdict) {
		r.failures++
		r.told.tell("%s %s: %s", d.Device, r.task.failure(found), output.OneLine(phrase.Clip(found.Reason)))
	}
	return found.final
}

// showWaiting shows how many of all are still to report, and how far they are.
func (r *rollout) showWaiting(missing map[string]bool, all int) {
	counts := make(map[string]int)
	for d := range missing {
		counts[r.devices[d].Verdict]++
	}
	text := fmt.Sprintf("%d of %s reported the %s", all-len(missing), output.Count(all, "device"), r.task.report)
	if r.failures > 0 {
		text += fmt.Sprintf(", %d failed", r.failures)
	}
	for _, verdict := range verdictOrder {
		if n := counts[verdict]; n > 0 && verdict != verdictAnswered {
			text += fmt.Sprintf(", %d %s", n, verdict)
		}
	}
	r.bar.show(all-len(missing), all, text, text)
}

func (r *rollout) tooManyFailures() bool {
	return r.o.limitFailures > 0 && r.failures >= r.o.limitFailures
}

// whatGoesOn says, after Ctrl-C, which devices act although nobody watches, and
// how to look.
func (r *rollout) whatGoesOn() {
	n := 0
	for _, d := range r.devices {
		if d.Verdict == verdictAnswered || d.Verdict != verdictNotCalled && !d.final && d.Status/100 == 2 {
			n++
		}
	}
	if n > 0 {
		r.Note("%s that answered may still %s. Look with", output.Count(n, "device"), r.task.name)
		r.Note("   iotdm service query %q", "SELECT deviceId, "+r.task.lookAt+" FROM devices"+condition.Where(r.o.where))
	}
}
