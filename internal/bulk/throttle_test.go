package bulk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestThrottleWaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pauses []time.Duration
		throttle := &throttle{paused: func(d time.Duration) { pauses = append(pauses, d) }}
		tooMany := &hubrest.Error{Status: 429}
		began, calls := time.Now(), 0
		err := throttle.do(t.Context(), func() error {
			if calls++; calls <= 7 {
				return tooMany
			}
			return hubrest.ErrNotFound
		})
		if !errors.Is(err, hubrest.ErrNotFound) {
			t.Errorf("do = %v, want the last error", err)
		}
		want := []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}
		if diff := cmp.Diff(want, pauses); diff != "" {
			t.Errorf("pauses (-want +got):\n%s", diff)
		}
		if took := time.Since(began); took != 182*time.Second {
			t.Errorf("it took %v, want 3m2s", took)
		}
		// A success ends the series, and all share a pause.
		throttle.do(t.Context(), func() error { return nil })
		throttle.refused()
		throttle.refused()
		if diff := cmp.Diff(append(want, 2*time.Second), pauses); diff != "" {
			t.Errorf("pauses after a success (-want +got):\n%s", diff)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := throttle.do(ctx, func() error { t.Error("a request during a pause"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("do = %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
