package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/twin"
)

const (
	// refusedPause is how long a reporter waits when the hub is too busy for a report.
	refusedPause = 5 * time.Second
	// reportGrace is how long a reporter goes on when the agent ends.
	reportGrace = time.Second
)

// A reporter keeps some of the reported properties as the agent wants them. Who sets one does not
// wait: what cannot be sent now is sent later, and of several values only the newest. Because a patch
// merges objects, the reporter keeps in mind what the hub has, and removes what is to go.
type reporter struct {
	client *mqttdevice.Client
	log    *slog.Logger
	wake   wait.Signal

	mu         sync.Mutex // guards what follows
	properties map[string]*reported
	order      []string // paths to send, oldest first
}

// A reported is one property that the reporter keeps.
type reported struct {
	want    json.RawMessage // nil: absent
	wanted  bool            // want has been set
	known   json.RawMessage // what the hub has; nil: absent
	sure    bool            // known is right
	refused func(error)     // nil: the refusal of want is logged
}

func newReporter(a *Agent) *reporter {
	return &reporter{client: a.client, log: a.log, wake: wait.NewSignal(), properties: make(map[string]*reported)}
}

func (r *reporter) property(path string) *reported {
	p := r.properties[path]
	if p == nil {
		p = new(reported)
		r.properties[path] = p
	}
	return p
}

// watch makes learn and current know the property at path.
func (r *reporter) watch(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.property(path)
}

// set makes value, which encodes as JSON, the reported property at path; nil removes it. If the hub
// refuses it for good, refused is called, if it isn't nil.
func (r *reporter) set(path string, value any, refused func(error)) {
	var doc json.RawMessage
	if value != nil {
		var err error
		if doc, err = json.Marshal(value); err != nil {
			r.log.Error("a property is not reported", logProperty, path, logError, err)
			return
		}
		// A twin has no null in objects: it is how a patch removes.
		if merged, err := twin.Merge(nil, under("v", doc)); err == nil {
			doc = lookup(merged, "v")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.property(path)
	p.want, p.wanted, p.refused = doc, true, refused
	r.queue(path)
}

// queue makes the property at path one to send. r.mu is held.
func (r *reporter) queue(path string) {
	for _, queued := range r.order {
		if queued == path {
			return
		}
	}
	r.order = append(r.order, path)
	r.wake.Set()
}

// learn tells what the hub has of all paths, as the twin shows it upon a connection.
func (r *reporter) learn(section json.RawMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, p := range r.properties {
		p.known, p.sure = lookup(section, path), true
		if p.wanted && !sameValue(p.known, p.want) {
			r.queue(path)
		}
	}
}

// run sends what is to be sent until ctx ends, and then for a moment what is left.
func (r *reporter) run(ctx context.Context) {
	for ctx.Err() == nil {
		if r.sendNext(ctx) {
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportGrace)
	defer cancel()
	for ctx.Err() == nil && r.sendNext(ctx) {
	}
}

// sendNext sends the oldest of what is to be sent. It reports false if there is nothing.
func (r *reporter) sendNext(ctx context.Context) bool {
	r.mu.Lock()
	if len(r.order) == 0 {
		r.mu.Unlock()
		return false
	}
	path := r.order[0]
	r.order = r.order[1:]
	r.mu.Unlock()
	r.send(ctx, path)
	return true
}

// send brings one property to what it is to be, or queues it again.
func (r *reporter) send(ctx context.Context, path string) {
	r.mu.Lock()
	p := r.properties[path]
	known, sure, want, refused := p.known, p.sure, p.want, p.refused
	r.mu.Unlock()
	if !sure {
		t, err := r.client.Twin(ctx)
		if err != nil {
			r.later(ctx, path, err)
			return
		}
		known = lookup(t.Reported, path)
	}
	patch, err := twin.MergePatch(under(path, known), under(path, want))
	if err != nil { // want is deep beyond all measure, or no text
		r.refuse(path, err, refused)
		return
	}
	if string(patch) != "{}" {
		_, err = r.client.PatchReported(ctx, patch)
	}
	if err == nil {
		r.mu.Lock()
		p.known, p.sure = want, true
		r.mu.Unlock()
		return
	}
	answer, isAnswer := errors.AsType[*mqttdevice.Error](err)
	switch {
	case !isAnswer || answer.Status == 429 || answer.Status >= 500:
		r.later(ctx, path, err)
	default:
		r.refuse(path, answer, refused)
	}
}

// refuse tells that what was to be at path never will be.
func (r *reporter) refuse(path string, err error, refused func(error)) {
	if refused != nil {
		refused(err)
		return
	}
	r.log.Warn("a property is not reported", logProperty, path, logError, err)
}

// later queues a property that could not be sent; the hub may have it or not.
func (r *reporter) later(ctx context.Context, path string, err error) {
	if _, ok := errors.AsType[*mqttdevice.Error](err); ok {
		_ = wait.For(ctx, refusedPause) // it is queued in any case
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.properties[path].sure = false
	r.queue(path)
}

// current returns what the reporter wants to be, or knows to be, at path; nil if that is nothing.
func (r *reporter) current(path string) json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.property(path)
	if p.wanted {
		return p.want
	}
	return p.known
}

// sameValue compares two JSON values; nil stands for none.
func sameValue(a, b json.RawMessage) bool {
	return len(twin.Diff(under("v", a), under("v", b))) == 0
}

func isObject(value json.RawMessage) bool {
	return bytes.HasPrefix(bytes.TrimSpace(value), []byte("{"))
}

// under returns the object that has nothing but value, at path; nil stands for no value.
func under(path string, value json.RawMessage) json.RawMessage {
	names := strings.Split(path, ".")
	for i := len(names) - 1; i >= 0; i-- {
		if value == nil {
			value = json.RawMessage("{}") // that it is not in
			continue
		}
		name, _ := json.Marshal(names[i]) // strings cannot fail
		value = append(append(append(append([]byte{'{'}, name...), ':'), value...), '}')
	}
	return value
}

// lookup returns the value at path in an object; nil if there is none, or null.
func lookup(object json.RawMessage, path string) json.RawMessage {
	for _, name := range strings.Split(path, ".") {
		var members map[string]json.RawMessage
		if !isObject(object) || json.Unmarshal(object, &members) != nil {
			return nil
		}
		object = members[name]
	}
	if string(object) == "null" {
		return nil
	}
	return object
}
