// Package httprequest is what the doors that speak HTTP do alike with a request: they split
// its path, bound and read its body, do to it what a fault of the test controls wants,
// and take it down for the journal. What they answer is each one's own.
package httprequest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/iotdm/iotdm/hub"
)

// BodyTimeout is how long the body of a request may take, and how long a large one
// waits for its turn.
const BodyTimeout = 30 * time.Second

// Bodies of more than smallBody take turns, so that all together take no more than
// largeBodies at a time: what becomes of one while it is worked on is several times
// as large.
const (
	smallBody   = 256 << 10
	largeBodies = 16 << 20
)

// Why a body was not read, besides the end of its context.
var (
	ErrTooLarge = errors.New("the body is too long")
	ErrCutOff   = errors.New("the body did not arrive in full")
	ErrCrowded  = errors.New("too many large requests at a time. Try again")
)

// Turns are those of large bodies of one kind of callers.
type Turns struct{ bytes *semaphore.Weighted }

// NewTurns returns turns that nobody has.
func NewTurns() Turns { return Turns{semaphore.NewWeighted(largeBodies)} }

// await waits for a large body's turn, which end ends.
func (t Turns) await(w http.ResponseWriter, r *http.Request, size int64) (end func(), err error) {
	if size <= smallBody {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), BodyTimeout)
	defer cancel()
	if err := t.bytes.Acquire(ctx, size); err != nil {
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		return nil, ErrCrowded
	}
	LimitBody(w, r) // from now on
	return func() { t.bytes.Release(size) }, nil
}

// Read returns the whole body, of at most limit bytes, and what is to be called once
// the request is answered.
//
// Errors: ErrTooLarge, ErrCutOff, ErrCrowded, that of the request's context.
func (t Turns) Read(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, done func(), err error) {
	if r.ContentLength == 0 {
		return nil, func() {}, nil
	}
	tooLarge := func() error { return fmt.Errorf("%w: it must be at most %d bytes", ErrTooLarge, limit) }
	if r.ContentLength > limit {
		return nil, nil, tooLarge()
	}
	size := r.ContentLength
	if size < 0 {
		size = limit // a body in chunks does not say
	}
	end, err := t.await(w, r, size)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	defer endBodyAtReset(w, r)()
	if _, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		end()
		if errors.Is(context.Cause(r.Context()), hub.ErrReset) {
			return nil, nil, r.Context().Err()
		}
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, nil, tooLarge()
		}
		return nil, nil, ErrCutOff
	}
	// What is asked for may take longer than the body was allowed to.
	http.NewResponseController(w).SetReadDeadline(time.Time{})
	return b.Bytes(), end, nil
}

// endBodyAtReset has the body end when the hub is reset, which does not wait for
// the rest of it, until stop is called. The connection ends with the answer then:
// net/http takes a read that fails for the end of the client.
func endBodyAtReset(w http.ResponseWriter, r *http.Request) (stop func()) {
	done := make(chan struct{})
	stopped := context.AfterFunc(r.Context(), func() {
		defer close(done)
		if errors.Is(context.Cause(r.Context()), hub.ErrReset) {
			http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		if !stopped() {
			<-done
			w.Header().Set("Connection", "close")
		}
	}
}

// LimitBody bounds how long the body of a request may take, be it read by its
// handler or, after the answer, by net/http. It fails only on a connection that
// is gone.
func LimitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(BodyTimeout))
	}
}
