package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// mostRows is how many devices people are shown: more of them would only scroll
// past.
const mostRows = 20

// verdictOrder is the order in which verdicts are counted and shown: the best
// first.
var verdictOrder = []string{
	verdictRebooted, verdictUpdated, verdictHad,
	verdictDownloading, verdictVerifying, verdictApplying, verdictRollingBack, verdictRebooting, verdictAnswered,
	verdictRefused, verdictFailed, verdictNotRebooted, verdictRolledBack, verdictLost, verdictNotCalled,
}

// did reports whether a verdict is that a device did the task.
func (k *task) did(verdict string) bool { return slices.Contains(k.done, verdict) }

// good reports whether a device did as it was asked, as far as that was to be seen.
func (r *rollout) good(d taskReport) bool {
	return r.task.did(d.Verdict) || r.o.noWait && d.Verdict == verdictAnswered
}

// failed reports whether it is known that a device did not do as it was asked.
func (r *rollout) failed(d taskReport) bool {
	return !r.good(d) && (d.final || d.Verdict == verdictLost)
}

// conclude prints what came of each device, and fails unless all did as asked.
func (r *rollout) conclude(ctx context.Context, err error) error {
	list := []taskReport{}
	for _, d := range r.devices {
		list = append(list, d.taskReport)
	}
	slices.SortFunc(list, func(a, b taskReport) int { return strings.Compare(a.Device, b.Device) })
	good := 0
	counts := make(map[string]int)
	for _, d := range list {
		counts[d.Verdict]++
		if r.good(d) {
			good++
		}
	}
	if perr := r.print(list); perr != nil {
		return perr
	}
	var summary []string
	for _, verdict := range verdictOrder {
		if n := counts[verdict]; n > 0 {
			summary = append(summary, fmt.Sprintf("%d %s", n, verdict))
		}
	}
	text := strings.Join(summary, ", ")
	switch {
	case ctx.Err() != nil:
		r.whatGoesOn()
		return fail.Errorf(fail.Interrupted, "interrupted: %s", cmp.Or(text, "nothing was done"))
	case errors.Is(err, errTooManyFailures):
		return fail.Errorf(fail.Failed, "stopped after %s: %s", output.Count(r.failures, "failure"), text)
	case err != nil && counts[verdictNotCalled] == len(list):
		return explainJob(ctx, r.target, err, "")
	case err != nil:
		explained := explainJob(ctx, r.target, err, "")
		return fail.Errorf(fail.ExitStatus(explained), "%v: %s", explained, text)
	case good < len(list):
		return fail.Errorf(fail.Failed, "%s: %s", r.task.shortfall, text)
	}
	r.Note("%s", text)
	return nil
}

// print prints the devices. People see all of a few, the failures at the end, and
// of many those that failed.
func (r *rollout) print(list []taskReport) error {
	failures := slices.DeleteFunc(slices.Clone(list), func(d taskReport) bool { return !r.failed(d) })
	if r.o.failedOnly {
		list = failures
	}
	if !r.o.Output.ForPeople() {
		return r.o.Output.Print(r.Streams, output.Result{Value: list, Columns: r.task.columns})
	}
	if len(list) > mostRows {
		list = failures
	}
	rank := func(d taskReport) int { return slices.Index(verdictOrder, d.Verdict) }
	slices.SortStableFunc(list, func(a, b taskReport) int { return rank(a) - rank(b) })
	if len(list) == 0 {
		return nil
	}
	if len(list) > mostRows {
		if err := r.printReasons(list); err != nil {
			return err
		}
		r.Note("The first %d of these %d; -o json, tsv or table prints all", mostRows, len(list))
		list = list[:mostRows]
	}
	return r.printTable(list)
}

// printTable prints the devices for people, in as few columns as will do: the
// status of an answer is in the reason where it matters, and what none of them has
// is left out.
func (r *rollout) printTable(list []taskReport) error {
	rows := slices.Clone(list)
	for i := range rows {
		rows[i].Verdict = rows[i].words()
	}
	doc, err := jsontext.Marshal(rows)
	if err != nil {
		return err
	}
	columns := slices.DeleteFunc(slices.Clone(r.task.columns), func(c output.Column) bool {
		return c.Path() == "status" || c.Path() == "phase" || len(gjson.GetBytes(doc, "#."+c.Path()).Array()) == 0
	})
	return r.o.Output.Print(r.Streams, output.Result{Value: json.RawMessage(doc), Columns: columns})
}

// words are the verdict, and the phase in which it failed.
func (f Finding) words() string {
	if f.Verdict != verdictFailed || f.Phase == "" {
		return f.Verdict
	}
	return f.Verdict + " while " + f.Phase
}

// printReasons says how many devices failed for which reason: the most frequent
// first.
func (r *rollout) printReasons(failures []taskReport) error {
	counts := make(map[string]int)
	var reasons []string
	for _, d := range failures {
		text := strings.TrimSuffix(d.words()+": "+output.OneLine(d.Reason), ": ")
		if counts[text]++; counts[text] == 1 {
			reasons = append(reasons, text)
		}
	}
	slices.SortStableFunc(reasons, func(a, b string) int { return counts[b] - counts[a] })
	return r.o.Output.Print(r.Streams, output.Result{Text: func(w io.Writer) error {
		for i, text := range reasons {
			if i == 10 {
				_, err := fmt.Fprintf(w, "%7s %s\n", "...", output.Count(len(reasons)-i, "more reason"))
				return err
			}
			if _, err := fmt.Fprintln(w, output.Cut(r.Out, fmt.Sprintf("%7d %s", counts[text], text))); err != nil {
				return err
			}
		}
		return nil
	}})
}
