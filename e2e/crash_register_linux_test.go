package e2e

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// registerClients is how many clients write one twin.
const registerClients = 3

// A registerWriter is several clients that read and patch one twin, with etags and
// without, each through whichever node. Whatever they were answered must be
// explained by one order of all that they did, in which each took effect between
// its question and its answer.
type registerWriter struct {
	id string

	mu      sync.Mutex // guards what follows
	n       int        // of the last patch
	began   time.Time
	first   registerState // what the twin was when the history began
	history []porcupine.Operation
}

// A registerState is a twin as the clients know it.
type registerState struct {
	etag string
	n    int
}

// A registerInput is what a client asks: to read, if n is 0, or to set the tag n, if
// the etag is still that of ifMatch.
type registerInput struct {
	n       int
	ifMatch string
}

// A registerOutput is what it was answered.
type registerOutput struct {
	known   bool
	refused bool // the etag was another
	registerState
}

func (w *registerWriter) setup(h *crashHub) error {
	if err := createDevice(h, w.id, ""); err != nil {
		return err
	}
	return w.begin(h)
}

// begin begins a history, while nobody writes.
func (w *registerWriter) begin(h *crashHub) error {
	doc, err := readTwin(h, w.id)
	w.began, w.history, w.first = time.Now(), nil, registerState{doc.ETag, doc.Tags.N}
	return err
}

func (w *registerWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	var clients sync.WaitGroup
	defer clients.Wait()
	for id := range registerClients {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		clients.Go(func() {
			seen := w.first.etag
			for ctx.Err() == nil {
				var in registerInput
				if r.IntN(2) == 0 {
					w.mu.Lock()
					w.n++
					in.n = w.n
					w.mu.Unlock()
					if r.IntN(3) > 0 {
						in.ifMatch = seen
					}
				}
				out := w.ask(h, id, in)
				if !out.known {
					return // another client of the round would look like this one
				}
				if !out.refused {
					seen = out.etag
				}
			}
		})
	}
}

// ask asks the hub, and takes down what came of it.
func (w *registerWriter) ask(h *crashHub, client int, in registerInput) (out registerOutput) {
	began := time.Since(w.began)
	var a crashAnswer
	var err error
	switch {
	case in.n == 0:
		a, err = h.do("GET", "/twins/"+w.id, "")
	case in.ifMatch != "":
		a, err = h.do("PATCH", "/twins/"+w.id, fmt.Sprintf(`{"tags":{"n":%d}}`, in.n), "If-Match", `"`+in.ifMatch+`"`)
	default:
		a, err = h.do("PATCH", "/twins/"+w.id, fmt.Sprintf(`{"tags":{"n":%d}}`, in.n))
	}
	ended := int64(time.Since(w.began))
	var doc twinDoc
	switch {
	case err == nil && a.status == 412:
		out = registerOutput{known: true, refused: true}
	case err == nil && a.ok() && a.decode(&doc) == nil:
		out = registerOutput{known: true, registerState: registerState{doc.ETag, doc.Tags.N}}
	default: // it may take effect whenever it likes
		ended = math.MaxInt64
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, porcupine.Operation{ClientId: client, Input: in, Call: int64(began), Output: out, Return: ended})
	return out
}

// check looks for the order. What nobody knew is settled by then.
func (w *registerWriter) check(h *crashHub) error {
	if out := w.ask(h, registerClients, registerInput{}); !out.known {
		return fmt.Errorf("%s: the twin cannot be read", w.id)
	}
	if result := porcupine.CheckOperationsTimeout(w.model(), w.history, crashPatience); result == porcupine.Illegal {
		return fmt.Errorf("%s: no order of its %d operations explains their answers: %+v", w.id, len(w.history), w.history)
	} else if result == porcupine.Unknown {
		h.t.Logf("%s: whether an order of its %d operations explains their answers was not found in time", w.id, len(w.history))
	}
	return w.begin(h)
}

func (w *registerWriter) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return w.first },
		Step: func(state, input, output any) (bool, any) {
			return registerStep(state.(registerState), input.(registerInput), output.(registerOutput))
		},
	}
}

// registerStep is what a twin does, and whether it answers so.
func registerStep(s registerState, in registerInput, out registerOutput) (ok bool, next registerState) {
	if in.n == 0 {
		return !out.known || s == out.registerState, s
	}
	if in.ifMatch != "" && in.ifMatch != s.etag {
		return !out.known || out.refused, s
	}
	next = registerState{nextETag(s.etag), in.n}
	return !out.known || !out.refused && out.registerState == next, next
}
