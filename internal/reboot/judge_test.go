package reboot

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewerTime(t *testing.T) {
	for _, tt := range []struct {
		name, before, now string
		want              bool
	}{
		{"nothing is reported", ``, ``, false},
		{"the first time", ``, `"2026-01-01T00:00:00Z"`, true},
		{"the same", `"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:00Z"`, false},
		{"the same instant in another spelling", `"2026-01-01T00:00:00Z"`, `"2026-01-01T01:00:00+01:00"`, false},
		{"later", `"2026-01-01T00:00:00Z"`, `"2026-01-01T00:00:00.000001Z"`, true},
		{"earlier", `"2026-01-01T00:00:00Z"`, `"2025-12-31T23:59:59Z"`, false},
		{"removed", `"2026-01-01T00:00:00Z"`, ``, false},
		{"the tutorial's device, which has no zone", `"2026-01-01 02:59:59.1"`, `"2026-01-01 02:00:01.2"`, true},
		{"from the tutorial's device to ours", `"2026-01-01 02:59:59.1"`, `"2026-01-01T00:00:00Z"`, true},
		{"a number", `1700000000`, `1700000100`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := newerTime(tt.before, tt.now); got != tt.want {
				t.Errorf("newerTime(%s, %s) = %v, want %v", tt.before, tt.now, got, tt.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	of := func(rebootTime, reboot string) Report {
		return Report{RebootTime: json.RawMessage(rebootTime), Reboot: json.RawMessage(reboot)}
	}
	const (
		early, late  = `"2026-01-01T00:00:00Z"`, `"2026-01-02T00:00:00Z"`
		plainAnswer  = `{"Response":"This is the response from the device"}`
		ourAnswer    = `{"requestId":"r-2"}`
		formerReboot = `{"requestId":"r-1","outcome":"rebooted"}`
	)
	for _, tt := range []struct {
		name        string
		answer      string
		before, now Report
		want        string
		reason      string
	}{
		{"a plain device says nothing new", plainAnswer, of(early, ""), of(early, ""), "", ""},
		{"a plain device says when", plainAnswer, of(early, ""), of(late, ""), Rebooted, ""},
		{"an answer that is no object", `"ok"`, of("", ""), of(late, ""), Rebooted, ""},
		{"no answer", ``, of("", ""), of("", ""), "", ""},
		{"a device that has said nothing yet", ourAnswer, of(early, ""), of(early, ""), "", ""},
		{"a device that has said nothing yet, and whose clock was set", ourAnswer, of(early, formerReboot), of(late, formerReboot), "", ""},
		{"a device that reports its boot when it first connects", ourAnswer, of("", ""), of(late, ""), "", ""},
		{"going down", ourAnswer, of(early, formerReboot), of(early, `{"requestId":"r-2","outcome":"rebooting"}`), Rebooting, ""},
		{"back", ourAnswer, of(early, formerReboot), of(late, `{"requestId":"r-2","outcome":"rebooted"}`), Rebooted, ""},
		{"back, with a clock that is behind", ourAnswer, of(late, formerReboot), of(early, `{"requestId":"r-2","outcome":"rebooted"}`), Rebooted, ""},
		{"the same boot", ourAnswer, of(early, ""), of(early, `{"requestId":"r-2","outcome":"notRebooted","reason":"why"}`), NotRebooted, "why"},
		{"the same boot, although the clock was set", ourAnswer, of(early, ""), of(late, `{"requestId":"r-2","outcome":"notRebooted","reason":"why"}`), NotRebooted, "why"},
		{"a command that failed", ourAnswer, of(early, ""), of(early, `{"requestId":"r-2","outcome":"commandFailed","reason":"why"}`), Failed, "why"},
		{"refused", ourAnswer, of(early, ""), of(early, `{"requestId":"r-2","outcome":"refused","reason":"why"}`), Refused, "why"},
		{"an outcome of a later version", ourAnswer, of(early, ""), of(early, `{"requestId":"r-2","outcome":"postponed"}`), "", ""},
		{"somebody else's reboot after ours", ourAnswer, of(early, formerReboot), of(late, `{"requestId":"r-3","outcome":"rebooting"}`), Rebooted, ""},
		{"nonsense", ourAnswer, of(early, `[1]`), of(early, `{"requestId":7}`), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := NewJudge(tt.before)
			j.Answered(json.RawMessage(tt.answer))
			got := j.Find(tt.now)
			if got.Verdict != tt.want || got.Reason != tt.reason {
				t.Errorf("found %q (%q), want %q (%q)", got.Verdict, got.Reason, tt.want, tt.reason)
			}
			if final := tt.want != "" && tt.want != Rebooting; got.Final != final {
				t.Errorf("found %q, which is the last word: %v, want %v", got.Verdict, got.Final, final)
			}
		})
	}
}

func TestReportOf(t *testing.T) {
	got := ReportOf([]byte(`{"rebootTime":"2026-01-01T00:00:00Z","reboot":{"requestId":"r"},"other":1,"$version":3}`))
	want := Report{RebootTime: json.RawMessage(`"2026-01-01T00:00:00Z"`), Reboot: json.RawMessage(`{"requestId":"r"}`)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReportOf (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Report{}, ReportOf(nil)); diff != "" {
		t.Errorf("ReportOf of nothing (-want +got):\n%s", diff)
	}
}
