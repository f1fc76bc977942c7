package amqp

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// How a device asks the provisioning service over AMQP is not documented: its SDKs
// for Node, Java and .NET show it. It proves who it is by SASL PLAIN or by the client
// certificate, attaches a link in each direction at "{id scope}/registrations/{id}",
// sends requests on one and is answered on the other.

// A registrant is the device behind such links: a connection has one at most. What it
// asks for is done one after the other by a goroutine that lives while there is
// something to do.
type registrant struct {
	running sync.WaitGroup
	answers replies

	mu      sync.Mutex        // guards what follows; never held while the service or the engine are called
	peer    provisioning.Peer // zero until it has said who it is
	inlets  int
	todo    []func()
	working bool
	stop    func() // nothing has to tell of a reset any more; nil until its credential was good once
}

const (
	// registrationCredit is how many requests may be under way on a link, and
	// maxRegistrationLinks how many links of one direction there may be.
	registrationCredit   = 5
	maxRegistrationLinks = 4

	// maxRegistrationMessage bounds a request.
	maxRegistrationMessage = provisioning.MaxBody + encodingRoom
)

// registrationID names a registration to those who ask why a device is not there.
func registrationID(id string) hub.ID {
	named := hub.ID{Device: id}
	if named.Validate() != nil {
		return hub.ID{}
	}
	return named
}

// parseRegistrationPlain reads a response of PLAIN whose user is a registration.
func parseRegistrationPlain(response []byte) (scope, id, token string, ok bool) {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return "", "", "", false
	}
	a := parseAddress(string(parts[1]))
	return a.scope, a.registration, string(parts[2]), a.node == nodeRegistration
}

// introduce takes what the peer says it is, if it has not said another: the device of
// a registration. Whether that is so shows when it asks for something, since clients
// read the envelope of an error nowhere else: of what SASL refuses, Node's and Java's
// learn nothing, and Node's waits for ever if its links are refused.
func (c *conn) introduce(scope, id, token string) bool {
	r := &c.registrant
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peer.ID == "" {
		r.peer = provisioning.Peer{Scope: scope, ID: id, Password: token, Chain: c.chain, Door: c.over.Door, Remote: c.remote()}
	}
	return strings.EqualFold(r.peer.ID, id) && r.peer.Scope == scope
}

// prove checks the credential of the peer that asks for the first time, and makes it
// known.
func (c *conn) prove(p provisioning.Peer) error {
	r := &c.registrant
	r.mu.Lock()
	proved := r.stop != nil
	r.mu.Unlock()
	if proved {
		return nil
	}
	expires, err := c.door.opt.Provisioning.Authenticate(p)
	if err != nil {
		return err
	}
	if err := c.claim(claim{key: "registration", registration: p.ID, expires: expires}); err != nil {
		return err
	}
	stop := c.door.hub.OnReplace(func() { c.shut(hub.ErrReset) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = stop
	return nil
}

// reached is the name under which the peer has reached the hub, or the address.
func (c *conn) reached() string {
	return serve.HostOf(cmp.Or(c.dialed, c.host, c.NetConn().LocalAddr().String()))
}

// attachRegistration attaches a link at the address of a registration.
func (c *conn) attachRegistration(l *engine.Link, a address) error {
	if !c.introduce(a.scope, a.registration, "") {
		return c.registrationRefused(a.registration, provisioning.ErrUnauthorized.Because("the connection is of another registration"))
	}
	if l.Role == wire.Receiver {
		return c.registrant.takeAnswers(l)
	}
	return c.takeRequests(l)
}

// takeAnswers makes l one of the links on which the device is answered.
func (r *registrant) takeAnswers(l *engine.Link) error {
	if r.answers.count() >= maxRegistrationLinks {
		return refuse(condLimit, "a registration has at most %d links that receive", maxRegistrationLinks)
	}
	r.answers.attach(l)
	return nil
}

// takeRequests makes l one of the links on which the device asks.
func (c *conn) takeRequests(l *engine.Link) error {
	r := &c.registrant
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inlets >= maxRegistrationLinks {
		return refuse(condLimit, "a registration has at most %d links that send", maxRegistrationLinks)
	}
	r.inlets++
	l.Inlet = registrationInlet{c}
	l.Credit = registrationCredit
	l.MaxMessageSize = maxRegistrationMessage
	return nil
}

// do has f done behind what was asked before.
func (r *registrant) do(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.todo = append(r.todo, f)
	if !r.working {
		r.working = true
		r.running.Go(r.work)
	}
}

func (r *registrant) work() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.todo) > 0 {
		f := r.todo[0]
		r.todo = slices.Delete(r.todo, 0, 1)
		r.mu.Unlock()
		f()
		r.mu.Lock()
	}
	r.todo = nil
	r.working = false
}

// gone is called when the connection has ended.
func (r *registrant) gone() {
	r.mu.Lock()
	stop := r.stop
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
	r.running.Wait()
}
