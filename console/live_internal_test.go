package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newTestLive returns a subscription that reads what is sent to the channel, and counts how often reading began.
func newTestLive(t *testing.T, events <-chan string, broken <-chan error) (*live, *atomic.Int64) {
	var wg sync.WaitGroup
	var begun atomic.Int64
	l := &live{run: wg.Go, epoch: "e", watchers: map[*watcher]bool{}, explain: func(err error) string { return err.Error() }}
	l.read = func(ctx context.Context, ready func(), fn func(liveEvent)) error {
		begun.Add(1)
		ready()
		for {
			select {
			case text := <-events:
				fn(liveEvent{Device: text, Source: sourceTelemetry, Doc: json.RawMessage(text)})
			case err := <-broken:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	t.Cleanup(func() {
		l.close()
		wg.Wait()
	})
	return l, &begun
}

func all(*liveEvent) bool { return true }

// drain returns what waits for a watcher.
func drain(w *watcher) (got []string) {
	for len(w.events) > 0 {
		got = append(got, (<-w.events).Device)
	}
	return got
}

func TestAllPagesShareOneSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan string)
		l, begun := newTestLive(t, events, nil)
		a, err := l.watch(all, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.watch(func(e *liveEvent) bool { return e.Device == "y" }, 0)
		if err != nil {
			t.Fatal(err)
		}
		events <- "x"
		events <- "y"
		synctest.Wait()
		if got, want := fmt.Sprint(drain(a), drain(b)), "[x y] [y]"; got != want {
			t.Errorf("%s came, want %s", got, want)
		}
		l.leave(a)
		l.leave(b)
		c, err := l.watch(all, 1) // before reading has ended: nothing is lost
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(drain(c)); got != "[y]" || begun.Load() != 1 {
			t.Errorf("behind the first there is %s, and reading began %d times", got, begun.Load())
		}
		l.leave(c)
		time.Sleep(linger + time.Second)
		synctest.Wait()
		if l.state().On {
			t.Error("it reads although nobody follows")
		}
		if _, err := l.watch(all, 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if begun.Load() != 2 || !l.state().On {
			t.Errorf("reading began %d times", begun.Load())
		}
	})
}

func TestASlowPageLosesEventsAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan string)
		l, _ := newTestLive(t, events, nil)
		slow, _ := l.watch(all, 0)
		fast, _ := l.watch(all, 0)
		got := 0
		for i := range maxKept + 10 {
			events <- fmt.Sprint(i)
			synctest.Wait()
			got += len(drain(fast))
		}
		if got != maxKept+10 || fast.lost.Load() != 0 {
			t.Errorf("the page that reads got %d events and lost %d", got, fast.lost.Load())
		}
		if len(slow.events) != maxBacklog || slow.lost.Load() != maxKept+10-maxBacklog {
			t.Errorf("for the page that does not %d wait, and %d are lost", len(slow.events), slow.lost.Load())
		}
		if len(l.newest(2*maxKept)) != maxKept {
			t.Errorf("%d are kept", len(l.newest(2*maxKept)))
		}
	})
}

func TestFollowersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newTestLive(t, nil, nil)
		for range maxStreams {
			if _, err := l.watch(all, 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.watch(all, 0); err == nil {
			t.Error("there is no bound")
		}
	})
}

func TestReadingGoesOnAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := make(chan error)
		l, begun := newTestLive(t, nil, broken)
		w, _ := l.watch(all, 0)
		synctest.Wait()
		<-w.changed
		broken <- errors.New("cut")
		synctest.Wait()
		<-w.changed
		if s := l.state(); s.On || s.Problem != "cut" {
			t.Errorf("it says %+v", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := l.state(); !s.On || begun.Load() != 2 {
			t.Errorf("it says %+v, and reading began %d times", s, begun.Load())
		}
	})
}
