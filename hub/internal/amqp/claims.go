package amqp

import (
	"cmp"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// Bounds of what a peer may claim. Java's client has 1000 devices on a connection
// and .NET's as many, each with a token of its own.
const (
	maxClaims     = 4096
	maxClaimBytes = 4 << 20 // of all tokens together
	maxToken      = 16 << 10
)

// claimTimeout is how long a peer may take until it has shown who it is. It is a
// little less than the gate gives it, so that it is told why.
const claimTimeout = serve.AuthTimeout - time.Second

// claims are what the peer of a connection has shown of who it is. What a token is
// good for is decided by the rules at each link; until one of them has been found
// to be genuine, nobody knows the peer.
type claims struct {
	mu      sync.Mutex // guards what follows; never held while the rules or the engine are called
	list    []claim    // the newest last
	size    int        // bytes of their tokens
	guards  map[*engine.Link]func() error
	unwatch func()      // the earliest; nil if none expires
	over    bool        // the connection has ended
	first   *time.Timer // until the first
}

// A claim is one token, or what stands for one.
type claim struct {
	key    string // a newer claim with the same takes its place
	token  string // as the rules take it
	host   string // that it is for
	policy string // that has signed it
	id     hub.ID // of the identity it is for, if it is for one
	only   bool   // it is good for that identity alone: the peer has said so
	open   bool   // nothing of it is proved yet: it is of a device, and says not of which
	chain  bool   // it is the client certificate, and there is no token

	registration string // id, if it is good for the provisioning service and nothing else

	caller  hub.Caller
	expires time.Time // zero never
}

// who names the claim's owner, for the log.
func (cl *claim) who() string {
	switch {
	case cl.registration != "":
		return "registration " + cl.registration
	case cl.id != hub.ID{}:
		return cl.id.String()
	case cl.caller.Name != "":
		return cl.caller.Title()
	case cl.policy != "":
		return "policy " + cl.policy
	}
	return ""
}

var errUnknownResource = errors.New("the token is for something that this hub does not have")

// newClaim checks a token as far as it can be checked by itself.
//
// Errors: hub.ErrUnauthorizedAccess, errUnknownResource, and those of the rules.
func (c *conn) newClaim(token string) (claim, error) {
	if len(token) > maxToken {
		return claim{}, hub.ErrUnauthorizedAccess.With("the token is longer than %d bytes", maxToken)
	}
	if _, ok := cutPrefixFold(token, "Bearer "); ok {
		caller, err := c.door.hub.AuthenticateCaller(c.door.ctx, token, "", "")
		return claim{key: "bearer", token: token, caller: caller, expires: caller.Expires}, err
	}
	t, err := c.door.hub.ExamineToken(token)
	if err != nil {
		return claim{}, err
	}
	host, path := t.Entity()
	cl := claim{token: token, host: host, policy: t.Policy, expires: t.Expiry.Add(sas.Skew)}
	cl.key = "sas " + strings.ToLower(t.Policy) + " " + path
	if !c.door.hub.IsName(host) {
		return claim{}, hub.ErrUnauthorizedAccess.With("the token is for %q, which is not a name of this hub", words.Clip(host))
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case first == "devices" && path != "/devices":
		return c.newIdentityClaim(cl, t)
	case path == "" || first == "devices":
		// Of the hub as a whole. Without a policy it is of a device, and which one
		// will show by its first link.
		cl.open = t.Policy == ""
		return cl, nil
	case t.Policy == "":
		return claim{}, hub.ErrUnauthorizedAccess.With("the token is for %q, and names no policy", words.Clip(path))
	case first == "messages" || first == "$management" || first == strings.ToLower(EventHubName):
		return cl, nil
	}
	return claim{}, errUnknownResource
}

// newIdentityClaim finds out which identity a token is for. Its id may be encoded
// or not.
func (c *conn) newIdentityClaim(cl claim, t sas.Token) (claim, error) {
	err := error(hub.ErrUnauthorizedAccess.With("the token is for no device or module that could be"))
	for id := range identitiesIn(t) {
		if _, err = c.door.hub.AuthenticateLink(cl.host, id, cl.token, nil); err == nil {
			cl.id, cl.key = id, "id "+id.String()+" "+strings.ToLower(t.Policy)
			return cl, nil
		}
	}
	return claim{}, unauthorized(err)
}

// identitiesIn are those that a token may be for, the likeliest first.
func identitiesIn(t sas.Token) iter.Seq[hub.ID] {
	return func(yield func(hub.ID) bool) {
		for _, path := range t.Paths() {
			if len(path) < 2 || !strings.EqualFold(path[0], "devices") {
				continue
			}
			id := hub.ID{Device: path[1]}
			if len(path) >= 4 && strings.EqualFold(path[2], "modules") {
				id.Module = path[3]
			}
			if id.Validate() == nil && !yield(id) {
				return
			}
		}
	}
}

// claimedBy is the identity that a token, which nobody has checked, claims to be
// of; zero if it is of none.
func claimedBy(token string) hub.ID {
	t, _ := sas.ParseToken(token)
	for id := range identitiesIn(t) {
		return id
	}
	return hub.ID{}
}

// unauthorized hides whether an identity exists from who has not proved to be it.
func unauthorized(err error) error {
	if errors.Is(err, hub.ErrDeviceNotFound) || errors.Is(err, hub.ErrModuleNotFound) {
		return hub.ErrUnauthorizedAccess.With("%v", err)
	}
	return err
}

// put adds a claim that has been checked, in the place of the one before it.
func (cs *claims) put(c *conn, cl claim) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	list, size := cs.list, cs.size
	now := c.door.hub.Now()
	list = slices.DeleteFunc(list, func(old claim) bool {
		gone := old.key == cl.key || old.expired(now)
		if gone {
			size -= len(old.token)
		}
		return gone
	})
	cs.list, cs.size = list, size
	if len(list) >= maxClaims || size+len(cl.token) > maxClaimBytes {
		return refuse(condLimit, "there are too many tokens on this connection")
	}
	cs.list, cs.size = append(list, cl), size+len(cl.token)
	cs.watchLocked(c)
	cs.provedLocked()
	return nil
}

