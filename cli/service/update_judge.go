package service

import (
	"bytes"
	"encoding/json"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/phrase"
)

// The verdicts of an update, besides those of any task. Those while it goes on are
// the phases that the device reports.
const (
	verdictDownloading = "downloading"
	verdictVerifying   = "verifying"
	verdictApplying    = "applying"
	verdictRollingBack = "rolling back"
	verdictUpdated     = "updated"
	verdictHad         = "already at this version"
	verdictRolledBack  = "rolled back"
)

// updateTask returns the task to update to a version.
func updateTask(version string) *task {
	return &task{
		name:       "update",
		report:     "end of the update",
		properties: []string{"firmware"},
		lookAt:     "properties.reported.firmware.fwUpdateStatus",
		done:       []string{verdictUpdated, verdictHad},
		shortfall:  "not every device was updated",
		contrary:   "IS_DEFINED(properties.desired.firmware.fwVersion) AND properties.desired.firmware.fwVersion != " + condition.Quote(version),
		warning:    "the desired property firmware of %s names another version, which comes back with the next connection",
		columns: []output.Column{{"DEVICE", "device"}, {"VERDICT", "verdict"}, {"STATUS", "status"}, {"VERSION", "version"},
			{"PHASE", "phase"}, {"REASON", "reason"}},
		judge: func(before reported) judge { return &updateJudge{before: reportedFirmware(before), version: version} },
		success: func(f Finding) string {
			return phrase.Choose(f.Verdict == verdictHad, "Runs already: ", "Now runs: ") + "version " + f.Version
		},
		failure: Finding.words,
	}
}

// A firmware is the reported property of that name, as the tutorial "Implement a
// device firmware update process" has it. The request id is of the devices of this
// program.
type firmware struct {
	Version string                     `json:"currentFwVersion"`
	Pending string                     `json:"pendingFwVersion"`
	Status  string                     `json:"fwUpdateStatus"`
	Detail  string                     `json:"fwUpdateSubstatus"`
	Request string                     `json:"requestId"`
	Ended   string                     `json:"lastFwUpdateEndTime"`
	Times   map[string]json.RawMessage `json:"fwUpdateTimes"` // when each phase began

	raw json.RawMessage
}

// reportedFirmware is all empty if the device reports none, or nonsense.
func reportedFirmware(r reported) firmware {
	var fw firmware
	if json.Unmarshal(r.properties["firmware"], &fw) != nil {
		fw = firmware{}
	}
	fw.raw = r.properties["firmware"]
	return fw
}

// An updateJudge tells what comes of one update.
type updateJudge struct {
	before  firmware
	version string
	request string // what the device calls the update in its answer; empty: none was needed, or a plain device
}

func (j *updateJudge) answered(payload json.RawMessage) {
	j.request = gjson.GetBytes(payload, "requestId").String()
}

func (j *updateJudge) find(now reported) Finding {
	fw := reportedFirmware(now)
	f := Finding{Version: fw.Version, Reason: fw.Detail, Firmware: fw.raw, final: true}
	switch {
	case j.request != "" && fw.Request == j.request: // maybe since before: it was under way already
	case j.request != "" && fw.Request == j.before.Request:
		return Finding{} // not ours yet
	case j.request != "":
		f.Verdict, f.Reason = verdictFailed, "another update took its place"
		if fw.Pending != "" {
			f.Reason += ", to version " + fw.Pending
		}
		return f
	case j.request == "" && fw.Status == "current" && fw.Version == j.version && j.before.Version == j.version:
		f.Verdict, f.Reason = verdictHad, ""
		return f
	case j.request == "" && (bytes.Equal(fw.raw, j.before.raw) || fw.Version != j.version && fw.Pending != j.version):
		return Finding{}
	}
	switch fw.Status {
	case "current":
		f.Verdict, f.Reason = verdictUpdated, ""
	case "rolledback":
		f.Verdict, f.Phase = verdictRolledBack, fw.phase()
	case "error":
		f.Verdict, f.Phase = verdictFailed, fw.phase()
		if _, rollingBack := fw.Times["rollingBack"]; rollingBack && fw.Ended == "" {
			f.Verdict, f.final = verdictRollingBack, false
		}
	case verdictDownloading, verdictVerifying, verdictApplying, verdictRebooting:
		f.Verdict, f.final = fw.Status, false
	default: // of a later version, or of a plain device
		return Finding{}
	}
	return f
}

// phase is how far the update came; empty if the device does not say.
func (fw firmware) phase() string {
	for _, phase := range []string{verdictRebooting, verdictApplying, verdictVerifying, verdictDownloading} {
		if _, ok := fw.Times[phase]; ok {
			return phase
		}
	}
	return ""
}
