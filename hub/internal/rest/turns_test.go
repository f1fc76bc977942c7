package rest

import (
	"errors"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/iotdm/iotdm/hub"
)

func TestLargeBodiesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := semaphore.NewWeighted(largeBodies)
		await := func(size int64) (end func(), took time.Duration, err error) {
			start := time.Now()
			r := &request{Request: httptest.NewRequestWithContext(t.Context(), "POST", "/devices", nil), w: httptest.NewRecorder(), turns: turns}
			end, err = r.await(size)
			return end, time.Since(start), err
		}
		first, took, err := await(maxBulkBody)
		if err != nil || took != 0 {
			t.Fatalf("the first waits %v: %v", took, err)
		}
		if _, took, err := await(maxBulkBody); err != nil || took != 0 {
			t.Fatalf("the second waits %v: %v", took, err)
		}
		if _, took, err := await(smallBody); err != nil || took != 0 {
			t.Errorf("a small body waits %v: %v", took, err)
		}
		if _, took, err := await(maxBulkBody); !errors.Is(err, hub.ErrServiceUnavailable) || took != bodyTimeout {
			t.Errorf("the third waits %v: %v, want %v and 503", took, err, bodyTimeout)
		}
		time.AfterFunc(5*time.Second, first)
		if _, took, err := await(maxBulkBody); err != nil || took != 5*time.Second {
			t.Errorf("the fourth waits %v: %v, want 5 s", took, err)
		}
	})
}
