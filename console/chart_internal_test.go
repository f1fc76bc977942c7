package console

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCharts(t *testing.T) {
	nan := math.NaN()
	from := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(values ...float64) (times []time.Time) {
		for i := range values {
			times = append(times, from.Add(time.Duration(i)*time.Minute))
		}
		return times
	}
	for name, tt := range map[string]struct {
		values  []float64
		line    string
		summary string
		ticks   []string
	}{
		"a line": {[]float64{0, 2, 4}, "M0.0 120.0L300.0 60.0L600.0 0.0", "now 4, between 0 and 4", []string{"4", "2", "0"}},
		"a gap":  {[]float64{0, nan, 1}, "M0.0 120.0L1.0 120.0M600.0 60.0L601.0 60.0", "now 1, between 0 and 1", []string{"2", "1", "0"}},
		"an end": {[]float64{1, 1, nan}, "M0.0 60.0L300.0 60.0", "between 1 and 1", []string{"2", "1", "0"}},
		"many":   {[]float64{0, 12345, 12345}, "M0.0 120.0L300.0 45.9L600.0 45.9", "now 12\u202f345, between 0 and 12\u202f345", []string{"20\u202f000", "10\u202f000", "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChart("c", "C", from, from.Add(2*time.Minute), at(tt.values...), series{"s", tt.values})
			if diff := cmp.Diff([]any{tt.line, tt.summary, tt.ticks}, []any{c.Lines[0].Line, c.Summary, c.Ticks}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if strings.Contains(c.Lines[0].Line+c.Lines[0].Area, "NaN") || len(c.Rows) != len(tt.values) {
				t.Errorf("%+v", c)
			}
		})
	}
	if c := newChart("c", "C", from, from.Add(time.Minute), at(nan), series{"s", []float64{nan}}); c.Missing == "" {
		t.Error("a chart of nothing does not say so")
	}
}

func TestManySamplesAreThinned(t *testing.T) {
	var many []sample
	for i := range 720 {
		many = append(many, sample{at: time.Unix(int64(i), 0), connected: float64(i % 2), messages: math.NaN()})
	}
	few := thin(many, chartPoints)
	if len(few) != chartPoints || few[0].connected != 0.5 || !math.IsNaN(few[0].messages) || !few[len(few)-1].at.Equal(many[719].at) {
		t.Errorf("%d samples, the first %+v", len(few), few[0])
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "now", 59 * time.Second: "59 s ago", -90 * time.Second: "in 1 min", 26 * time.Hour: "1 d ago",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) is %q, want %q", d, got, want)
		}
	}
}

func TestNumbersAreGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1\u202f000", -1234567: "-1\u202f234\u202f567", -123: "-123"} {
		if got := number(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
