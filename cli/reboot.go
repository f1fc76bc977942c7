package cli

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hubrest"
)

// rebootMethod is the direct method of the tutorial.
const rebootMethod = "rebootDevice"

// A rebooter carries one reboot through from the service's side. "service
// reboot" and "demo" share it.
type rebooter struct {
	client *hubrest.Client
	device hubrest.Target
	call   hubrest.Method

	before string // rebootTime before the call, as JSON; empty: none
}

// invoke remembers the rebootTime there is and then calls the method.
func (r *rebooter) invoke(ctx context.Context) (hubrest.MethodAnswer, error) {
	var err error
	if r.before, err = r.rebootTime(ctx); err != nil {
		return hubrest.MethodAnswer{}, err
	}
	return r.client.InvokeMethod(ctx, r.device, r.call)
}

// rebootTime returns the reported property as JSON, empty if there is none.
func (r *rebooter) rebootTime(ctx context.Context) (string, error) {
	twin, err := r.client.Twin(ctx, r.device)
	if err != nil {
		return "", err
	}
	return gjson.GetBytes(twin.Reported, "rebootTime").Raw, nil
}

// await polls the twin until its rebootTime is newer than before the call, and
// returns it as JSON. Trouble that may pass is waited out until ctx ends.
func (r *rebooter) await(ctx context.Context) (string, error) {
	const longest = 5 * time.Second
	for pause := 200 * time.Millisecond; ; pause = min(pause*3/2, longest) {
		now, err := r.rebootTime(ctx)
		if err == nil && newerRebootTime(r.before, now) {
			return now, nil
		}
		if err != nil && !mayPass(err) {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(pause):
		}
	}
}

// mayPass reports whether reading a twin may work again later although it now
// fails with err: the network or the hub has trouble, but nothing was refused.
func mayPass(err error) bool {
	answer, ok := errors.AsType[*hubrest.Error](err)
	return !ok || answer.Status == http.StatusTooManyRequests || answer.Status >= 500
}

// newerRebootTime compares two values of rebootTime. A time without a zone, as
// the tutorial's device writes it, only has to differ: it may go back an hour
// once a year.
func newerRebootTime(before, now string) bool {
	if now == "" || now == before {
		return false
	}
	b, errBefore := time.Parse(time.RFC3339, gjson.Parse(before).String())
	n, errNow := time.Parse(time.RFC3339, gjson.Parse(now).String())
	return errBefore != nil || errNow != nil || n.After(b)
}
