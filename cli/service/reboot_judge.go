package service

import (
	"encoding/json"
	"fmt"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/internal/reboot"
)

// The verdicts of a reboot, besides those of any task.
const (
	verdictRebooting   = reboot.Rebooting
	verdictRebooted    = reboot.Rebooted
	verdictNotRebooted = reboot.NotRebooted
)

var rebootTask = &task{
	name:       "reboot",
	report:     "reboot",
	properties: []string{"rebootTime", "reboot"},
	lookAt:     "properties.reported.rebootTime",
	done:       []string{verdictRebooted},
	shortfall:  "not every device rebooted",
	columns:    []output.Column{{"DEVICE", "device"}, {"VERDICT", "verdict"}, {"STATUS", "status"}, {"REBOOT TIME", "rebootTime"}, {"REASON", "reason"}},
	judge:      func(before reported) judge { return rebootJudge{reboot.NewJudge(rebootReport(before))} },
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

// A rebootJudge is the judge of a task.
type rebootJudge struct{ *reboot.Judge }

func (j rebootJudge) answered(payload json.RawMessage) { j.Answered(payload) }

func (j rebootJudge) find(now reported) Finding {
	f := j.Find(rebootReport(now))
	return Finding{Verdict: f.Verdict, Reason: f.Reason, RebootTime: f.RebootTime, Reboot: f.Reboot, final: f.Final}
}

func rebootReport(r reported) reboot.Report {
	return reboot.Report{RebootTime: r.properties["rebootTime"], Reboot: r.properties["reboot"]}
}
