package amqp

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
)

// devices are the identities of a connection that have links, each a hub.Link.
type devices struct {
	mu      sync.Mutex // guards what follows
	byID    map[hub.ID]*device
	live    int            // of them, those that have not been told to end
	running sync.WaitGroup // what ends a device, and what its work is done by
}

// A device is one identity, a device or a module, on one connection: a
// hub.Link. It lives from its first link to its last.
//
// What it asks for, and what waits for the store, is done one after the other by
// a goroutine that lives while there is something to do. So the devices of a
// connection do not wait for each other, and share the store's fsyncs.
type device struct {
	conn *conn
	peer atomic.Pointer[hub.Peer] // changes when the credential is renewed
	gone chan struct{}            // closed when it has ended
	once sync.Once                // of finish

	mu       sync.Mutex // guards what follows; never held while the rules or the engine are called
	changed  *sync.Cond // todo is shorter, or done
	reason   error      // why it ended or has to end; set once
	links    []*engine.Link
	messages []*engine.Link // of them, those for cloud-to-device messages
	pairs    []*pair        // of them, those for direct methods and the twin
	lost     []string       // tokens of messages whose locks have ended, if the device waits for answers
	calls    []pendingCall  // direct methods in flight
	todo     []func()
	working  bool
	unwatch  func() // the credential's expiry; nil if it has none
}

// A pair is the two links of a twin, or of direct methods.
type pair struct {
	node       node
	key        string       // by which the client says that they belong together
	in, out    *engine.Link // the device sends on in; nil is not attached
	subscribed bool         // to desired properties
}

func (p *pair) complete() bool { return p.in != nil && p.out != nil }

// errDetached is why a device ended that detached its links.
var errDetached = errors.New("the device detached its links")

// The properties of an attach that say which links are a pair, and which Plug
// and Play model a device has.
const (
	propertyPair  = "com.microsoft:channel-correlation-id"
	propertyModel = "com.microsoft:model-id"
)

// maxTodo bounds what a device has asked for and is not done. Whoever asks for
// more waits.
const maxTodo = 16

// maxDeviceLinks bounds the links of a device on a connection. SDKs attach eight
// at most, and .NET's new ones before it has detached the old.
const maxDeviceLinks = 64

// attachDevice attaches a link of a device or module.
func (c *conn) attachDevice(l *engine.Link, a address) error {
	sends := l.Role == wire.Sender
	switch {
	case a.node == nodeDeviceEvents && (sends || a.id.Module != ""):
	case a.node == nodeDeviceMessages && !sends:
	case a.node == nodeDeviceMethods, a.node == nodeDeviceTwin:
	default:
		return refuse(condNotFound, "there is nothing at this address to attach to in this direction")
	}
	peer, err := c.grant(a.id)
	if err != nil {
		return err
	}
	model, _ := l.Properties.Get(propertyModel).(string)
	for {
		d, err := c.device(peer, model)
		if err != nil {
			return err
		}
		if d.full() {
			return refuse(condLimit, "a device has at most %d links", maxDeviceLinks)
		}
		if d.attach(l, a.node) {
			break
		}
		if why := d.why(); why != errDetached {
			return refusalOfEnd(why)
		}
		// Its last link ended a moment ago: this is the first one of the next.
	}
	return nil
}

// attach makes l one of d's links, unless d has ended.
func (d *device) attach(l *engine.Link, n node) bool {
	sends := l.Role == wire.Sender
	switch {
	case n == nodeDeviceEvents && sends:
		d.takeTelemetry(l)
	case n == nodeDeviceMethods:
		d.takeMethods(l)
	case n == nodeDeviceTwin:
		d.takeTwin(l)
	case n == nodeDeviceMessages && d.Peer().ID.Module == "":
		d.giveMessages(l)
	default:
		l.Outlet = silent{d, l} // only an edge hub has inputs, and messages for modules
	}
	if !d.join(l, n) {
		return false
	}
	if !sends {
		d.conn.door.hub.NoteSubscription(d.Peer(), journal.Subscribed, addressOf(l))
	}
	if n == nodeDeviceMethods {
		d.conn.door.hub.Ready(d) // it may complete a pair that has credit
	}
	return true
}

