package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
)

const (
	maxStreams   = 100     // browsers that follow at a time
	maxBacklog   = 256     // events that wait for a browser; more are dropped, and it is told how many
	maxKept      = 1000    // events that are kept for browsers that come back, and
	maxKeptBytes = 4 << 20 // so much of them

	linger       = 20 * time.Second // how long reading goes on when nobody follows
	keepAlive    = 15 * time.Second
	writeTimeout = 10 * time.Second
)

// A liveEvent is an event that has come while the console was reading.
type liveEvent struct {
	Number    uint64 // counts those of this console
	Device    string
	Module    string
	Source    string // such as Telemetry or twinChangeEvents
	Time      time.Time
	Operation string // of an event of the hub's own, such as deviceConnected
	Payload   json.RawMessage
	Doc       json.RawMessage // all of it, as "az iot hub monitor-events" prints it

	partition string
	sequence  int64 // in the partition
}

// A liveStatus is how reading events does.
type liveStatus struct {
	On      bool   `json:"on"`
	Problem string `json:"problem,omitempty"` // why not, for the user
}

// live is one subscription to the hub's events, shared by all browsers that follow some. It is there only while one
// does.
type live struct {
	read    func(ctx context.Context, begun func(), fn func(liveEvent)) error
	explain func(error) string
	run     func(func()) // a goroutine of the console
	epoch   string       // tells numbers of this console from those of one before

	mu       sync.Mutex
	watchers map[*watcher]bool
	stop     context.CancelFunc // nil: nobody reads
	idle     *time.Timer        // until reading ends because nobody follows
	status   liveStatus
	kept     []liveEvent // the last ones
	bytes    int         // of kept
	last     uint64
	counted  atomic.Uint64 // telemetry that has come
}

// A watcher is one browser that follows.
type watcher struct {
	wants   func(*liveEvent) bool
	events  chan liveEvent
	lost    atomic.Int64
	changed wait.Signal // the status has
}

// watch follows the events that fn wants from now on, and those behind the number after that are still kept.
func (l *live) watch(wants func(*liveEvent) bool, after uint64) (*watcher, error) {
	w := &watcher{wants: wants, events: make(chan liveEvent, maxBacklog), changed: wait.NewSignal()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) >= maxStreams {
		return nil, &problem{status: http.StatusServiceUnavailable, text: fmt.Sprintf("%d pages follow events already; close one", maxStreams)}
	}
	if after > 0 {
		for _, e := range l.kept {
			if e.Number > after {
				w.offer(e)
			}
		}
	}
	l.watchers[w] = true
	w.changed.Set()
	l.begin()
	return w, nil
}

// begin reads, if nobody does yet. The caller holds the lock.
func (l *live) begin() {
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	if l.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		l.stop = cancel
		l.run(func() { l.follow(ctx) })
	}
}

// touch has events read for a while: for a page that looks at [live.newest] now and then.
func (l *live) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin()
	if len(l.watchers) == 0 {
		l.idle = time.AfterFunc(linger, l.rest)
	}
}

func (w *watcher) offer(e liveEvent) {
	if !w.wants(&e) {
		return
	}
	select {
	case w.events <- e:
	default:
		w.lost.Add(1)
	}
}

// leave ends what watch began.
func (l *live) leave(w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, w)
	if len(l.watchers) == 0 && l.idle == nil {
		l.idle = time.AfterFunc(linger, l.rest)
	}
}

// rest ends reading if nobody follows.
func (l *live) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = nil
	if len(l.watchers) == 0 {
		l.end()
	}
}

// end ends reading. The caller holds the lock.
func (l *live) end() {
	if l.stop != nil {
		l.stop()
		l.stop, l.status = nil, liveStatus{}
		l.kept, l.bytes = nil, 0 // what comes meanwhile would be missing behind them
	}
}

// close ends reading for good.
func (l *live) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
	l.watchers = map[*watcher]bool{}
	l.run = func(func()) {} // nothing begins any more
}

