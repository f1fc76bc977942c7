package httprequest

import (
	"errors"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestLargeBodiesTakeTurns(t *testing.T) {
	const bulk = largeBodies / 2
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns()
		await := func(size int64) (end func(), took time.Duration, err error) {
			start := time.Now()
			end, err = turns.await(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "POST", "/devices", nil), size)
			return end, time.Since(start), err
		}
		first, took, err := await(bulk)
		if err != nil || took != 0 {
			t.Fatalf("the first waits %v: %v", took, err)
		}
		if _, took, err := await(bulk); err != nil || took != 0 {
			t.Fatalf("the second waits %v: %v", took, err)
		}
		if _, took, err := await(smallBody); err != nil || took != 0 {
			t.Errorf("a small body waits %v: %v", took, err)
		}
		if _, took, err := await(bulk); !errors.Is(err, ErrCrowded) || took != BodyTimeout {
			t.Errorf("the third waits %v: %v, want %v and a refusal", took, err, BodyTimeout)
		}
		time.AfterFunc(5*time.Second, first)
		if _, took, err := await(bulk); err != nil || took != 5*time.Second {
			t.Errorf("the fourth waits %v: %v, want 5 s", took, err)
		}
	})
}