// prove notes that the claim with the key is genuine.
func (cs *claims) prove(key string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for i := range cs.list {
		if cs.list[i].key == key {
			cs.list[i].open = false
		}
	}
	cs.provedLocked()
}

// provedLocked ends the wait for the first genuine claim, if there is one.
func (cs *claims) provedLocked() bool {
	proved := slices.ContainsFunc(cs.list, func(cl claim) bool { return !cl.open })
	if proved && cs.first != nil {
		cs.first.Stop()
		cs.first = nil
	}
	return proved
}

func (cl *claim) expired(now time.Time) bool {
	return !cl.expires.IsZero() && !cl.expires.After(now)
}

// await has the connection closed unless the peer shows in time who it is.
func (cs *claims) await(c *conn, deadline time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.over || cs.provedLocked() {
		return
	}
	left := time.Until(deadline) - (serve.AuthTimeout - claimTimeout)
	cs.first = time.AfterFunc(left, func() {
		cs.mu.Lock()
		late := !cs.over && !cs.provedLocked()
		cs.mu.Unlock()
		if late {
			c.shut(errUnknown)
		}
	})
}

// watchLocked has expire called when the next claim expires.
func (cs *claims) watchLocked(c *conn) {
	var next time.Time
	for _, cl := range cs.list {
		if !cl.expires.IsZero() && (next.IsZero() || cl.expires.Before(next)) {
			next = cl.expires
		}
	}
	cs.unwatchLocked()
	if !next.IsZero() && !cs.over {
		cs.unwatch = c.door.hub.Clock().At(next, func() { c.door.running.Go(c.expire) })
	}
}

func (cs *claims) unwatchLocked() {
	if cs.unwatch != nil {
		cs.unwatch()
		cs.unwatch = nil
	}
}

