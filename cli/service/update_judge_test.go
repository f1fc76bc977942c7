package service

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestUpdateJudge(t *testing.T) {
	const (
		began   = `{"message":"the update to version 2.0 has begun","requestId":"r-2"}`
		had     = `{"message":"version 2.0 is installed already"}`
		plain   = `"Firmware update started."`
		never   = `{"currentFwVersion":"1.0","pendingFwVersion":"","fwUpdateStatus":"current"}`
		earlier = `{"currentFwVersion":"1.0","pendingFwVersion":"2.0","fwUpdateStatus":"error","fwUpdateSubstatus":"then","requestId":"r-1","lastFwUpdateEndTime":"t","fwUpdateTimes":{"downloading":"t"}}`
		at2     = `{"currentFwVersion":"2.0","pendingFwVersion":"","fwUpdateStatus":"current"}`
	)
	ours := func(version, status, detail, rest string) string {
		return `{"currentFwVersion":"` + version + `","pendingFwVersion":"2.0","fwUpdateStatus":"` + status + `","fwUpdateSubstatus":"` + detail + `","requestId":"r-2"` + rest + `}`
	}
	for _, tt := range []struct {
		name, answer, before, now string
		want                      Finding
	}{
		{"nothing is reported yet", began, never, never, Finding{}},
		{"nothing was ever reported", began, ``, ``, Finding{}},
		{"the end of an earlier update to the same version", began, earlier, earlier, Finding{}},
		{"downloading", began, earlier, ours("1.0", "downloading", "40%", ""), Finding{Verdict: "downloading", Reason: "40%", Version: "1.0"}},
		{"under way since before the call", began, ours("1.0", "applying", "", ""), ours("1.0", "applying", "", ""), Finding{Verdict: "applying", Version: "1.0"}},
		{"verifying", began, never, ours("1.0", "verifying", "", ""), Finding{Verdict: "verifying", Version: "1.0"}},
		{"rebooting", began, never, ours("1.0", "rebooting", "", ""), Finding{Verdict: "rebooting", Version: "1.0"}},
		{"updated", began, never, ours("2.0", "current", "", ""), Finding{Verdict: "updated", Version: "2.0", final: true}},
		{"failed while downloading", began, earlier, ours("1.0", "error", "download: 404", `,"lastFwUpdateEndTime":"t","fwUpdateTimes":{"downloading":"t"}`),
			Finding{Verdict: "failed", Phase: "downloading", Reason: "download: 404", Version: "1.0", final: true}},
		{"failed while applying", began, earlier, ours("1.0", "error", "no room", `,"lastFwUpdateEndTime":"t","fwUpdateTimes":{"downloading":"t","verifying":"t","applying":"t"}`),
			Finding{Verdict: "failed", Phase: "applying", Reason: "no room", Version: "1.0", final: true}},
		{"rolling back, which is an error still", began, never, ours("1.0", "error", "no room", `,"lastFwUpdateEndTime":"","fwUpdateTimes":{"downloading":"t","applying":"t","rollingBack":"t"}`),
			Finding{Verdict: "rolling back", Phase: "applying", Reason: "no room", Version: "1.0"}},
		{"rolled back", began, never, ours("1.0", "rolledback", "no room", `,"lastFwUpdateEndTime":"t","fwUpdateTimes":{"downloading":"t","applying":"t","rollingBack":"t"}`),
			Finding{Verdict: "rolled back", Phase: "applying", Reason: "no room", Version: "1.0", final: true}},
		{"could not roll back", began, never, ours("1.0", "error", "no room; nor back", `,"lastFwUpdateEndTime":"t","fwUpdateTimes":{"applying":"t","rollingBack":"t"}`),
			Finding{Verdict: "failed", Phase: "applying", Reason: "no room; nor back", Version: "1.0", final: true}},
		{"somebody else's update after ours", began, earlier, `{"currentFwVersion":"1.0","pendingFwVersion":"3.0","fwUpdateStatus":"downloading","requestId":"r-3"}`,
			Finding{Verdict: "failed", Reason: "another update took its place, to version 3.0", Version: "1.0", final: true}},
		{"a status of a later version", began, never, ours("1.0", "deciding", "", ""), Finding{}},
		{"had it already", had, at2, at2, Finding{Verdict: "already at this version", Version: "2.0", final: true}},
		{"a plain device says nothing new", plain, never, never, Finding{}},
		{"a plain device speaks of another update", plain, never, `{"currentFwVersion":"1.0","pendingFwVersion":"3.0","fwUpdateStatus":"downloading"}`, Finding{}},
		{"a plain device is updated", plain, never, at2, Finding{Verdict: "updated", Version: "2.0", final: true}},
		{"a plain device fails", plain, never, `{"currentFwVersion":"1.0","pendingFwVersion":"2.0","fwUpdateStatus":"error","fwUpdateSubstatus":"checksum"}`,
			Finding{Verdict: "failed", Reason: "checksum", Version: "1.0", final: true}},
		{"nonsense", plain, `[1]`, `{"currentFwVersion":7}`, Finding{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			of := func(firmware string) reported {
				return reported{properties: map[string]json.RawMessage{"firmware": json.RawMessage(firmware)}}
			}
			j := updateTask("2.0").judge(of(tt.before))
			j.answered(json.RawMessage(tt.answer))
			if diff := cmp.Diff(tt.want, j.find(of(tt.now)), cmp.AllowUnexported(Finding{}), cmpopts.IgnoreFields(Finding{}, "Firmware")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOwnWordsOfADevice(t *testing.T) {
	for payload, want := range map[string]string{
		`null`:                               "",
		``:                                   "",
		`"busy"`:                             "busy",
		`{"message":"no room"}`:              "no room",
		`{"Response":"Unknown method"}`:      "Unknown method",
		`{"error":{"message":"deep"}}`:       "deep",
		`{"code":7}`:                         `{"code":7}`,
		`{"message":"\u001b]0;owned\u0007"}`: `"\x1b]0;owned\a"`,
		`{"message":"two\nlines"}`:           `"two\nlines"`,
	} {
		if got := ownWords(json.RawMessage(payload)); got != want {
			t.Errorf("ownWords(%s) = %s, want %s", payload, got, want)
		}
	}
}

func TestBatches(t *testing.T) {
	long := string(make([]byte, 5000))
	for _, tt := range []struct {
		name    string
		devices []string
		most    int
		want    []int
	}{
		{"all at once", []string{"a", "b", "c"}, 0, []int{3}},
		{"as many as there are", []string{"a", "b", "c"}, 3, []int{3}},
		{"two at a time", []string{"a", "b", "c"}, 2, []int{2, 1}},
		{"as many as a query can name", []string{long, long, "c"}, 2, []int{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var sizes []int
			for _, b := range batches(tt.devices, tt.most) {
				sizes = append(sizes, len(b))
			}
			if diff := cmp.Diff(tt.want, sizes); diff != "" {
				t.Errorf("sizes of the batches (-want +got):\n%s", diff)
			}
		})
	}
}