// device returns the device of the connection that peer is, which is made known
// to the rules if it is new.
func (c *conn) device(peer hub.Peer, model string) (*device, error) {
	ds := &c.devices
	ds.mu.Lock()
	d := ds.byID[peer.ID]
	ds.mu.Unlock()
	if d != nil && d.why() == nil {
		if before := d.peer.Load(); model != "" && model != before.Model {
			now := *before
			now.Model = model
			d.peer.Store(&now)
			if err := c.door.hub.Announce(d); err != nil {
				return nil, c.refusalOf(err)
			}
		}
		return d, nil
	}
	if !c.claimed(peer.ID) {
		late, err := c.meetFault(peer.ID)
		if err != nil {
			return nil, c.refusalOf(err)
		}
		c.linger(late)
	}
	peer.Model, peer.Since = model, c.door.hub.Now()
	d = &device{conn: c, gone: make(chan struct{})}
	d.changed = sync.NewCond(&d.mu)
	d.peer.Store(&peer)
	ds.mu.Lock()
	if ds.byID == nil {
		ds.byID = make(map[hub.ID]*device)
	}
	ds.byID[peer.ID] = d
	ds.live++
	ds.mu.Unlock()
	if err := c.door.hub.Attach(d); err != nil {
		c.refused(peer.ID, err)
		d.end(err, false)
		d.finish()
		return nil, c.refusalOf(err)
	}
	d.watchExpiry()
	c.door.log.Info("connected", words.LogID, peer.ID.String(), words.LogRemote, c.NetConn().RemoteAddr().String())
	return d, nil
}

// renewed is called when the peer has claimed an identity again: if it is one
// of the connection, it takes the new grant.
func (c *conn) renewed(id hub.ID) {
	c.devices.mu.Lock()
	d := c.devices.byID[id]
	c.devices.mu.Unlock()
	if d == nil || d.why() != nil {
		return
	}
	for range 2 {
		peer, err := c.grant(id)
		if err != nil {
			d.End(hub.ErrRevoked)
			return
		}
		before := d.peer.Load()
		peer.Model, peer.Since = before.Model, before.Since
		d.peer.Store(&peer)
		// A change of the identity after this finds the new grant; one that came
		// between its check and this is found now.
	}
	d.watchExpiry()
}

// gone is called when the connection has ended.
func (ds *devices) gone() {
	ds.mu.Lock()
	left := make([]*device, 0, len(ds.byID))
	for _, d := range ds.byID {
		left = append(left, d)
	}
	ds.mu.Unlock()
	for _, d := range left {
		d.finish()
	}
	ds.running.Wait()
}

func (d *device) full() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.links) >= maxDeviceLinks
}

// join makes l one of d's, unless d has ended.
func (d *device) join(l *engine.Link, n node) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason != nil {
		return false
	}
	d.links = append(d.links, l)
	switch n {
	case nodeDeviceMessages:
		d.messages = append(d.messages, l)
	case nodeDeviceMethods, nodeDeviceTwin:
		d.pairLocked(l, n)
	}
	return true
}

// pairLocked puts l into a pair. A client that names none has the links of a
// pair in one session, or at least on one connection.
func (d *device) pairLocked(l *engine.Link, n node) {
	key, _ := l.Properties.Get(propertyPair).(string)
	side := func(p *pair) (mine, other **engine.Link) {
		if l.Role == wire.Sender {
			return &p.in, &p.out
		}
		return &p.out, &p.in
	}
	var found *pair
	for _, p := range d.pairs {
		mine, other := side(p)
		if p.node != n || p.key != key || *mine != nil {
			continue
		}
		if found == nil || key == "" && (*other).SameSession(l) {
			found = p
		}
	}
	if found == nil {
		found = &pair{node: n, key: key}
		d.pairs = append(d.pairs, found)
	}
	mine, _ := side(found)
	*mine = l
}

// pairOf returns the pair of a link.
func (d *device) pairOf(l *engine.Link) *pair {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pairs {
		if p.in == l || p.out == l {
			return p
		}
	}
	return nil
}

// left is called when a link of d has ended.
func (d *device) left(l *engine.Link) {
	d.mu.Lock()
	d.links = slices.DeleteFunc(d.links, func(have *engine.Link) bool { return have == l })
	last := len(d.links) == 0
	had := len(d.messages)
	d.messages = slices.DeleteFunc(d.messages, func(have *engine.Link) bool { return have == l })
	noMessages := had > 0 && len(d.messages) == 0
	var broken *pair
	for _, p := range d.pairs {
		switch l {
		case p.in:
			p.in, broken = nil, p
		case p.out:
			p.out, broken = nil, p
		}
	}
	d.pairs = slices.DeleteFunc(d.pairs, func(p *pair) bool { return p.in == nil && p.out == nil })
	if broken != nil {
		d.failCallsLocked(broken)
	}
	d.mu.Unlock()
	switch {
	case last:
		d.finish()
	case noMessages:
		d.settled() // what the device has said of messages counts
		d.conn.door.hub.Release(d)
	}
}

// silent is an outlet on which nothing is ever sent by its own doing.
type silent struct {
	d *device
	l *engine.Link
}

// Ready implements engine.Outlet.
func (s silent) Ready() {}

// Settled implements engine.Outlet.
func (s silent) Settled(any, wire.State) wire.State { return nil }

