package hub

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"time"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// Limits of the pages of a query's result.
const (
	// MaxQueryPage is how many rows a page has at most, which is also the
	// default.
	MaxQueryPage = 100
	// maxQueryPageBytes ends a page early: a twin may have hundreds of KiB. A
	// page has less than twice as much and a row.
	maxQueryPageBytes = 4 << 20
)

// Bounds of what queries cost. How the service bounds them is not documented,
// but that it throttles them is: numbers and errors are assumed.
const (
	// MaxQueryTime is how long a page may take. It is the machine's time, not
	// the hub's.
	MaxQueryTime = 30 * time.Second
	// maxLongQueries is how many queries are answered on all cores at the same
	// time. Others wait, but for those that are answered soon.
	maxLongQueries = 4
)

// ErrQueryTime is returned for a query that takes too long. It must not be one
// that clients repeat.
var ErrQueryTime = ErrInvalidOperation.With("the query takes longer than %v for a page. Ask for less: name device ids, or a prefix of them, and fewer properties", MaxQueryTime)

// A QueryPage is a page of a query's result.
type QueryPage struct {
	ItemType     string // Twin, DeviceJob or Raw
	Rows         int
	Body         []byte // the rows as a JSON array
	Continuation string // for the next page; empty if this is the last one

	Plan    string // what was read, for people
	Scanned int    // how many rows were looked at
}

// Query answers a query in the language of "IoT Hub query language for device
// and module twins, jobs, and message routing", as the hub's state is now. Rows
// are in the order of "device", "device/module" or "job/device", byte by byte, and
// groups in that of their values.
//
// A page has up to size rows (0 is 100) and begins where the continuation of the
// one before says; "" is the beginning. Between pages devices may come and go:
// each that stays is in exactly one page, and a continuation holds for ever.
// Whatever the size of the result, memory is bounded by that of a page, and so is
// the time.
//
// Errors: ErrArgumentInvalid, with the place of the mistake, ErrArgumentNull,
// ErrPreconditionFailed for a query that is too long; ErrQueryTime,
// ErrMessageTooLarge (a row), ErrThrottled; the cause of ctx's end.
func (s *Server) Query(ctx context.Context, text string, size int, continuation string) (QueryPage, error) {
	q, err := query.Parse(text)
	if err != nil {
		return QueryPage{}, queryError(err)
	}
	at, err := parsePosition(q, continuation)
	if err != nil {
		return QueryPage{}, err
	}
	if size <= 0 {
		size = MaxQueryPage
	}
	ctx, end := s.boundQuery(ctx)
	defer end()
	page := QueryPage{ItemType: q.ItemType()}
	after := at.after
	if q.Aggregates() {
		after = ""
	}
	err = s.scan(q, after, func(sc *scan) error {
		sc.turns = s.queryTurns
		defer func() { page.Plan, page.Scanned = sc.plan, int(sc.scanned.Load()) }()
		if q.Aggregates() {
			return page.addGroups(ctx, sc, at, size)
		}
		return page.addRows(ctx, sc, at, size)
	})
	return page, err
}

// boundQuery returns a context that also ends when a query has taken too long.
func (s *Server) boundQuery(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.queryTime, ErrQueryTime)
}

// queryError gives a mistake in a query the hub's number.
func queryError(err error) error {
	var mistake *query.Error
	switch {
	case !errors.As(err, &mistake):
		return err
	case mistake.Class == query.ArgumentNull:
		return ErrArgumentNull
	case mistake.Class == query.QueryTooLong:
		return ErrPreconditionFailed.With("%s", mistake.Error())
	}
	return ErrArgumentInvalid.With("%s", mistake.Error())
}

// rowPart is what addRows gathers of a part of the rows.
type rowPart struct {
	body  []byte // the rows, each with a comma before it
	ends  []int  // of the rows in body
	names []string
}

