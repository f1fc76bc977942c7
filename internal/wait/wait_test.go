package wait_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
)

func TestFor(t *testing.T) {
	over := errors.New("over")
	for _, tt := range []struct {
		name   string
		ends   time.Duration // of the context; 0: before
		span   time.Duration
		took   time.Duration
		reason error
	}{
		{"the time passes", time.Hour, time.Minute, time.Minute, nil},
		{"the context ends first", time.Second, time.Minute, time.Second, over},
		{"the context has ended", 0, time.Minute, 0, over},
		{"no time", time.Hour, 0, 0, nil},
		{"no time and no context", 0, -1, 0, over},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.ends == 0 {
					cancel(over)
				} else {
					time.AfterFunc(tt.ends, func() { cancel(over) })
				}
				began := time.Now()
				err := wait.For(ctx, tt.span)
				if took := time.Since(began); err != tt.reason || took != tt.took {
					t.Errorf("For(ctx, %v) took %v and returned %v, want %v and %v", tt.span, took, err, tt.took, tt.reason)
				}
			})
		})
	}
}

func TestSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := wait.NewSignal()
		woken := 0
		go func() {
			for range s {
				woken++
				time.Sleep(time.Second)
			}
		}()
		synctest.Wait()
		if woken != 0 {
			t.Error("woken without a signal")
		}
		s.Set()
		synctest.Wait() // it is at work, and has not looked again
		s.Set()
		s.Set()
		time.Sleep(time.Minute)
		synctest.Wait()
		if woken != 2 {
			t.Errorf("woken %d times by three signals, two of them while it was at work; want 2", woken)
		}
		close(s)
	})
}
