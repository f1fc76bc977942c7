package agent

import (
	"fmt"
	"time"
)

// A phase of an update. Those of the tutorial are reported as they are; rollingBack is an error still.
type phase string

// The phases, in their order; the last three are final.
const (
	downloading phase = "downloading"
	verifying   phase = "verifying"
	applying    phase = "applying"
	rollingBack phase = "rollingBack"
	rebooting   phase = "rebooting"
	current     phase = "current"
	failed      phase = "error"
	rolledBack  phase = "rolledback"
)

// final reports whether nothing is left to do.
func (p phase) final() bool { return p == "" || p == current || p == failed || p == rolledBack }

// readUpdateRecord returns an empty record if there is no file.
func readUpdateRecord(file string) (updateRecord, error) {
	r, err := readJSON[updateRecord](file)
	if err != nil {
		return updateRecord{}, err
	}
	switch r.Phase {
	case downloading, verifying, applying, rollingBack, rebooting:
		if r.Request == nil {
			return updateRecord{}, fmt.Errorf("%s is damaged: it is %s nothing", file, r.Phase)
		}
	default:
		if !r.Phase.final() {
			return updateRecord{}, fmt.Errorf("%s is damaged, or of a newer version: %q is no phase of an update", file, r.Phase)
		}
	}
	return r, nil
}

// An updateRecord is what the agent remembers of updates: the content of its file. It is written before
// a phase begins, so that after a restart the phase in it may have begun, and the one after it has not.
type updateRecord struct {
	Version string `json:"version"`          // what runs; empty: not known
	SHA256  string `json:"sha256,omitempty"` // of the package it came from; empty: not from one

	ID             string              `json:"id,omitempty"`             // of the last request, as it was answered and is reported; empty: of an older agent
	Request        *UpdateRequest      `json:"request,omitempty"`        // the last one; nil: it could not be read
	DesiredVersion int64               `json:"desiredVersion,omitempty"` // of the desired properties that asked; 0: a direct method did
	Phase          phase               `json:"phase,omitempty"`
	Code           int                 `json:"code,omitempty"`   // how it is acknowledged
	Detail         string              `json:"detail,omitempty"` // in words
	Started        time.Time           `json:"started,omitzero"`
	Ended          time.Time           `json:"ended,omitzero"`
	Times          map[phase]time.Time `json:"times,omitempty"`     // when each phase began
	Validator      string              `json:"validator,omitempty"` // of what has been downloaded
	Boot           Boot                `json:"boot,omitzero"`       // in which a reboot was asked for
}

// enter begins a phase.
func (r *updateRecord) enter(p phase, code int, detail string, now time.Time) {
	r.Phase, r.Code, r.Detail = p, code, detail
	if p.final() {
		r.Ended = now
		return
	}
	if r.Times == nil {
		r.Times = make(map[phase]time.Time)
	}
	r.Times[p] = now
}

// has reports whether the package of a request is what runs. Nobody knows what a command has left that
// failed, or did not end.
func (r *updateRecord) has(request UpdateRequest) bool {
	known := r.Phase != failed || r.Times[applying].IsZero()
	return known && r.Version == request.Version && (r.SHA256 == "" || r.SHA256 == request.SHA256)
}

// pendingVersion is the version that is not there yet; empty: none.
func (r *updateRecord) pendingVersion() string {
	if r.Request == nil || r.Phase == current {
		return ""
	}
	return r.Request.Version
}

// report is the reported property firmware, as the tutorial "Implement a device firmware update process"
// has it, with an acknowledgement if desired properties asked, and the times of the phases.
func (r *updateRecord) report() any {
	type times map[phase]string
	status := r.Phase
	switch status {
	case "":
		status = current
	case rollingBack:
		status = failed
	}
	report := struct {
		Current   string         `json:"currentFwVersion"`
		Pending   string         `json:"pendingFwVersion"`
		Status    phase          `json:"fwUpdateStatus"`
		Substatus string         `json:"fwUpdateSubstatus"`
		ID        string         `json:"requestId,omitempty"`
		Started   string         `json:"lastFwUpdateStartTime"`
		Ended     string         `json:"lastFwUpdateEndTime"`
		Times     times          `json:"fwUpdateTimes,omitempty"`
		Value     map[string]any `json:"value,omitempty"`
		Code      int            `json:"ac,omitempty"`
		Version   int64          `json:"av,omitempty"`
		Text      string         `json:"ad,omitempty"`
	}{
		Current: r.Version, Pending: r.pendingVersion(), Status: status, Substatus: r.Detail, ID: r.ID,
		Started: reportTime(r.Started), Ended: reportTime(r.Ended), Times: times{},
	}
	for p, t := range r.Times {
		report.Times[p] = reportTime(t)
	}
	if r.DesiredVersion > 0 {
		report.Value = map[string]any{"fwVersion": r.Version}
		report.Code, report.Version, report.Text = r.Code, r.DesiredVersion, string(status)
		if r.Detail != "" {
			report.Text += ": " + r.Detail
		}
	}
	return report
}

// reportTime writes a time for a twin; empty for none.
func reportTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
