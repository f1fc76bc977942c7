package service

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/cli/internal/output"
)

// printed is what people, or programs, see of a rollout.
func printed(t *testing.T, o *taskOptions, list []taskReport) (out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	r := &rollout{Streams: output.NewStreams(nil, &stdout, &stderr), task: rebootTask, o: o}
	if err := r.print(list); err != nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String()
}

func rebooted(n int) (list []taskReport) {
	for i := range n {
		list = append(list, taskReport{Device: fmt.Sprintf("d%04d", i), Status: 200, Finding: Finding{Verdict: verdictRebooted, final: true}})
	}
	return list
}

func TestFailuresOfAFewDevicesComeLast(t *testing.T) {
	list := rebooted(3)
	list[0].Finding = Finding{Verdict: verdictLost, Reason: "no reboot reported"}
	list[1] = taskReport{Device: "d0001", Finding: Finding{Verdict: verdictFailed, Reason: "DeviceNotOnline", final: true}}
	out, _ := printed(t, &taskOptions{}, list)
	want := `DEVICE   VERDICT           REASON
d0002    rebooted
d0001    failed            DeviceNotOnline
d0000    never came back   no reboot reported
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPeopleSeeTheFailuresOfManyAndNotAllOfThem(t *testing.T) {
	list := rebooted(2000)
	if out, _ := printed(t, &taskOptions{}, list); out != "" {
		t.Errorf("of 2000 devices that rebooted is printed:\n%s", out)
	}
	for i := range 1000 {
		list[i].Finding = Finding{Verdict: verdictFailed, Reason: "no room", final: true}
	}
	list[7].Reason = "no power"
	out, errOut := printed(t, &taskOptions{}, list)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if want := 2 + 1 + mostRows; len(lines) != want {
		t.Errorf("%d lines, want %d:\n%s", len(lines), want, out)
	}
	if want := "    999 failed: no room\n      1 failed: no power\n"; !strings.HasPrefix(out, want) {
		t.Errorf("it begins with:\n%s\nwant:\n%s", strings.Join(lines[:2], "\n"), want)
	}
	if want := "The first 20 of these 1000; -o json, tsv or table prints all\n"; errOut != want {
		t.Errorf("standard error has %q, want %q", errOut, want)
	}
}

func TestProgramsSeeAll(t *testing.T) {
	list := rebooted(2000)
	list[3].Finding = Finding{Verdict: verdictFailed, Reason: "no room", final: true}
	list[4].Finding = Finding{Verdict: verdictNotCalled}
	for _, tt := range []struct {
		name       string
		failedOnly bool
		want       int
	}{{"all", false, 2000}, {"the failures", true, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			o := &taskOptions{failedOnly: tt.failedOnly}
			o.Output.Format = "tsv"
			out, _ := printed(t, o, list)
			if got := strings.Count(out, "\n"); got != tt.want {
				t.Errorf("%d lines, want %d", got, tt.want)
			}
		})
	}
}

func TestFailuresAreToldOneByOneOnlyAtFirst(t *testing.T) {
	var out bytes.Buffer
	s := output.NewStreams(nil, nil, &out)
	bar := newProgressBar(s)
	notes := failureNotes{Streams: s, bar: &bar}
	for i := range 1000 {
		notes.tell("d%d failed", i)
	}
	if lines := strings.Split(out.String(), "\n"); len(lines) != 12 || lines[9] != "d9 failed" || lines[10] != "More failures are counted, but not shown one by one" {
		t.Errorf("1000 failures are told as:\n%s", out.String())
	}
}
