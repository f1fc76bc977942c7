package hub

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/query"
)

// A Fault is what goes wrong now, because somebody who tests wants it to: see package fault. One of its fields is set.
type Fault struct {
	Latency time.Duration // how much later the answer is to come
	Refusal *Error        // what is to be answered
	Drop    bool          // nothing is answered, and nothing done
}

// ErrDropped is why the hub ends a connection that a fault cuts. The peer is not told of it.
var ErrDropped = errors.New("a fault of the test controls cut the connection")

// ConnectionFault returns what goes wrong with an identity that connects, whose credential has been accepted; nil is
// nothing. So do the others, and a strike counts with each.
func (s *Server) ConnectionFault(id ID) *Fault { return s.strike(fault.Connection, id, nil) }

// RegistrationFault is ConnectionFault for a device that registers with the provisioning service.
func (s *Server) RegistrationFault(id string) *Fault {
	return s.strike(fault.Registration, ID{Device: id}, nil)
}

// TelemetryFault is ConnectionFault for a message from an identity.
func (s *Server) TelemetryFault(from Peer, m Telemetry) *Fault {
	f := s.strike(fault.Telemetry, from.ID, nil)
	if f != nil && f.Latency == 0 && s.journal != nil {
		s.noteTelemetry(from, m)(f.cause())
	}
	return f
}

// TwinFault is ConnectionFault for what an identity does to its own twin: journal.Got, or journal.Reported with a patch.
func (s *Server) TwinFault(id ID, what string, patch []byte) *Fault {
	f := s.strike(fault.Twin, id, nil)
	if f != nil && f.Latency == 0 {
		s.noteTwin(id, what, patch, f.cause())
	}
	return f
}

// RequestFault is ConnectionFault for a REST request with these segments in its path, about id if that is not zero.
func (s *Server) RequestFault(id ID, path []string) *Fault { return s.strike(fault.REST, id, path) }

func (s *Server) strike(on fault.Point, id ID, path []string) *Fault {
	if s.faults == nil {
		return nil
	}
	return s.strikeTarget(on, s.target(id, path))
}

func (s *Server) strikeTarget(on fault.Point, t *fault.Target) *Fault {
	f, ok := s.faults.Strike(on, t)
	if !ok {
		return nil
	}
	struck := &Fault{Latency: f.Latency, Drop: f.Drop}
	switch {
	case f.Refuse:
		struck.Refusal = ErrUnauthorizedAccess.With(byFault)
	case f.Status != 0:
		struck.Refusal = refusalWith(on, f.Status).With(byFault)
		struck.Refusal.after = f.RetryAfter
	}
	return struck
}

// cause is the fault as an error: what is refused or lost by it never comes to the rules.
func (f *Fault) cause() error {
	if f.Drop {
		return errLostByFault
	}
	return f.Refusal
}

var errLostByFault = errors.New("lost by " + byFault)

// byFault is what the refusals of faults say, for those who have forgotten them.
const byFault = "a fault of this hub's test controls"

func (s *Server) target(id ID, path []string) *fault.Target {
	return &fault.Target{Device: id.Device, Module: id.Module, Path: path, Twin: func() (query.Doc, bool) {
		v, err := s.Twin(ID{Device: id.Device})
		if err != nil {
			return nil, false
		}
		doc, err := v.MarshalJSON()
		return query.Text(doc), err == nil
	}}
}

// refusalsByStatus are the errors of the service that a fault may choose by their status.
var refusalsByStatus = []*Error{
	ErrGenericBadRequest, ErrUnauthorizedAccess, ErrQuotaExceeded, ErrDeviceNotFound, ErrMethodNotAllowed, ErrDeviceAlreadyExists,
	ErrPreconditionFailed, ErrMessageTooLarge, ErrThrottled, ErrServer, ErrBadDeviceResponse, ErrServiceUnavailable, ErrGatewayTimeout,
}