// addRows fills the page with rows.
func (p *QueryPage) addRows(ctx context.Context, sc *scan, at position, size int) error {
	// One more row than the page has tells that there is a next page: clients
	// expect none behind the last row.
	want := size + 1
	if top := sc.query.Top(); top > 0 {
		want = min(want, at.left)
	}
	last, more := "", false
	err := collect(ctx, sc,
		func() *rowPart { return &rowPart{} },
		func(part *rowPart, r *row) bool {
			var err error
			if part.body, err = sc.query.Project(append(part.body, ','), r); err != nil {
				r.fail(ErrMessageTooLarge.With("%v", err))
				return false
			}
			part.ends = append(part.ends, len(part.body))
			part.names = append(part.names, string(r.name))
			return len(part.ends) < want && len(part.body) < maxQueryPageBytes
		},
		func(part *rowPart) bool {
			if n := min(len(part.ends), size-p.Rows); n > 0 {
				p.Rows += n
				last = part.names[n-1]
				if rows := part.body[:part.ends[n-1]]; p.Body == nil {
					p.Body = rows
				} else {
					p.Body = append(p.Body, rows...)
				}
				more = n < len(part.ends)
			} else {
				more = len(part.ends) > 0
			}
			if len(p.Body) >= maxQueryPageBytes {
				more = true // part may have been cut short
			}
			return !more && p.Rows < want
		})
	if err != nil {
		return err
	}
	p.finish(sc.query, at, last, more)
	return nil
}

// addGroups fills the page with the rows of a query that aggregates.
func (p *QueryPage) addGroups(ctx context.Context, sc *scan, at position, size int) error {
	if sc.query.Top() > 0 {
		size = min(size, at.left)
	}
	begin := func() *query.Groups { return sc.query.NewGroups(at.after, size) }
	all := begin()
	err := collect(ctx, sc, begin,
		func(part *query.Groups, r *row) bool { part.Add(r); return true },
		func(part *query.Groups) bool { all.Merge(part); return true })
	if err != nil {
		return err
	}
	rows, more, err := all.Rows(maxQueryPageBytes)
	if err != nil {
		return ErrMessageTooLarge.With("%v", err)
	}
	last := ""
	for _, row := range rows {
		p.Body = append(append(p.Body, ','), row.JSON...)
		p.Rows, last = p.Rows+1, row.Key
	}
	p.finish(sc.query, at, last, more)
	return nil
}

// finish makes the array and the continuation.
func (p *QueryPage) finish(q *query.Query, at position, last string, more bool) {
	if p.Rows == 0 {
		p.Body = []byte("[]")
		return
	}
	p.Body[0] = '['
	p.Body = append(p.Body, ']')
	at.after = last
	if q.Top() > 0 {
		at.left -= p.Rows
		more = more && at.left > 0
	}
	if more {
		p.Continuation = at.String()
	}
}

// Matching returns the devices or modules that a query finds, in the order of
// the store, as it is when the loop begins. It takes as long as it takes.
func (s *Server) Matching(ctx context.Context, q *query.Query) iter.Seq2[ID, error] {
	return store.Seq(func(yield func(ID) error) error {
		var ended error
		err := s.scan(q, "", func(sc *scan) error {
			return collect(ctx, sc,
				func() *[]ID { return new([]ID) },
				func(ids *[]ID, r *row) bool { *ids = append(*ids, r.loadID()); return true },
				func(ids *[]ID) bool {
					for _, id := range *ids {
						if ended = yield(id); ended != nil {
							return false
						}
					}
					return true
				})
		})
		return cmp.Or(ended, err)
	})
}

// Count returns how many rows a query has that does not aggregate. It makes none
// of them.
//
// Errors: ErrQueryTime, ErrThrottled; the cause of ctx's end.
func (s *Server) Count(ctx context.Context, q *query.Query) (total int, err error) {
	ctx, end := s.boundQuery(ctx)
	defer end()
	enough := func(n int) bool { return q.Top() > 0 && n >= q.Top() }
	err = s.scan(q, "", func(sc *scan) error {
		sc.turns = s.queryTurns
		return collect(ctx, sc,
			func() *int { return new(int) },
			func(n *int, _ *row) bool { *n++; return !enough(*n) },
			func(n *int) bool { total += *n; return !enough(total) })
	})
	if enough(total) {
		total = q.Top()
	}
	return total, err
}