// follow reads until ctx ends, over again with growing pauses when that breaks.
func (l *live) follow(ctx context.Context) {
	const shortest, longest = 500 * time.Millisecond, 15 * time.Second
	pause := shortest
	for {
		err := l.read(ctx, func() { pause = shortest; l.tell(ctx, liveStatus{On: true}) }, func(e liveEvent) { l.publish(ctx, e) })
		if ctx.Err() != nil {
			return
		}
		s := liveStatus{Problem: "The hub has ended the stream"}
		if err != nil {
			s.Problem = l.explain(err)
		}
		l.tell(ctx, s)
		if wait.For(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, longest)
	}
}

func (l *live) tell(ctx context.Context, s liveStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil || l.status == s {
		return
	}
	l.status = s
	for w := range l.watchers {
		w.changed.Set()
	}
}

func (l *live) publish(ctx context.Context, e liveEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if e.Source == sourceTelemetry {
		l.counted.Add(1)
	}
	l.last++
	e.Number = l.last
	l.kept = append(l.kept, e)
	l.bytes += len(e.Doc)
	drop := 0
	for len(l.kept)-drop > maxKept || l.bytes > maxKeptBytes && len(l.kept)-drop > 1 {
		l.bytes -= len(l.kept[drop].Doc)
		drop++
	}
	l.kept = slices.Delete(l.kept, 0, drop)
	for w := range l.watchers {
		w.offer(e)
	}
}

// state returns how reading does.
func (l *live) state() liveStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// newest returns up to n of the events that have come, the newest first.
func (l *live) newest(n int) []liveEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.kept[max(0, len(l.kept)-n):])
	slices.Reverse(list)
	return list
}

// stream answers with Server-Sent Events until the browser goes away: what data makes of each event that is wanted, as
// JSON. A browser that comes back says by Last-Event-ID, or by the parameter "after", which it has seen. Besides there
// are events named "status", a [liveStatus], and "lost", how many events the browser was too slow for.
func (c *Console) stream(w http.ResponseWriter, r *http.Request, wants func(*liveEvent) bool, data func(liveEvent) any) error {
	watcher, err := c.live.watch(wants, c.live.seen(r))
	if err != nil {
		return err
	}
	defer c.live.leave(watcher)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	out := &eventWriter{to: w, control: http.NewResponseController(w)}
	out.print("retry: 2000\n\n")
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for out.err == nil {
		select {
		case e := <-watcher.events:
			out.event("", c.live.epoch+"."+strconv.FormatUint(e.Number, 10), data(e))
		case <-watcher.changed:
			out.event("status", "", c.live.state())
		case <-alive.C:
			if c.doors.find(r, c.now()) == nil { // the session has ended
				return nil
			}
			out.print(": still there\n\n")
		case <-r.Context().Done():
			return nil
		case <-c.ctx.Done():
			return nil
		}
		if n := watcher.lost.Swap(0); n > 0 {
			out.event("lost", "", n)
		}
	}
	return nil
}

// seen returns the number of the last event that a browser has had, 0 if it had none of this console.
func (l *live) seen(r *http.Request) uint64 {
	id := r.Header.Get("Last-Event-ID")
	if id == "" {
		id = r.URL.Query().Get("after")
	}
	epoch, text, _ := strings.Cut(id, ".")
	number, err := strconv.ParseUint(text, 10, 64)
	if epoch != l.epoch || err != nil {
		return 0
	}
	return number
}

// An eventWriter writes Server-Sent Events, each at once.
type eventWriter struct {
	to      http.ResponseWriter
	control *http.ResponseController
	err     error // the first
}

func (o *eventWriter) print(text string) {
	if o.err != nil {
		return
	}
	o.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, o.err = o.to.Write([]byte(text)); o.err == nil {
		o.err = o.control.Flush()
	}
}

func (o *eventWriter) event(name, id string, data any) {
	text, err := json.Marshal(data) // has no line breaks
	if err != nil {
		o.err = err
		return
	}
	var b strings.Builder
	if name != "" {
		b.WriteString("event: " + name + "\n")
	}
	if id != "" {
		b.WriteString("id: " + id + "\n")
	}
	b.WriteString("data: ")
	b.Write(text)
	b.WriteString("\n\n")
	o.print(b.String())
}