// refusalWith returns the error with a status that is likeliest at a point, nil if there is none.
func refusalWith(on fault.Point, status int) *Error {
	switch {
	case on == fault.Method && status == 404:
		return ErrDeviceNotOnline
	case on == fault.Method && status == 403:
		return ErrTooManyMethodCalls
	case on == fault.Message && status == 403:
		return ErrQueueFull
	}
	at := slices.IndexFunc(refusalsByStatus, func(e *Error) bool { return e.Status == status })
	if at < 0 {
		return nil
	}
	return refusalsByStatus[at]
}

// HasFaults reports whether the hub may be given faults: it is under test.
func (s *Server) HasFaults() bool { return s.faults != nil }

// AddFault adds a fault. If that drops connections, those that it strikes end before AddFault returns.
//
// Errors: ErrArgumentInvalid, and ErrNotAvailable for a hub that is not under test.
func (s *Server) AddFault(f fault.Fault) (fault.Active, error) {
	if s.faults == nil {
		return fault.Active{}, ErrNotAvailable.With("the hub has no test controls")
	}
	if f.Status != 0 && refusalWith(f.On, f.Status) == nil {
		return fault.Active{}, ErrArgumentInvalid.With("the service has no error with the status %d: take 400, 401, 403, 404, 405, 409, 412, 413, 429, 500, 502, 503 or 504", f.Status)
	}
	a, err := s.faults.Add(f)
	if err != nil {
		return fault.Active{}, ErrArgumentInvalid.With("%v", err)
	}
	if f.On == fault.Connection && f.Drop {
		s.dropLinks(a.ID)
		for _, now := range s.faults.List() {
			if now.ID == a.ID {
				a = now
			}
		}
	}
	return a, nil
}

// dropLinks cuts the connections that a fault strikes, in the order of their names.
func (s *Server) dropLinks(id int) {
	links := s.links.all(func(Peer) bool { return true })
	slices.SortFunc(links, func(a, b Link) int { return cmp.Compare(a.Peer().ID.String(), b.Peer().ID.String()) })
	for _, l := range links {
		if s.faults.StrikeOne(id, s.target(l.Peer().ID, nil)) {
			l.End(ErrDropped)
		}
	}
}

// Faults returns the faults in the order in which they were added, with those that have ended.
func (s *Server) Faults() []fault.Active { return s.faults.List() }

// ClearFault removes the fault with the id and reports whether there was one.
func (s *Server) ClearFault(id int) bool { return s.faults.Clear(id) }

// ClearFaults removes all faults and returns how many there were.
func (s *Server) ClearFaults() int { return s.faults.ClearAll() }

// FaultOperation returns what a device asks for by the properties of a message, of a hub under test: see
// fault.Operation. A door does what ends connections and links, and Operate the rest.
func (s *Server) FaultOperation(list []Property) (o fault.Operation, ok bool) {
	if s.faults == nil || !slices.ContainsFunc(list, func(p Property) bool { return strings.EqualFold(p.Name, fault.OperationTypeProperty) }) {
		return o, false
	}
	return fault.OperationOf(func(name string) string {
		for _, p := range list {
			if strings.EqualFold(p.Name, name) { // over HTTPS they are in lower case
				return p.Value
			}
		}
		return ""
	})
}

// Operate adds the fault that an operation is for the device that asks for it, if it is one that lasts, when its delay has
// passed.
func (s *Server) Operate(from ID, o fault.Operation) {
	if f, lasts := o.Fault(from.String()); lasts {
		s.AfterDelay(o.Delay, func() { s.faults.Add(f) })
	}
}

// OperationRefusal is what a request over HTTPS is answered that asks for an operation which lasts; nil is nothing. Other
// requests are not struck, since the suites expect that only this one is.
func (s *Server) OperationRefusal(o fault.Operation) *Error {
	f, lasts := o.Fault("")
	if !lasts {
		return nil
	}
	return refusalWith(f.On, f.Status).With(byFault)
}

// AfterDelay runs f when d has passed, unless the server has closed before.
func (s *Server) AfterDelay(d time.Duration, f func()) {
	time.AfterFunc(d, func() { s.running.Go(f) })
}

// HandshakeFault reports whether a TLS connection that begins is to see an expired certificate.
func (s *Server) HandshakeFault() bool {
	if s.faults == nil {
		return false
	}
	_, struck := s.faults.Strike(fault.TLS, new(fault.Target))
	return struck
}
