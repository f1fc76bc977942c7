package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/condition"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

// maxCondition leaves room in the length of a query, 8192 characters, for what
// stands around a condition.
const maxCondition = 7500

// A fleetVerdict is what came of the reboot of one device.
type fleetVerdict struct {
	Device     string          `json:"device"`
	Verdict    string          `json:"verdict"`
	Status     int             `json:"status,omitempty"`
	Payload    json.RawMessage `json:"payload,omitempty"`
	RebootTime json.RawMessage `json:"rebootTime,omitempty"`
	Reason     string          `json:"reason,omitempty"`

	judge judge
	now   ReportedReboots
}

var fleetColumns = []output.Column{
	{"DEVICE", "device"}, {"VERDICT", "verdict"}, {"STATUS", "status"}, {"REBOOT TIME", "rebootTime"}, {"REASON", "reason"},
}

// A fleetReboot reboots many devices by jobs.
type fleetReboot struct {
	output.Streams
	target   target.Target
	client   *hubrest.Client
	o        rebootOptions
	call     hubrest.Method
	verdicts map[string]*fleetVerdict
	failures int
}

func rebootFleet(ctx context.Context, s output.Streams, o rebootOptions) error {
	call, err := o.call.call(s)
	if err != nil {
		return err
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	r := &fleetReboot{Streams: s, target: t, client: client, o: o, call: call, verdicts: make(map[string]*fleetVerdict)}
	devices, err := r.find(ctx)
	if err != nil {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	if len(devices) == 0 {
		noteHints(s, o.where)
		return fail.Errorf(fail.NotFound, "no device on %s matches --where %q", t.Host(), o.where)
	}
	err = r.rollOut(ctx, devices)
	return r.conclude(ctx, devices, err)
}

// find returns the devices in the order of their ids, and remembers what they
// report of reboots.
func (r *fleetReboot) find(ctx context.Context) (devices []string, err error) {
	err = r.reported(ctx, r.o.where, func(device string, now ReportedReboots) {
		devices = append(devices, device)
		r.verdicts[device] = &fleetVerdict{Device: device, Verdict: verdictNotCalled, judge: judge{before: now}}
	})
	slices.Sort(devices)
	return devices, err
}

// reported calls fn with what each device that the condition chooses reports.
func (r *fleetReboot) reported(ctx context.Context, where string, fn func(device string, now ReportedReboots)) error {
	query := "SELECT deviceId, connectionState, properties.reported.rebootTime AS rebootTime, properties.reported.reboot AS reboot FROM devices" + condition.Where(where)
	for row, err := range r.client.Query(ctx, query, 0) {
		if err != nil {
			return err
		}
		var d struct {
			DeviceID, ConnectionState string
			RebootTime, Reboot        json.RawMessage
		}
		if err := json.Unmarshal(row, &d); err != nil {
			return fmt.Errorf("find the devices: the hub's answer is not as documented: %w", err)
		}
		fn(d.DeviceID, ReportedReboots{d.RebootTime, d.Reboot, d.ConnectionState})
	}
	return nil
}

// rollOut reboots the devices batch by batch: the next one when the last one
// has come back.
func (r *fleetReboot) rollOut(ctx context.Context, devices []string) error {
	batches := r.batches(devices)
	for n, batch := range batches {
		if len(batches) > 1 {
			r.Note("Batch %d of %d: %s", n+1, len(batches), output.Count(len(batch), "device"))
		}
		where := r.o.where
		if len(batches) > 1 {
			where = condition.AnyOf(batch)
		}
		if err := r.reboot(ctx, where); err != nil {
			return err
		}
		if !r.o.noWait {
			if err := r.comeBack(ctx, where, batch); err != nil {
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
// once need no names.
func (r *fleetReboot) batches(devices []string) (batches [][]string) {
	if r.o.batchSize == 0 || r.o.batchSize >= len(devices) {
		return [][]string{devices}
	}
	size, begin := 0, 0
	for i, d := range devices {
		n := len(condition.Quote(d)) + 2
		if i > begin && (i-begin == r.o.batchSize || size+n > maxCondition) {
			batches = append(batches, devices[begin:i])
			begin, size = i, 0
		}
		size += n
	}
	return append(batches, devices[begin:])
}

// reboot calls the method on the devices that the condition chooses.
func (r *fleetReboot) reboot(ctx context.Context, where string) error {
	job, err := r.client.CreateJob(ctx, hubrest.JobRequest{ID: newJobID("reboot"), Condition: where, Method: &r.call})
	if err != nil {
		return err
	}
	r.Note("Job %s calls %s on each device, which has %v to answer", job.ID, r.call.Name, &r.o.call.timeout)
	f := newFollower(r.Streams, r.client, job.ID)
	tell := f.failure
	f.interesting = "devices.jobs.status = 'failed' OR devices.jobs.outcome.deviceMethodResponse.status < 200 OR devices.jobs.outcome.deviceMethodResponse.status >= 300"
	f.failure = func(d hubrest.JobDevice) error {
		r.failures++
		if d.Outcome.Method == nil {
			if err := tell(d); err != nil {
				return err
			}
		} else {
			f.bar.clear()
			r.Note("%s %s", d.DeviceID, answeredStatus(d.Outcome.Method.Status))
		}
		if r.tooManyFailures() {
			return errTooManyFailures
		}
		return nil
	}
	ended, err := f.follow(ctx)
	if errors.Is(err, errTooManyFailures) || ctx.Err() != nil {
		ended, err = r.stop(ctx, f, err)
	}
	if ended.Status == hubrest.JobFailed {
		return fail.Errorf(fail.Failed, "the job failed: %s", ended.FailureReason)
	}
	return errors.Join(err, r.answers(context.WithoutCancel(ctx), job.ID))
}

// stop cancels a job and waits for the devices that have been called already.
func (r *fleetReboot) stop(ctx context.Context, f *follower, why error) (hubrest.Job, error) {
	// After Ctrl-C too: the job would go on without us.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(r.o.call.timeout)+10*time.Second)
	defer cancel()
	if err := f.stop(ctx); err != nil {
		return hubrest.Job{}, errors.Join(why, err)
	}
	f.failure = func(hubrest.JobDevice) error { return nil }
	job, err := f.follow(ctx)
	return job, errors.Join(why, err)
}

// answers takes what came of a job on each device.
func (r *fleetReboot) answers(ctx context.Context, job string) error {
	for d, err := range r.client.JobDevices(ctx, job, "") {
		if err != nil {
			return err
		}
		v := r.verdicts[d.DeviceID]
		if v == nil {
			// It has come to match since the devices were looked for.
			v = &fleetVerdict{Device: d.DeviceID}
			r.verdicts[d.DeviceID] = v
		}
		switch m := d.Outcome.Method; {
		case d.Status == "canceled":
			v.Verdict = verdictNotCalled
		case m == nil:
			v.Verdict, v.Reason = verdictFailed, jobFailure(d)
		default:
			v.Verdict, v.Status, v.Payload = verdictAnswered, m.Status, m.Payload
			v.judge.answered(m.Payload)
			if m.Status/100 != 2 {
				v.Verdict, v.Reason = verdictRefused, answeredStatus(m.Status)
			}
		}
	}
	return nil
}

// comeBack polls the twins of the devices that answered until each has said
// what has come of its reboot, or it has taken too long.
func (r *fleetReboot) comeBack(ctx context.Context, where string, batch []string) error {
	missing := make(map[string]bool)
	for _, d := range batch {
		if r.verdicts[d].Verdict == verdictAnswered {
			missing[d] = true
		}
	}
	limited, cancel := context.WithTimeout(ctx, time.Duration(r.o.wait))
	defer cancel()
	const longest = 5 * time.Second
	for pause := 200 * time.Millisecond; len(missing) > 0; pause = min(pause*3/2, longest) {
		if len(missing) <= 100 {
			where = condition.AnyOf(sortedKeys(missing))
		}
		before := len(missing)
		err := r.reported(limited, where, func(device string, now ReportedReboots) {
			if missing[device] && r.heard(r.verdicts[device], now) {
				delete(missing, device)
			}
		})
		if _, refused := asAnswer(err); refused {
			return err
		}
		if r.tooManyFailures() {
			return errTooManyFailures
		}
		if len(missing) > 0 && len(missing) < before {
			r.Note("Waiting for %d of %s to report their reboot ...", len(missing), output.Count(len(batch), "device"))
		}
		if len(missing) == 0 {
			break
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err() // what is known of them stands
			}
			for d := range missing {
				r.failures++
				v := r.verdicts[d]
				v.Verdict, v.Reason = verdictLost, late(r.o.wait, v.now)
			}
			return nil
		case <-time.After(pause):
		}
	}
	return nil
}

// heard takes what a device reports. It returns true for the last word.
func (r *fleetReboot) heard(v *fleetVerdict, now ReportedReboots) bool {
	v.now = now
	verdict, reason := v.judge.verdict(now)
	if verdict != "" {
		v.Verdict, v.Reason = verdict, reason
	}
	switch {
	case !ended(verdict):
		return false
	case verdict == verdictRebooted:
		v.RebootTime = now.RebootTime
	default:
		r.failures++
		r.Note("%s %s: %s", v.Device, verdict, reason)
	}
	return true
}

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (r *fleetReboot) tooManyFailures() bool {
	return r.o.limitFailures > 0 && r.failures >= r.o.limitFailures
}

// conclude prints the verdicts and fails unless all devices did as asked.
func (r *fleetReboot) conclude(ctx context.Context, devices []string, err error) error {
	list := make([]*fleetVerdict, 0, len(r.verdicts))
	counts := make(map[string]int)
	for _, v := range r.verdicts {
		list = append(list, v)
		counts[v.Verdict]++
	}
	slices.SortFunc(list, func(a, b *fleetVerdict) int { return strings.Compare(a.Device, b.Device) })
	if perr := r.o.Output.Print(r.Streams, output.Result{Value: list, Columns: fleetColumns}); perr != nil {
		return perr
	}
	var summary []string
	for _, verdict := range []string{verdictRebooted, verdictRebooting, verdictAnswered, verdictRefused, verdictFailed, verdictNotRebooted, verdictLost, verdictNotCalled} {
		if n := counts[verdict]; n > 0 {
			summary = append(summary, fmt.Sprintf("%d %s", n, verdict))
		}
	}
	text := strings.Join(summary, ", ")
	good := counts[verdictRebooted]
	if r.o.noWait {
		good += counts[verdictAnswered]
	}
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted: %s", text)
	case errors.Is(err, errTooManyFailures):
		return fail.Errorf(fail.Failed, "stopped after %s: %s", output.Count(r.failures, "failure"), text)
	case err != nil:
		return explainJob(ctx, r.target, err, "")
	case good < len(list):
		return fail.Errorf(fail.Failed, "not every device rebooted: %s", text)
	}
	r.Note("%s", text)
	return nil
}
