package service

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// RebootMethod is the direct method of the tutorial.
const RebootMethod = "rebootDevice"

// The verdicts of a reboot, besides those of any task.
const (
	verdictRebooting   = "rebooting"                  // the device reported that it was about to go down
	verdictRebooted    = "rebooted"                   // and reported that it had
	verdictNotRebooted = "came back without a reboot" // the device says that it is the same boot still
)

var rebootTask = &task{
	name:       "reboot",
	report:     "reboot",
	properties: []string{"rebootTime", "reboot"},
	lookAt:     "properties.reported.rebootTime",
	done:       []string{verdictRebooted},
	shortfall:  "not every device rebooted",
	columns:    []output.Column{{"DEVICE", "device"}, {"VERDICT", "verdict"}, {"STATUS", "status"}, {"REBOOT TIME", "rebootTime"}, {"REASON", "reason"}},
	judge:      func(before reported) judge { return &rebootJudge{before: before} },
	success:    func(f Finding) string { return lastRebootTime(f.RebootTime) },
	failure: func(f Finding) string {
		if f.Verdict == verdictFailed {
			return "has not rebooted"
		}
		return f.Verdict
	},
}

// lastRebootTime is what the tutorial's service program writes.
func lastRebootTime(rebootTime json.RawMessage) string {
	return fmt.Sprintf("Last reboot time: %s", gjson.ParseBytes(rebootTime))
}

// A rebootJudge tells what comes of one reboot. The tutorial's device reports a
// rebootTime only; that of this program says more when it really reboots.
type rebootJudge struct {
	before  reported
	request string // what the device calls the reboot in its answer; empty: a plain device
}

func (j *rebootJudge) answered(payload json.RawMessage) {
	j.request = gjson.GetBytes(payload, "requestId").String()
}

func (j *rebootJudge) find(now reported) Finding {
	q := rebootRequest(now)
	switch {
	case j.request != "" && q.ID == j.request:
		f := Finding{Reason: q.Reason, Reboot: now.properties["reboot"], final: true}
		switch q.Outcome {
		case agent.Rebooting:
			f.Verdict, f.final = verdictRebooting, false
		case agent.Rebooted:
			f.Verdict, f.RebootTime = verdictRebooted, now.properties["rebootTime"]
		case agent.NotRebooted:
			f.Verdict = verdictNotRebooted
		case agent.CommandFailed:
			f.Verdict = verdictFailed
		case agent.Refused:
			f.Verdict = verdictRefused
		default: // of a later version
			return Finding{}
		}
		return f
	case j.request != "" && q.ID == rebootRequest(j.before).ID:
		// Not ours yet. A new rebootTime may be of a boot before the call, or of a clock that was set.
	case newerRebootTime(string(j.before.properties["rebootTime"]), string(now.properties["rebootTime"])):
		return Finding{Verdict: verdictRebooted, RebootTime: now.properties["rebootTime"], final: true}
	}
	return Finding{}
}

// rebootRequest is the reboot that the device speaks of; all empty if it does not.
func rebootRequest(r reported) agent.RebootRequest {
	var q agent.RebootRequest
	if json.Unmarshal(r.properties["reboot"], &q) != nil {
		return agent.RebootRequest{}
	}
	return q
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
