package clock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iotdm/iotdm/hub/clock"
)

// kinds are the clocks that cannot, and can, be moved.
var kinds = map[string]func() *clock.Clock{
	"the machine's": func() *clock.Clock { return nil },
	"one to move":   clock.New,
}

func TestTimersRunByThemselves(t *testing.T) {
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, began := make(), time.Now()
				timer := c.NewTimer(time.Minute)
				<-timer.C
				if took := time.Since(began); took != time.Minute {
					t.Errorf("a timer of a minute took %v", took)
				}
				timer.Reset(time.Second)
				<-timer.C
				ticker := c.NewTicker(time.Second)
				defer ticker.Stop()
				for range 3 {
					<-ticker.C
				}
				if took := c.Since(began); took != time.Minute+4*time.Second {
					t.Errorf("all of it took %v", took)
				}
				timer.Reset(time.Second)
				timer.Stop()
				select {
				case <-timer.C:
					t.Error("a stopped timer has sent")
				case <-time.After(time.Hour):
				}
			})
		})
	}
}

func TestAt(t *testing.T) {
	for name, newClock := range kinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, began, called := newClock(), time.Now(), make(chan time.Duration, 1)
				c.At(c.Now().Add(time.Minute), func() { called <- time.Since(began) })
				if took := <-called; took != time.Minute {
					t.Errorf("it was called after %v", took)
				}
				c.At(c.Now().Add(-time.Hour), func() { called <- time.Since(began) })
				if took := <-called; took != time.Minute {
					t.Errorf("what is past is called after %v", took)
				}
				stop := c.At(c.Now().Add(time.Second), func() { called <- 0 })
				stop()
				time.Sleep(time.Hour) // in the bubble
				if len(called) > 0 {
					t.Error("it was called after stop")
				}
			})
		})
	}
}

// Whoever read the clock before it was moved still waits for no longer than it says.
func TestAtAfterAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, began, called := clock.New(), time.Now(), make(chan time.Duration, 1)
		due := c.Now().Add(time.Hour)
		c.Advance(59 * time.Minute)
		c.At(due, func() { called <- time.Since(began) })
		if took := <-called; took != time.Minute {
			t.Errorf("it was called after %v", took)
		}
	})
}

func TestAdvanceWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, began := clock.New(), time.Now()
		moved := c.Moved()
		timer, later, ticker := c.NewTimer(time.Hour), c.NewTimer(3*time.Hour), c.NewTicker(10*time.Minute)
		defer later.Stop()
		defer ticker.Stop()
		cause := errors.New("out of time")
		ctx, cancel := c.WithTimeout(context.Background(), time.Hour, cause)
		defer cancel()

		c.Advance(2 * time.Hour)
		<-moved
		<-timer.C
		<-ticker.C
		<-ctx.Done()
		if got := context.Cause(ctx); got != cause {
			t.Errorf("the context ended with %v", got)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("they were woken after %v of the machine's time", took)
		}
		if got := c.Since(began); got != 2*time.Hour || c.Ahead() != got {
			t.Errorf("the clock was moved by %v, and says %v", got, c.Ahead())
		}
		<-later.C
		if took := time.Since(began); took != time.Hour {
			t.Errorf("what was an hour ahead came after %v", took)
		}
	})
}

func TestAdvanceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, began := clock.New(), time.Now()
		timer := c.NewTimer(time.Minute)
		c.Advance(-time.Hour)
		<-timer.C
		if took := time.Since(began); took != time.Hour+time.Minute {
			t.Errorf("a timer of a minute took %v on a clock that was moved back an hour", took)
		}
	})
}

func TestStoppedShowsOneTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		c := clock.Stopped(day)
		<-c.NewTimer(time.Minute).C
		if got := c.Now(); !got.Equal(day) {
			t.Errorf("it shows %v after a minute", got)
		}
		c.Advance(time.Hour)
		if got := c.Now(); !got.Equal(day.Add(time.Hour)) {
			t.Errorf("moved by an hour it shows %v", got)
		}
	})
}

func TestTheMachinesTimeCannotBeMoved(t *testing.T) {
	var c *clock.Clock
	if c.Moved() != nil || c.Ahead() != 0 {
		t.Error("a nil clock says that it can be moved")
	}
	ctx, cancel := c.WithTimeout(context.Background(), 0, errors.New("at once"))
	defer cancel()
	<-ctx.Done()
}
