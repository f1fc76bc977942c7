package cluster

import (
	"sync"
	"time"
)

// An askedID names a question: the epoch of who asks, and which of its questions it
// is.
type askedID struct{ epoch, number uint64 }

// An answer is what a question is answered with: a text, or a header.
type answer struct {
	header, value string
	text          []byte
}

const (
	// rememberedFor is for how long it is known what was asked: who has not got the
	// answer asks again meanwhile.
	rememberedFor = 3 * longestPause

	// rememberedBytes bounds the texts of the answers that can be given again.
	rememberedBytes = 16 << 20
)

// heard is what a node was asked, so that a question which comes again is given the
// same answer, and nothing is done again.
type heard struct {
	mu    sync.Mutex // guards what follows
	asked map[askedID]*question
	given []given // questions of asked that were answered, oldest first
	gone  int     // of how many of given the answer is not kept any more
	bytes int     // of the texts that are

	// forgotten is, by the epoch of who asked, the highest number that is not in
	// asked any more. Lower ones that are not either may have been answered.
	forgotten map[uint64]uint64
}

func newHeard() *heard {
	return &heard{asked: make(map[askedID]*question), forgotten: make(map[uint64]uint64)}
}

// A question is one that is being answered, or was of late.
type question struct {
	inbox  string  // where the answer is waited for
	answer *answer // nil while there is none, and when it is not kept any more
}

// A given is a question that has been answered.
type given struct {
	id askedID
	at time.Time
}

// again reports whether a question was heard before. Its answer, once there is one,
// is waited for in the inbox.
func (h *heard) again(id askedID, inbox string) (known bool, a *answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q := h.asked[id]; q != nil {
		q.inbox = inbox
		return true, q.answer
	}
	return id.number <= h.forgotten[id.epoch], nil
}

// begin remembers a question that is going to be answered.
func (h *heard) begin(id askedID, inbox string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[id] = &question{inbox: inbox}
}

// answer remembers the answer of a question, and returns where it is waited for.
func (h *heard) answer(id askedID, a answer) (inbox string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.asked[id]
	q.answer = &a
	now := time.Now()
	h.given = append(h.given, given{id, now})
	h.bytes += len(a.text)
	for h.bytes > rememberedBytes {
		h.drop()
	}
	for now.Sub(h.given[0].at) > rememberedFor {
		h.forget()
	}
	return q.inbox
}

// drop drops the oldest answer that is kept.
func (h *heard) drop() {
	q := h.asked[h.given[h.gone].id]
	h.bytes -= len(q.answer.text)
	q.answer = nil
	h.gone++
}

// forget forgets the question that was answered longest ago.
func (h *heard) forget() {
	if h.gone == 0 {
		h.drop()
	}
	id := h.given[0].id
	h.given = h.given[1:]
	h.gone--
	delete(h.asked, id)
	h.forgotten[id.epoch] = max(h.forgotten[id.epoch], id.number)
}