// expire forgets the claims whose time is up, and ends the links that stood on
// them: the connection, if none is left.
func (c *conn) expire() {
	cs := &c.claims
	now := c.door.hub.Now()
	cs.mu.Lock()
	before := len(cs.list)
	cs.list = slices.DeleteFunc(cs.list, func(cl claim) bool {
		if !cl.expired(now) {
			return false
		}
		cs.size -= len(cl.token)
		return true
	})
	changed, none := len(cs.list) != before, !cs.provedLocked()
	cs.watchLocked(c)
	guards := make(map[*engine.Link]func() error)
	if changed && !none {
		for l, check := range cs.guards {
			guards[l] = check
		}
	}
	cs.mu.Unlock()
	if changed && none {
		c.shut(hub.ErrExpired)
		return
	}
	for l, check := range guards {
		if err := check(); err != nil {
			l.Detach(c.refusalOf(err))
		}
	}
}

// end stops what waits.
func (cs *claims) end() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.over = true
	cs.list, cs.size, cs.guards = nil, 0, nil
	cs.unwatchLocked()
	if cs.first != nil {
		cs.first.Stop()
	}
}

// all returns the claims that match, the newest first.
func (cs *claims) all(match func(*claim) bool) []claim {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var found []claim
	for i := len(cs.list) - 1; i >= 0; i-- {
		if cl := &cs.list[i]; match(cl) {
			found = append(found, *cl)
		}
	}
	return found
}

// guard has a link detached when the claim that it stands on has expired: check
// is asked again whenever one does. It comes last in attaching a link.
func (c *conn) guard(l *engine.Link, check func() error) {
	cs := &c.claims
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.over {
		return
	}
	if cs.guards == nil {
		cs.guards = make(map[*engine.Link]func() error)
	}
	cs.guards[l] = check
	forget := func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		delete(cs.guards, l)
	}
	if l.Inlet != nil {
		l.Inlet = guardedInlet{l.Inlet, forget}
	} else {
		l.Outlet = guardedOutlet{l.Outlet, forget}
	}
}

type guardedInlet struct {
	engine.Inlet
	forget func()
}

func (g guardedInlet) Detached() {
	g.forget()
	g.Inlet.Detached()
}

type guardedOutlet struct {
	engine.Outlet
	forget func()
}

func (g guardedOutlet) Detached() {
	g.forget()
	g.Outlet.Detached()
}

// caller returns the service client that the peer has proved to be, if it may do
// what needs the permission at path, such as "/messages/devicebound". The error
// is a *wire.Error for the link.
func (c *conn) caller(need hub.Permission, path string) (hub.Caller, error) {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	caller, err := c.firstCaller(need, path, func(cl *claim) (hub.Caller, error) {
		return c.door.hub.AuthenticateCaller(c.door.ctx, cl.token, cl.host, path)
	})
	if err != nil {
		return hub.Caller{}, c.refusalOf(err)
	}
	return caller, nil
}

// reader is caller for path, such as "/ConsumerGroups/$Default/Partitions/0", of
// the event hub called name. Of tokens it takes those for the built-in endpoint
// too, which its clients sign with the text of the key, and the key itself.
func (c *conn) reader(name, path string) (hub.Caller, error) {
	caller, err := c.findReader(name, path)
	if err != nil {
		return hub.Caller{}, c.refusalOf(err)
	}
	return caller, nil
}

// findReader is reader with the error of the rules.
func (c *conn) findReader(name, path string) (hub.Caller, error) {
	if !strings.HasPrefix(strings.ToLower(path)+"/", "/"+strings.ToLower(name)+"/") {
		path = "/" + name + "/" + strings.TrimPrefix(path, "/")
	}
	return c.firstCaller(hub.ReadEvents, path, func(cl *claim) (hub.Caller, error) {
		if cl.token == "" {
			return cl.caller, nil
		}
		return c.door.hub.AuthenticateReader(c.door.ctx, cl.token, path)
	})
}

// firstCaller returns the newest caller that may do what needs the permission.
func (c *conn) firstCaller(need hub.Permission, path string, authenticate func(*claim) (hub.Caller, error)) (hub.Caller, error) {
	refused := error(nil)
	for _, cl := range c.claims.all(func(cl *claim) bool { return cl.id == hub.ID{} && !cl.chain && cl.registration == "" }) {
		caller, err := authenticate(&cl)
		if err == nil {
			err = caller.May(need, "AMQP on "+words.Clip(path))
		}
		if err == nil {
			return caller, nil
		}
		refused = cmp.Or(refused, err)
	}
	if refused == nil {
		refused = hub.ErrUnauthorizedAccess.With("no token of a service came before the link to %s", words.Clip(path))
	}
	return hub.Caller{}, refused
}