// Detached implements engine.Outlet.
func (s silent) Detached() { s.d.left(s.l) }

// Peer implements hub.Link.
func (d *device) Peer() hub.Peer { return *d.peer.Load() }

// LastActivity implements hub.Link. It is the connection's.
func (d *device) LastActivity() time.Time { return d.conn.LastActivity() }

func (d *device) why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reason
}

// End implements hub.Link. The links of d are detached and the others of the
// connection go on. If there are none the connection is closed: a client that
// waits for something and sends nothing would not notice otherwise.
func (d *device) End(reason error) {
	if reason == hub.ErrDropped {
		d.conn.drop(reason)
		return
	}
	if links, alone, ok := d.end(reason, true); ok {
		d.endLinks(reason, links, alone)
	}
}

// EndIdle implements hub.Link. Calls of others on the connection count too, since it
// may end for all of them.
func (d *device) EndIdle(reason error) bool {
	ds := &d.conn.devices
	ds.mu.Lock()
	all := slices.Collect(maps.Values(ds.byID))
	ds.mu.Unlock()
	for _, other := range all {
		if other.calling() {
			return false
		}
	}
	d.End(reason)
	return true
}

func (d *device) calling() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.calls) > 0
}

// endLinks ends what d has at the peer.
func (d *device) endLinks(reason error, links []*engine.Link, alone bool) {
	e := refusalOfEnd(reason)
	if alone || reason == hub.ErrClosing {
		d.conn.Close(e)
	} else {
		engine.DetachAll(links, e)
	}
	// The peer may never answer, and the rules are not called from here.
	go func() {
		defer d.conn.devices.running.Done()
		d.finish()
	}()
}

// end sets why d ends, and counts who is about to finish it. It returns its
// links, and whether no other identity is left on the connection; ok is false if
// d has a reason already.
func (d *device) end(reason error, counted bool) (links []*engine.Link, alone, ok bool) {
	d.mu.Lock()
	if d.reason != nil {
		d.mu.Unlock()
		return nil, false, false
	}
	d.reason = reason
	if counted {
		d.conn.devices.running.Add(1)
	}
	links = slices.Clone(d.links)
	d.unwatchLocked()
	d.mu.Unlock()
	ds := &d.conn.devices
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.live--
	return links, ds.live == 0, true
}

// refusalOfEnd is what the peer is told of an end by the hub.
func refusalOfEnd(reason error) *wire.Error {
	switch {
	case errors.Is(reason, hub.ErrTakenOver):
		return refuse(condStolen, "%v", reason)
	case errors.Is(reason, hub.ErrClosing), errors.Is(reason, hub.ErrReset):
		return refuse(condForced, "%v", reason)
	default:
		return refuse(condUnauthorized, "%v", reason)
	}
}

// finish ends d with all that hangs on it.
func (d *device) finish() {
	d.once.Do(func() {
		c := d.conn
		d.end(cmp.Or(c.why(), errDetached), false)
		d.settled()
		c.door.hub.Detach(d, wordOf(d.why()), d.why())
		close(d.gone)
		peer := d.Peer()
		c.devices.mu.Lock()
		if c.devices.byID[peer.ID] == d {
			delete(c.devices.byID, peer.ID)
		}
		c.devices.mu.Unlock()
		c.door.log.Info("disconnected", words.LogID, peer.ID.String(), words.LogReason, d.why())
	})
}

// watchExpiry has d end when its credential expires.
func (d *device) watchExpiry() {
	h, expires := d.conn.door.hub, d.Peer().Grant.Expires
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unwatchLocked()
	if d.reason == nil && !expires.IsZero() {
		d.unwatch = h.Clock().At(expires, func() {
			if d.Peer().Grant.Expires.After(h.Now()) { // it has been renewed
				d.watchExpiry()
			} else {
				d.End(hub.ErrExpired)
			}
		})
	}
}

func (d *device) unwatchLocked() {
	if d.unwatch != nil {
		d.unwatch()
		d.unwatch = nil
	}
}

// do has f done behind what was asked before, unless d has ended. It waits while
// that is too much, which is never for the peer.
func (d *device) do(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.todo) >= maxTodo {
		d.changed.Wait()
	}
	if d.reason != nil {
		return
	}
	d.todo = append(d.todo, f)
	if !d.working {
		d.working = true
		d.conn.devices.running.Go(d.work)
	}
}

func (d *device) work() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.todo) > 0 {
		f := d.todo[0]
		d.mu.Unlock()
		f()
		d.mu.Lock()
		d.todo = d.todo[1:]
		d.changed.Broadcast()
	}
	d.todo = nil
	d.working = false
	d.changed.Broadcast()
}

// settled returns when all that was asked for is done.
func (d *device) settled() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.working {
		d.changed.Wait()
	}
}
