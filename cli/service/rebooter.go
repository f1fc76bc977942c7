package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/hubrest"
)

// RebootMethod is the direct method of the tutorial.
const RebootMethod = "rebootDevice"

// The verdicts of a reboot, as far as it has come.
const (
	verdictAnswered    = "answered"                   // the device said that it would; nothing more is known
	verdictRebooting   = "rebooting"                  // and reported that it was about to go down
	verdictRebooted    = "rebooted"                   // and reported that it had
	verdictRefused     = "refused"                    // the device answered with another status than 2xx
	verdictFailed      = "failed"                     // the call failed, or the device could not reboot
	verdictNotRebooted = "came back without a reboot" // the device says that it is the same boot still
	verdictLost        = "never came back"            // it answered, and reported no reboot in time
	verdictNotCalled   = "not called"                 // of many: the job was stopped before its turn
)

// ReportedReboots are what a device reports of reboots. The tutorial's device has a rebootTime
// only; that of this program says more when it really reboots.
type ReportedReboots struct {
	RebootTime json.RawMessage // absent: empty
	Reboot     json.RawMessage
	Connection string // Connected, Disconnected, or empty: not known
}

// request is the reboot that the device speaks of; all empty if it does not.
func (r ReportedReboots) request() agent.RebootRequest {
	var q agent.RebootRequest
	if json.Unmarshal(r.Reboot, &q) != nil {
		return agent.RebootRequest{}
	}
	return q
}

// A judge tells what comes of one reboot.
type judge struct {
	before  ReportedReboots
	request string // what the device calls the reboot in its answer; empty: a plain device
}

// answered takes what the device answered.
func (j *judge) answered(payload json.RawMessage) {
	j.request = gjson.GetBytes(payload, "requestId").String()
}

// verdict says how far the reboot has come, and why the device has not
// rebooted. An empty verdict means that nothing new is reported.
func (j *judge) verdict(now ReportedReboots) (verdict, reason string) {
	q := now.request()
	switch {
	case j.request != "" && q.ID == j.request:
		switch q.Outcome {
		case agent.Rebooting:
			return verdictRebooting, ""
		case agent.Rebooted:
			return verdictRebooted, ""
		case agent.NotRebooted:
			return verdictNotRebooted, q.Reason
		case agent.CommandFailed:
			return verdictFailed, q.Reason
		case agent.Refused:
			return verdictRefused, q.Reason
		}
	case j.request != "" && q.ID == j.before.request().ID:
		// Not ours yet. A new rebootTime may be of a boot before the call, or of a clock that was set.
	case newerRebootTime(string(j.before.RebootTime), string(now.RebootTime)):
		return verdictRebooted, ""
	}
	return "", ""
}

// ended reports whether a verdict is the last.
func ended(verdict string) bool {
	return verdict != "" && verdict != verdictAnswered && verdict != verdictRebooting
}

// answeredStatus is why a device that refused has not rebooted.
func answeredStatus(status int) string { return fmt.Sprintf("answered with status %d", status) }

// late is why a reboot is given up on.
func late(limit command.Seconds, now ReportedReboots) string {
	text := "no reboot reported within " + limit.String()
	switch now.Connection {
	case "Connected":
		text += "; the device is connected"
	case "Disconnected":
		text += "; the device is not connected"
	}
	return text
}

// A Rebooter carries one reboot through from the service's side. "service
// reboot" and "demo" share it.
type Rebooter struct {
	Client *hubrest.Client
	Device hubrest.Target
	Call   hubrest.Method
	judge  judge
}

// Invoke remembers what was reported and then calls the method.
func (r *Rebooter) Invoke(ctx context.Context) (hubrest.MethodAnswer, error) {
	var err error
	if r.judge.before, err = r.reported(ctx); err != nil {
		return hubrest.MethodAnswer{}, err
	}
	answer, err := r.Client.InvokeMethod(ctx, r.Device, r.Call)
	r.judge.answered(answer.Payload)
	return answer, err
}

func (r *Rebooter) reported(ctx context.Context) (ReportedReboots, error) {
	twin, err := r.Client.Twin(ctx, r.Device)
	if err != nil {
		return ReportedReboots{}, err
	}
	raw := func(name string) json.RawMessage { return json.RawMessage(gjson.GetBytes(twin.Reported, name).Raw) }
	return ReportedReboots{raw("rebootTime"), raw("reboot"), twin.ConnectionState}, nil
}

// Await polls the twin until it has the last word on the reboot. It returns
// what it saw last, also when ctx ends. The function, if not nil, is called
// when the device reports that it goes down. Trouble that may pass is waited
// out until ctx ends.
func (r *Rebooter) Await(ctx context.Context, rebooting func()) (now ReportedReboots, verdict, reason string, err error) {
	const longest = 5 * time.Second
	for pause := 200 * time.Millisecond; ; pause = min(pause*3/2, longest) {
		seen, err := r.reported(ctx)
		if err == nil {
			before := verdict
			now = seen
			verdict, reason = r.judge.verdict(now)
			if ended(verdict) {
				return now, verdict, reason, nil
			}
			if verdict == verdictRebooting && before != verdict && rebooting != nil {
				rebooting()
			}
		}
		if err != nil && !mayPass(err) {
			return now, verdict, reason, err
		}
		select {
		case <-ctx.Done():
			return now, verdict, reason, ctx.Err()
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
