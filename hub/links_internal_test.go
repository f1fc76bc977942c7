package hub

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestALinkEndsWhenThatIsTold has a replacement of the state wait for the event of a
// connection that has ended, which would be one of the new state otherwise.
func TestALinkEndsWhenThatIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l links
		l.init()
		id, link := ID{Device: "d1"}, &quietLink{}
		l.put(id, link)
		_, told := l.remove(id, link, &Incident{})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.awaitNone(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before it was told: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			told()
		}()
		if err := l.awaitNone(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
