package fleet

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// fates are what the first n methods of a device come to.
func fates(t *testing.T, id string, n int, opt Options) (failed, late []int) {
	t.Helper()
	opt.Devices = []mqttdevice.Options{{ConnectionString: sas.ConnectionString{HostName: "h", DeviceID: id, SharedAccessKey: sas.NewKey()}}}
	f, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		fails, delay := f.devices[0].fate()
		if fails {
			failed = append(failed, i)
		}
		if delay > 0 {
			late = append(late, i)
		}
	}
	return failed, late
}

func TestTheSameSeedHasTheSameFailures(t *testing.T) {
	opt := Options{Seed: 1, FailRate: 0.25, SlowRate: 0.1, AnswerDelay: time.Second}
	failed, late := fates(t, "a", 10_000, opt)
	if n, m := len(failed), len(late); n < 2_300 || n > 2_700 || m < 900 || m > 1_100 {
		t.Errorf("of 10000 methods %d fail and %d are late, want about 2500 and 1000", n, m)
	}
	again, lateAgain := fates(t, "a", 10_000, opt)
	if !slices.Equal(failed, again) || !slices.Equal(late, lateAgain) {
		t.Error("with the same seed other methods fail or are late")
	}
	opt.SlowRate = 0.9
	if again, _ := fates(t, "a", 10_000, opt); !slices.Equal(failed, again) {
		t.Error("with another SlowRate other methods fail")
	}
	if other, _ := fates(t, "b", 10_000, opt); slices.Equal(failed, other) {
		t.Error("of another device the same methods fail")
	}
	opt.Seed = 2
	if other, _ := fates(t, "a", 10_000, opt); slices.Equal(failed, other) {
		t.Error("with another seed the same methods fail")
	}
}

func TestDevicesAreAwayForTheirShareOfTheTime(t *testing.T) {
	d := newDevice(&Fleet{opt: Options{OfflineRate: 0.2, OfflineDuration: time.Minute}}, mqttdevice.Options{})
	var away, there time.Duration
	for range 10_000 {
		there += d.stay()
		away += d.absence()
	}
	if share := float64(away) / float64(away+there); share < 0.19 || share > 0.21 {
		t.Errorf("the device is away for %v of the time, want 0.2", share)
	}
	if mean := away / 10_000; mean < 55*time.Second || mean > 65*time.Second {
		t.Errorf("it is away for %v, want a minute", mean)
	}
}

func TestVary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	if got := vary(r, time.Minute, 0); got != time.Minute {
		t.Errorf("without jitter a minute is %v", got)
	}
	least, most := time.Hour, time.Duration(0)
	for range 10_000 {
		d := vary(r, time.Minute, 0.5)
		least, most = min(least, d), max(most, d)
	}
	if least < 30*time.Second || least > 31*time.Second || most > 90*time.Second || most < 89*time.Second {
		t.Errorf("with a jitter of one half a minute is between %v and %v, want 30 s and 90 s", least, most)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if got := h.latency(); got != (Latency{}) {
		t.Errorf("without values: %+v, want zero", got)
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	got := h.latency()
	for _, tt := range []struct{ got, want float64 }{{got.P50, 501}, {got.P90, 901}, {got.P99, 991}, {got.Max, 1000}} {
		if tt.got < tt.want || tt.got > tt.want*17/16 {
			t.Errorf("of 1 to 1000 ms: %v, want %v or a sixteenth more: %+v", tt.got, tt.want, got)
		}
	}
}

func TestBuckets(t *testing.T) {
	last := -1
	for _, d := range []time.Duration{-1, 0, 1, time.Microsecond, 15 * time.Microsecond, 16 * time.Microsecond, 31 * time.Microsecond,
		32 * time.Microsecond, 33 * time.Microsecond, 34 * time.Microsecond, time.Millisecond, time.Second, time.Hour, 1<<63 - 1} {
		b := bucket(d)
		if b < last {
			t.Errorf("%v is in bucket %d, and what is shorter in %d", d, b, last)
		}
		last = b
		us := max(d, 0).Truncate(time.Microsecond)
		if up := upper(b); d < time.Hour && (up < us || up > us+us/16) {
			t.Errorf("%v is in bucket %d, which ends at %v", d, b, up)
		}
	}
	var h histogram
	h.add(1<<63 - 1)
	if diff := cmp.Diff(uint64(1), h.n); diff != "" {
		t.Error(diff)
	}
}
