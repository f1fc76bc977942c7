package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHeard()
		id := func(n uint64) askedID { return askedID{epoch: 7, number: n} }
		want := func(n uint64, known, answered bool) {
			t.Helper()
			if k, a := h.again(id(n), "again"); k != known || (a != nil) != answered {
				t.Errorf("question %d is known: %v, with an answer: %v; want %v, %v", n, k, a, known, answered)
			}
		}
		want(1, false, false)
		h.begin(id(1), "first")
		want(1, true, false)
		want(2, false, false)
		h.begin(id(2), "second")
		if inbox := h.answer(id(2), answer{text: []byte("x")}); inbox != "second" {
			t.Errorf("the answer goes to %s", inbox)
		}
		if inbox := h.answer(id(1), answer{text: []byte("x")}); inbox != "again" {
			t.Errorf("the answer goes to %s, where it is not waited for any more", inbox)
		}
		want(1, true, true)

		// Too much: the oldest answers go, and the questions stay known.
		for n := uint64(3); n < 3+20; n++ {
			h.begin(id(n), "")
			h.answer(id(n), answer{text: make([]byte, 1<<20)})
		}
		want(1, true, false)
		want(22-16, true, false)
		want(22-15, true, true)
		if h.bytes > rememberedBytes {
			t.Errorf("%d bytes are kept", h.bytes)
		}

		// Too long ago: what may have been asked is not new, and nobody else's is old.
		h.begin(id(24), "")
		time.Sleep(rememberedFor + time.Second)
		h.begin(id(25), "")
		h.answer(id(25), answer{})
		for n := uint64(1); n < 23; n++ {
			want(n, true, false)
		}
		h.answer(id(24), answer{})
		want(24, true, true)
		want(26, false, false)
		if known, _ := h.again(askedID{epoch: 8, number: 1}, ""); known {
			t.Error("the question of another node is known")
		}
		if len(h.asked) != 2 || len(h.given) != 2 || h.gone != 0 || h.bytes != 0 {
			t.Errorf("%d questions and %d answers are kept, %d without text, %d bytes", len(h.asked), len(h.given), h.gone, h.bytes)
		}
	})
}
