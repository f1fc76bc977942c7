package agent

import (
	"math"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/agent/tutorial"
)

// An Outcome is what has come of a reboot that was asked for.
type Outcome string

// The outcomes of a reboot. The last four are final.
const (
	accepted      Outcome = "accepted"      // it is on disk; the answer may not have been sent. Never reported
	Rebooting     Outcome = "rebooting"     // it was answered, and the command is about to run
	Rebooted      Outcome = "rebooted"      // the machine has booted since
	NotRebooted   Outcome = "notRebooted"   // the machine is the same boot still
	CommandFailed Outcome = "commandFailed" // the command says that it could not
	Refused       Outcome = "refused"       // the device did not begin
)

// A RebootRequest is a reboot that was asked for, and what has come of it.
type RebootRequest struct {
	ID          string    `json:"requestId"`
	Method      string    `json:"method"`
	RequestedAt time.Time `json:"requestedAt"`
	Attempt     int       `json:"attempt"` // 1, or more if those before it led to no reboot
	Outcome     Outcome   `json:"outcome"`
	Reason      string    `json:"reason,omitempty"`   // why the machine has not rebooted
	BootID      string    `json:"bootId,omitempty"`   // of the boot in which that came out
	Duration    float64   `json:"duration,omitempty"` // seconds from the request until then, by the machine's clock
}

// pending reports whether the last word has not been said.
func (r *RebootRequest) pending() bool {
	return r != nil && (r.Outcome == accepted || r.Outcome == Rebooting)
}

// end is the last word.
func (r *RebootRequest) end(now time.Time, b Boot, o Outcome, reason string) {
	r.Outcome, r.Reason, r.BootID = o, shorten(reason), b.ID
	// A clock that was set meanwhile makes nonsense of the difference.
	if d := now.Sub(r.RequestedAt); d > 0 {
		r.Duration = math.Round(d.Seconds()*1000) / 1000
	}
}

// shorten keeps what comes from a command within what a twin and a person can bear.
func shorten(text string) string {
	const most = 500
	if len(text) <= most {
		return text
	}
	text = text[:most]
	for !utf8.ValidString(text) && len(text) > most-utf8.UTFMax {
		text = text[:len(text)-1]
	}
	return text + "..."
}

// A rebootRecord is what the agent remembers: the content of its file.
type rebootRecord struct {
	Boot    Boot           `json:"boot"`              // the one that was seen last; a pending request was made in it
	Unasked bool           `json:"unasked,omitempty"` // nobody had asked for that boot
	Request *RebootRequest `json:"request,omitempty"` // the last one
	Told    bool           `json:"told,omitempty"`    // the twin shows all of this
}

// settle brings the record up to date with the boot the machine is in. It reports whether the record
// has changed.
func (r *rebootRecord) settle(now time.Time, b Boot) (changed bool) {
	old := r.Boot
	r.Boot = b
	switch {
	case old == (Boot{}): // the first start
		r.Told = false
		return true
	case old.same(b):
		if old.Time.Sub(b.Time).Abs() > clockJitter { // the clock has been set
			r.Told = false
			return true
		}
		r.Boot = old
		return false
	}
	r.Told, r.Unasked = false, !r.Request.pending()
	if !r.Unasked {
		r.Request.end(now, b, Rebooted, "")
	}
	return true
}

// patch is what the reported properties are to say. What is nil is removed.
func (r *rebootRecord) patch() map[string]any {
	patch := make(map[string]any)
	if r.Boot != (Boot{}) {
		patch["rebootTime"] = r.Boot.Time.UTC().Format(tutorial.TimeFormat)
		patch["boot"] = map[string]any{"id": orNil(r.Boot.ID), "unasked": orNil(r.Unasked)}
	}
	if q := r.Request; q != nil && q.Outcome != accepted {
		patch["reboot"] = map[string]any{
			"requestId": q.ID, "method": q.Method, "requestedAt": q.RequestedAt.UTC().Format(tutorial.TimeFormat), "attempt": q.Attempt,
			"outcome": q.Outcome, "reason": orNil(q.Reason), "bootId": orNil(q.BootID), "duration": orNil(q.Duration),
		}
	}
	return patch
}

func orNil[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}