// grant returns what the peer has proved of an identity: by a token for it, for
// its device or for all of the hub, or by the client certificate. The error is a
// *wire.Error for the link.
func (c *conn) grant(id hub.ID) (hub.Peer, error) {
	refused := error(nil)
	exact := func(cl *claim) int {
		if cl.id == id {
			return 0
		}
		return 1
	}
	found := c.claims.all(func(cl *claim) bool {
		ofDevice := cl.id.Module == "" && (cl.id.Device == "" || cl.id.Device == id.Device) && !cl.only
		return cl.token != "" && cl.caller.Name == "" && (cl.id == id || ofDevice)
	})
	slices.SortStableFunc(found, func(a, b claim) int { return exact(&a) - exact(&b) })
	for _, cl := range found {
		g, err := c.door.hub.AuthenticateLink(cl.host, id, cl.token, nil)
		if err == nil {
			if cl.open {
				c.claims.prove(cl.key)
				c.known(&cl)
			}
			return c.peer(id, cl.host, g), nil
		}
		refused = cmp.Or(refused, err)
	}
	if len(c.chain) > 0 {
		peer, err := c.certified(id)
		if err == nil {
			return peer, nil
		}
		refused = cmp.Or(refused, err)
	}
	if refused == nil {
		refused = hub.ErrUnauthorizedAccess.With("neither a token nor a client certificate for %s", words.Clip(id.String()))
	}
	c.refused(id, refused)
	return hub.Peer{}, c.refusalOf(unauthorized(refused))
}

// certified is grant by the client certificate, which is of the one identity that
// comes first.
func (c *conn) certified(id hub.ID) (hub.Peer, error) {
	before := c.claims.all(func(cl *claim) bool { return cl.chain })
	if len(before) > 0 && before[0].id != id {
		return hub.Peer{}, hub.ErrUnauthorizedAccess.With("the client certificate is that of %s on this connection", before[0].id)
	}
	g, err := c.door.hub.AuthenticateLink(c.host, id, "", c.chain)
	if err != nil {
		return hub.Peer{}, err
	}
	if len(before) == 0 {
		if err := c.claim(claim{key: "certificate", host: c.host, id: id, only: true, chain: true, expires: g.Expires}); err != nil {
			return hub.Peer{}, err
		}
	}
	return c.peer(id, c.host, g), nil
}

func (c *conn) peer(id hub.ID, host string, g hub.Grant) hub.Peer {
	return hub.Peer{ID: id, Host: host, Grant: g, Door: c.over.Door, Remote: c.remote()}
}

// refused tells the rules of a credential that was not accepted; id is zero if
// it does not say whose it is.
func (c *conn) refused(id hub.ID, err error) {
	c.door.hub.Refused(c.peer(id, "", hub.Grant{}), wordOf(err), err)
}

// claim takes a claim that has been checked: from now on the peer is known, and
// what stood on the claim before it stands on this one.
func (c *conn) claim(cl claim) error {
	if cl.id != (hub.ID{}) && !c.serves(cl.id) {
		late, err := c.meetFault(cl.id)
		if err != nil {
			return err
		}
		defer c.linger(late)
	}
	if err := c.claims.put(c, cl); err != nil {
		return err
	}
	if !cl.open {
		c.known(&cl)
	}
	if cl.chain || cl.registration != "" {
		return nil
	}
	c.devices.mu.Lock()
	var ids []hub.ID
	for id := range c.devices.byID {
		if cl.id == id || cl.id.Module == "" && (cl.id.Device == "" || cl.id.Device == id.Device) {
			ids = append(ids, id)
		}
	}
	c.devices.mu.Unlock()
	for _, id := range ids {
		c.renewed(id)
	}
	return nil
}
