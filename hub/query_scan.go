package hub

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

const (
	// probeRows is how many rows are looked at before a scan takes more than
	// one core: most pages are full by then.
	probeRows = 2000
	// checkRows is after how many rows a scan looks whether it is still wanted.
	checkRows = 64
	// pointsPerPart is how many single names make up a part of a scan.
	pointsPerPart = 256
)

// A scan is one pass over the rows of a query, as the store is at one instant.
type scan struct {
	server  *Server
	query   *query.Query
	view    *store.View
	main    record // the record that every row has, and that is read in order
	spans   []span
	plan    string
	scanned atomic.Int64
	turns   chan struct{} // who takes more than one core takes room here; nil is always free

	activity map[ID]activity // what was not in the store yet when the scan began
}

// scan calls fn with a scan of the rows behind the one with the name after, or
// of all if that is empty.
func (s *Server) scan(q *query.Query, after string, fn func(*scan) error) error {
	sc := &scan{server: s, query: q}
	if (q.ConditionFields() | q.ResultFields()).Has(query.LastActivityTime, query.Document) {
		sc.activity = s.links.unstored()
	}
	return s.store.View(func(v *store.View) error {
		sc.view = v
		if err := sc.choose(); err != nil {
			return err
		}
		if after != "" {
			sc.spans = behind(sc.spans, after)
		}
		return fn(sc)
	})
}

// read calls visit with the rows in the spans that match, until it returns false.
// It looks at no more than most rows, and returns what is left of the spans then.
func (sc *scan) read(ctx context.Context, spans []span, most int, visit func(*row) (more bool)) (rest []span, err error) {
	if len(spans) == 0 {
		return nil, nil
	}
	r, err := sc.open(spans)
	if err != nil {
		return nil, err
	}
	n := 0
	defer func() {
		sc.scanned.Add(int64(n))
		if cerr := r.close(); err == nil {
			err = cerr
		}
	}()
	for i, sp := range spans {
		for ok := r.seek(sp.start); ok && (sp.end == "" || string(r.name) < sp.end); ok = r.next() {
			if n == most {
				return append([]span{{string(r.name), sp.end}}, spans[i+1:]...), nil
			}
			if n++; n%checkRows == 0 {
				if err := context.Cause(ctx); err != nil {
					return nil, err
				}
			}
			more := !sc.query.Match(r) || visit(r)
			if r.err != nil {
				return nil, r.err
			}
			if !more {
				return nil, nil
			}
		}
	}
	return nil, nil
}

// parts cuts spans into parts that are worth a goroutine's while.
func (sc *scan) parts(spans []span) (parts [][]span, err error) {
	prefix := sc.main.prefix(sc.query.From())
	var points []span
	flush := func() {
		for part := range slices.Chunk(points, pointsPerPart) {
			parts = append(parts, part)
		}
		points = nil
	}
	for _, sp := range spans {
		if sp.exact() {
			points = append(points, sp)
			continue
		}
		flush()
		cuts, err := sc.view.Split([]byte(prefix+sp.start), keyEnd(prefix, sp.end))
		if err != nil {
			return nil, err
		}
		for _, key := range cuts {
			cut := string(key[len(prefix):])
			parts = append(parts, []span{{sp.start, cut}})
			sp.start = cut
		}
		parts = append(parts, []span{sp})
	}
	flush()
	return parts, nil
}

// collect reads the rows of a scan in parts, on all cores. Each part begins with
// a T of its own, to which add adds the rows that match until it returns false:
// the T is full, and what is left of the part is of no interest. take is given
// the T's in the order of the rows, and ends it all by returning false.
func collect[T any](ctx context.Context, sc *scan, begin func() T, add func(T, *row) (more bool), take func(T) (more bool)) error {
	// The server waits for requests, but not for other callers.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(sc.server.ctx, cancel)()

	read := func(ctx context.Context, spans []span, most int) (t T, rest []span, err error) {
		t = begin()
		rest, err = sc.read(ctx, spans, most, func(r *row) bool { return add(t, r) })
		return t, rest, err
	}
	t, rest, err := read(ctx, sc.spans, probeRows)
	if err != nil || !take(t) || len(rest) == 0 {
		return err
	}
	if sc.turns != nil {
		select {
		case sc.turns <- struct{}{}:
			defer func() { <-sc.turns }()
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, ErrQueryTime) {
				return err
			}
			return ErrThrottled.With("as many long queries are running as this hub allows. Try again")
		}
	}
	parts, err := sc.parts(rest)
	if err != nil {
		return err
	}
	return inOrder(ctx, len(parts), func(ctx context.Context, i int) (T, error) {
		t, _, err := read(ctx, parts[i], -1)
		return t, err
	}, take)
}

// inOrder calls work with the numbers from 0 to n, excluded, on all cores, and
// take with the results in that order, until take returns false or there is an
// error. It bounds how many results wait for those before them, and returns when
// no work is being done any more.
func inOrder[T any](ctx context.Context, n int, work func(ctx context.Context, i int) (T, error), take func(T) (more bool)) error {
	type result struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()

	count := min(runtime.GOMAXPROCS(0), n)
	results := make([]chan result, n)
	for i := range results {
		results[i] = make(chan result, 1)
	}
	next := make(chan int)
	room := make(chan struct{}, 2*count) // for results that are being made, or wait
	for range count {
		workers.Go(func() {
			for i := range next {
				value, err := work(ctx, i)
				results[i] <- result{value, err}
			}
		})
	}
	workers.Go(func() {
		defer close(next)
		for i := range n {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for i := range n {
		select {
		case r := <-results[i]:
			<-room
			if r.err != nil {
				return r.err
			}
			if !take(r.value) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
