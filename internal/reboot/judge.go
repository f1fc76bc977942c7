// Package reboot tells what came of a reboot that a device was asked for by a
// direct method, from what the device reports in its twin. It does no I/O.
//
// The tutorial's device reports a rebootTime and no more. That of iotdm gives the
// reboot an id in its answer, and says under that id in the reported property
// "reboot" what came of it.
package reboot

import (
	"encoding/json"
	"time"

	"github.com/tidwall/gjson"
)

// Method is the direct method of the tutorial.
const Method = "rebootDevice"

// The verdicts on a reboot.
const (
	Answered    = "answered"                   // the device said that it would; nothing more is known
	Refused     = "refused"                    // it said that it would not
	Failed      = "failed"                     // the call failed, or the device could not do it
	Rebooting   = "rebooting"                  // it reported that it was about to go down
	Rebooted    = "rebooted"                   // and reported that it had
	NotRebooted = "came back without a reboot" // it says that it is the same boot still
	Lost        = "never came back"            // it answered, and reported no end in time
)

// A Report is what a device reports of its reboots: the reported properties of
// these names, nil where there are none.
type Report struct {
	RebootTime, Reboot json.RawMessage
}

// ReportOf returns the report in the reported properties of a twin.
func ReportOf(reported []byte) Report {
	member := func(name string) json.RawMessage {
		if v := gjson.GetBytes(reported, name); v.Exists() {
			return json.RawMessage(v.Raw)
		}
		return nil
	}
	return Report{RebootTime: member("rebootTime"), Reboot: member("reboot")}
}

// A Finding is how far a reboot has come.
type Finding struct {
	Verdict    string // empty: nothing is known yet
	Reason     string // the device's own words, if it said why
	RebootTime json.RawMessage
	Reboot     json.RawMessage
	Final      bool // nothing more will come of it
}

// A Judge tells what comes of one reboot. It is for one goroutine.
type Judge struct {
	before  Report
	request string // what the device calls the reboot in its answer; empty: a plain device
}

// NewJudge returns the judge of a reboot before which the device reported this.
func NewJudge(before Report) *Judge { return &Judge{before: before} }

// Answered takes the payload of what the device answered, with a status of 2xx.
func (j *Judge) Answered(payload json.RawMessage) {
	j.request = gjson.GetBytes(payload, "requestId").String()
}

// Find returns what the device's report says of the reboot.
func (j *Judge) Find(now Report) Finding {
	q := requestOf(now)
	switch {
	case j.request != "" && q.ID == j.request:
		f := Finding{Reason: q.Reason, Reboot: now.Reboot, Final: true}
		switch q.Outcome {
		case "rebooting":
			f.Verdict, f.Final = Rebooting, false
		case "rebooted":
			f.Verdict, f.RebootTime = Rebooted, now.RebootTime
		case "notRebooted":
			f.Verdict = NotRebooted
		case "commandFailed":
			f.Verdict = Failed
		case "refused":
			f.Verdict = Refused
		default: // of a later version
			return Finding{}
		}
		return f
	case j.request != "" && q.ID == requestOf(j.before).ID:
		// Not ours yet. A new rebootTime may be of a boot before the call, or of a clock that was set.
	case newerTime(string(j.before.RebootTime), string(now.RebootTime)):
		return Finding{Verdict: Rebooted, RebootTime: now.RebootTime, Final: true}
	}
	return Finding{}
}

// A request is the reboot that a device of iotdm speaks of.
type request struct {
	ID      string `json:"requestId"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

// requestOf is all empty if the device speaks of none.
func requestOf(r Report) request {
	var q request
	if json.Unmarshal(r.Reboot, &q) != nil {
		return request{}
	}
	return q
}

// newerTime compares two values of rebootTime. A time without a zone, as
// the tutorial's device writes it, only has to differ: it may go back an hour
// once a year.
func newerTime(before, now string) bool {
	if now == "" || now == before {
		return false
	}
	b, errBefore := time.Parse(time.RFC3339, gjson.Parse(before).String())
	n, errNow := time.Parse(time.RFC3339, gjson.Parse(now).String())
	return errBefore != nil || errNow != nil || n.After(b)
}
