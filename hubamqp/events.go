package hubamqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/internal/dial"
	"github.com/iotdm/iotdm/internal/wait"
)

// An EventQuery says which events to read. The zero value is all that the hub keeps.
type EventQuery struct {
	ConsumerGroup string            // empty: $Default
	Partitions    []string          // of these; none: of all
	Since         time.Time         // enqueued then or later; zero: from the first that is kept
	Latest        bool              // none of those that are there already
	Offsets       map[string]string // behind the event of that offset, for the partitions that are named
	Follow        bool              // go on with those that come, until ctx ends

	// Last, if it isn't 0, is how many of the events that are there already to read: the last ones of all partitions,
	// which come in the order of their times. Wants, if it isn't nil, says which events count, and come.
	Last  int
	Wants func(Event) bool

	// Begun is called, if it isn't nil, with the partitions once all of them are being read: events that come from
	// now on will be read.
	Begun func(partitions []string)
}

const (
	defaultGroup = "$Default"

	// prefetch is how many events of a partition are on their way, or wait to be handled.
	prefetch = 300

	// tries is how often a reader that does not follow connects again in vain.
	tries = 5

	// endless is how long an event of a partition that has more may be waited for by a reader that does not follow.
	endless = 30 * time.Second
)

// errEndless means that a partition does not reach the end that it had.
var errEndless = fmt.Errorf("no event came for %v, although the hub has more", endless)

// Events calls fn for each event of the query, those of a partition in order, and never for two at once. It returns
// when the events that were there at the beginning are read or, with Follow, when ctx ends; and with the error of fn.
//
// When the connection is lost it makes another one and goes on behind the last event of each partition, so that
// nothing is lost or read twice. It gives up if it never had one, and on what would only come back the same: an
// [Error] such as ErrUnauthorized, ErrNotFound for a consumer group, ErrLimit for too many readers of it, or
// ErrStolen by another reader.
func (c *Client) Events(ctx context.Context, q EventQuery, fn func(Event) error) error {
	ctx, cancel := c.while(ctx)
	defer cancel()
	if q.Wants != nil {
		all := fn
		fn = func(e Event) error {
			if !q.Wants(e) {
				return nil
			}
			return all(e)
		}
	}
	err := c.readEvents(ctx, q, fn)
	if stopped, ok := errors.AsType[*stopped](err); ok {
		return stopped.err
	}
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

func (c *Client) readEvents(ctx context.Context, q EventQuery, fn func(Event) error) error {
	if q.Last > 0 {
		last, offsets, err := c.lastEvents(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range last {
			if err := fn(e); err != nil {
				return &stopped{err}
			}
		}
		if !q.Follow {
			return nil
		}
		q.Latest, q.Offsets = false, offsets
	}
	r := &reader{c: c, q: q, fn: fn, ways: c.dialer(hubPath)}
	return r.run(ctx)
}

// stopped is the error of the caller's function.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

// A reader is one call of Events.
type reader struct {
	c    *Client
	q    EventQuery
	fn   func(Event) error
	ways *dial.Dialer // to the hub

	from       endpoint     // the last one
	fromWays   *dial.Dialer // to it
	partitions []*partition // nil: not known yet
	tail       int          // begin so many numbers before the end of each partition; 0: as the query says
	read       int          // events since the last attempt to connect
	begun      bool         // reading, once
}

// A partition is how far one is read.
type partition struct {
	id     string
	offset string // behind this event; empty: as the query says
	behind int64  // behind the event of this number, if offset is empty; -1: as the query says
	last   int64  // number of the last event read; -1: none
	until  int64  // number of the last event to read; -1 if there is none
	done   bool
}

// run reads, over one connection after the other.
func (r *reader) run(ctx context.Context) error {
	pauses, failures := newPauses(), 0
	for {
		r.read = 0
		err := r.connected(ctx)
		var enough *stopped
		switch {
		case err == nil || errors.As(err, &enough):
			return err
		case over(ctx):
			return context.Cause(ctx)
		case !r.begun || final(err):
			return err
		}
		if r.read > 0 {
			pauses.Reset()
			failures = 0
		}
		if failures++; !r.q.Follow && failures > tries {
			return err
		}
		delay := pauses.NextBackOff()
		r.c.log.Warn("reading events is interrupted", keyErr, err, keyWait, delay)
		if err := wait.For(ctx, delay); err != nil {
			return err
		}
	}
}

// connected reads over one connection, to the end or until it breaks.
func (r *reader) connected(ctx context.Context) error {
	e, err := r.c.eventHub(ctx, r.ways)
	if err != nil {
		return err
	}
	if e != r.from {
		r.from, r.fromWays = e, r.c.eventHubWays(e)
	}
	host, _ := splitPort(e.Host)
	conn, err := r.c.open(ctx, end{host: host, ways: r.fromWays, audience: e.audience(),
		token: func(ctx context.Context) (token, error) { return r.c.eventHubToken(ctx, e) }})
	if err != nil {
		return err
	}
	defer conn.close()
	if r.partitions == nil {
		if err := r.find(ctx, conn, e); err != nil {
			return err
		}
	}
	return r.receive(ctx, conn, e)
}

// find finds the partitions, where to begin in each, and where to end.
func (r *reader) find(ctx context.Context, conn *connection, e endpoint) error {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, ErrNoAnswer)
	defer cancel()
	m, err := conn.newManagement(ctx, e.EntityPath)
	if err != nil {
		return err
	}
	defer conn.end(m.session)
	ids, err := m.partitionIDs(ctx)
	if err != nil {
		return err
	}
	for _, id := range r.q.Partitions {
		if !slices.Contains(ids, id) {
			return fmt.Errorf("there is no partition %q", id)
		}
	}
	var found []*partition
	for _, id := range ids {
		if len(r.q.Partitions) > 0 && !slices.Contains(r.q.Partitions, id) {
			continue
		}
		p := &partition{id: id, offset: r.q.Offsets[id], behind: -1, last: -1}
		found = append(found, p)
		if r.q.Follow && !r.q.Latest {
			continue // nothing else has to be known
		}
		info, err := m.partition(ctx, id)
		if err != nil {
			return err
		}
		if r.q.Latest && p.offset == "" {
			// The offset and not "@latest": after a broken connection that would be a later one.
			p.offset = cmp.Or(info.lastOffset, "-1")
		}
		if start := info.last - int64(r.tail); r.tail > 0 && r.q.Since.IsZero() && !info.empty && start >= info.first {
			p.behind = start
		}
		p.until = info.last
		p.done = !r.q.Follow && (info.empty || info.ends(p.offset) || r.q.Since.After(info.lastEnqueued))
	}
	r.partitions = found
	return nil
}

// from is the filter with which p is read.
func (q *EventQuery) from(p *partition) string {
	switch {
	case p.offset != "":
		return "amqp.annotation.x-opt-offset > '" + strings.ReplaceAll(p.offset, "'", "''") + "'"
	case p.behind >= 0:
		return "amqp.annotation.x-opt-sequence-number > '" + strconv.FormatInt(p.behind, 10) + "'"
	case !q.Since.IsZero():
		return "amqp.annotation.x-opt-enqueued-time > '" + strconv.FormatInt(q.Since.UnixMilli()-1, 10) + "'"
	}
	return "amqp.annotation.x-opt-offset > '-1'"
}

// An arrival is an event on the way from its receiver to the caller's function.
type arrival struct {
	partition *partition
	message   *amqp.Message
}

// receive attaches a receiver to each partition and hands on what comes, until one of them fails.
func (r *reader) receive(ctx context.Context, conn *connection, e endpoint) error {
	ctx, cancel := context.WithCancel(ctx)
	var pumps sync.WaitGroup
	defer func() {
		cancel()
		conn.close() // what is being written does not look at ctx
		pumps.Wait()
	}()
	var (
		arrivals = make(chan arrival)
		failed   = make(chan error, len(r.partitions))
		attached = make(chan struct{}, len(r.partitions))
		reading  = 0
	)
	for _, p := range r.partitions {
		if p.done {
			continue
		}
		reading++
		pumps.Go(func() { failed <- r.pump(ctx, conn, e, p, attached, arrivals) })
	}
	for range reading {
		select {
		case <-attached:
		case err := <-failed:
			return err
		}
	}
	if !r.begun && r.q.Begun != nil {
		ids := make([]string, len(r.partitions))
		for i, p := range r.partitions {
			ids[i] = p.id
		}
		r.q.Begun(ids)
	}
	r.begun = true
	late := time.NewTimer(endless)
	defer late.Stop()
	for r.q.Follow || reading > 0 {
		var tooLate <-chan time.Time
		if !r.q.Follow {
			late.Reset(endless)
			tooLate = late.C
		}
		select {
		case a := <-arrivals:
			if a.partition.done {
				continue // it is behind the end
			}
			if err := r.hand(a); err != nil {
				return err
			}
			if a.partition.done {
				reading--
			}
		case err := <-failed:
			return err
		case <-tooLate:
			return errEndless
		}
	}
	return nil
}

// hand hands an event to the caller's function, and remembers that.
func (r *reader) hand(a arrival) error {
	p := a.partition
	e := newEvent(p.id, a.message)
	if e.Sequence <= p.last {
		return nil
	}
	if r.q.Follow || e.Sequence <= p.until {
		if err := r.fn(e); err != nil {
			return &stopped{err}
		}
	}
	r.read++
	p.last, p.offset = e.Sequence, cmp.Or(e.Offset, p.offset)
	p.done = !r.q.Follow && p.last >= p.until
	return nil
}

// pump receives the events of one partition, until that fails.
func (r *reader) pump(ctx context.Context, conn *connection, e endpoint, p *partition, attached chan<- struct{}, to chan<- arrival) error {
	link, err := r.attach(ctx, conn, e, p)
	if err != nil {
		return err
	}
	attached <- struct{}{}
	for {
		m, err := link.Receive(ctx, nil)
		if err != nil {
			return wireError(ctx, err)
		}
		// It is only for the credit: the hub remembers nothing of who has read what.
		if err := link.AcceptMessage(ctx, m); err != nil {
			return wireError(ctx, err)
		}
		select {
		case to <- arrival{p, m}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// attach attaches a receiver to a partition, on a session of its own: one that nobody reads holds up no other.
func (r *reader) attach(ctx context.Context, conn *connection, e endpoint, p *partition) (*amqp.Receiver, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, ErrNoAnswer)
	defer cancel()
	session, err := conn.amqp.NewSession(ctx, nil)
	if err != nil {
		return nil, wireError(ctx, err)
	}
	link, err := session.NewReceiver(ctx, e.EntityPath+"/ConsumerGroups/"+cmp.Or(r.q.ConsumerGroup, defaultGroup)+"/Partitions/"+p.id, &amqp.ReceiverOptions{
		Credit:  prefetch,
		Filters: []amqp.LinkFilter{amqp.NewSelectorFilter(r.q.from(p))},
	})
	if err != nil {
		return nil, wireError(ctx, err)
	}
	r.c.log.Debug("reading", keyPartition, p.id)
	return link, nil
}

// A management answers questions about an event hub.
type management struct {
	*requester
	name  string // the event hub's
	token string
}

func (x *connection) newManagement(ctx context.Context, name string) (*management, error) {
	r, err := x.newRequester(ctx, "management")
	if err != nil {
		return nil, err
	}
	return &management{r, name, x.proof}, nil
}

// ask reads what there is to know about the event hub, or about a partition.
func (m *management) ask(ctx context.Context, kind string, more map[string]any) (map[string]any, error) {
	question := map[string]any{"operation": "READ", "name": m.name, "type": "com.microsoft:" + kind, "security_token": m.token}
	maps.Copy(question, more)
	answer, err := m.call(ctx, &amqp.Message{ApplicationProperties: question})
	if err != nil {
		return nil, err
	}
	switch v := answer.Value.(type) {
	case map[string]any:
		return v, nil
	case map[any]any:
		named := make(map[string]any, len(v))
		for name, value := range v {
			named[text(name)] = value
		}
		return named, nil
	}
	return nil, errors.New("the hub's answer about its events is not as documented")
}

func (m *management) partitionIDs(ctx context.Context) ([]string, error) {
	answer, err := m.ask(ctx, "eventhub", nil)
	if err != nil {
		return nil, err
	}
	var ids []string
	switch v := answer["partition_ids"].(type) {
	case []string:
		ids = v
	case []any:
		for _, id := range v {
			ids = append(ids, text(id))
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("the hub names no partitions of its events")
	}
	return ids, nil
}

// partitionInfo is the end of a partition.
type partitionInfo struct {
	empty        bool
	first, last  int64
	lastOffset   string
	lastEnqueued time.Time
}

// ends reports whether nothing is behind offset.
func (p partitionInfo) ends(offset string) bool {
	if offset == p.lastOffset {
		return true
	}
	at, err1 := strconv.ParseInt(offset, 10, 64)
	last, err2 := strconv.ParseInt(p.lastOffset, 10, 64)
	return err1 == nil && err2 == nil && at > last
}

func (m *management) partition(ctx context.Context, id string) (partitionInfo, error) {
	answer, err := m.ask(ctx, "partition", map[string]any{"partition": id})
	if err != nil {
		return partitionInfo{}, err
	}
	p := partitionInfo{first: integer(answer["begin_sequence_number"]), last: integer(answer["last_enqueued_sequence_number"]), lastOffset: text(answer["last_enqueued_offset"])}
	p.lastEnqueued, _ = answer["last_enqueued_time_utc"].(time.Time)
	p.empty, _ = answer["is_partition_empty"].(bool)
	return p, nil
}
