// Package fault is what goes wrong on purpose in a hub under test: which requests and packets a fault strikes, how often,
// and until when. It knows no protocol. What a fault does at its point, over each protocol, is done by the doors and the
// rules, and is a table in docs/TEST-CONTROLS.md.
package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/query"
)

// A Point is where a fault strikes.
type Point string

// The points.
const (
	Connection   Point = "connection"   // a device that connects; over HTTPS each of its requests
	Registration Point = "registration" // a device that registers with the provisioning service; Device is its registration id
	Telemetry    Point = "telemetry"    // a message from a device
	Twin         Point = "twin"         // a device that gets its twin or reports properties
	Method       Point = "method"       // a direct method that is called
	Message      Point = "message"      // a cloud-to-device message, on its way to the device; with Status where it is sent
	REST         Point = "rest"         // any request over HTTPS but those to the test controls
	TLS          Point = "tls"          // a new TLS connection, of whomever
)

// Points are all points, in the order of the documents.
var Points = []Point{Connection, Registration, Telemetry, Twin, Method, Message, REST, TLS}

// An Effect is what a fault does.
type Effect string

// The effects. A fault has one.
const (
	Latency            Effect = "latency"
	Status             Effect = "status"
	Drop               Effect = "drop"
	Refuse             Effect = "refuse"
	ExpiredCertificate Effect = "expired-certificate"
)

// effects are those of each point.
var effects = map[Point][]Effect{
	Connection:   {Latency, Status, Drop, Refuse},
	Registration: {Latency, Status, Drop, Refuse},
	Telemetry:    {Latency, Status, Drop},
	Twin:         {Latency, Status, Drop},
	Method:       {Latency, Status, Drop},
	Message:      {Latency, Status, Drop},
	REST:         {Latency, Status, Drop},
	TLS:          {ExpiredCertificate},
}

// A Fault says what is to go wrong, for whom and how often.
type Fault struct {
	On Point

	// Whom it strikes; all that is empty is everyone. Device is a device with its modules, or a module as
	// "device/module". Where is a condition on the device's twin in the query language of IoT Hub, looked at when
	// the fault might strike. Path is of REST only: a path such as "twins/*/methods", in which "*" is any one segment,
	// and all paths below it.
	Device string
	Where  string
	Path   string

	// What it does: one of these. RetryAfter may be with Status, and is then what the caller is told in place of
	// the hub's own opinion.
	Latency            time.Duration // how much later it is answered, or delivered
	Status             int           // the HTTP status of the service's error
	RetryAfter         time.Duration
	Drop               bool // it is lost, or the connection is
	Refuse             bool // the credential is refused
	ExpiredCertificate bool // the hub shows an expired certificate

	// When it ends. Zero is when it is cleared. For is by the hub's clock.
	Count int
	For   time.Duration
}

// MaxLatency bounds Latency.
const MaxLatency = 10 * time.Minute

// Effect returns what the fault does, or nothing if that is not one effect.
func (f *Fault) Effect() Effect {
	var has []Effect
	for _, e := range []struct {
		Effect
		on bool
	}{
		{Latency, f.Latency != 0}, {Status, f.Status != 0}, {Drop, f.Drop}, {Refuse, f.Refuse}, {ExpiredCertificate, f.ExpiredCertificate},
	} {
		if e.on {
			has = append(has, e.Effect)
		}
	}
	if len(has) != 1 {
		return ""
	}
	return has[0]
}

// Validate says what is wrong with the fault, if anything, in words for its author.
func (f *Fault) Validate() error {
	allowed, known := effects[f.On]
	effect := f.Effect()
	switch {
	case !known:
		return fmt.Errorf("a fault is on one of %s, and not on %q", list(Points), f.On)
	case effect == "":
		return fmt.Errorf("a fault on %s is one of %s", f.On, list(allowed))
	case !slices.Contains(allowed, effect):
		return fmt.Errorf("a fault on %s cannot be %s, but %s", f.On, effect, list(allowed))
	case f.Latency < 0 || f.Latency > MaxLatency:
		return fmt.Errorf("the latency is up to %v", MaxLatency)
	case f.RetryAfter != 0 && f.Status != 429 && f.Status != 503:
		return fmt.Errorf("only the statuses 429 and 503 say when to try again")
	case f.RetryAfter < 0:
		return fmt.Errorf("the time until callers are to try again cannot be negative")
	case f.Count < 0:
		return fmt.Errorf("the count cannot be negative")
	case f.For < 0:
		return fmt.Errorf("the duration cannot be negative")
	case f.Path != "" && f.On != REST:
		return fmt.Errorf("only a fault on rest has a path")
	case f.On == TLS && (f.Device != "" || f.Where != ""):
		return fmt.Errorf("a fault on tls strikes before the hub knows which device connects: it cannot be for some")
	}
	_, err := f.condition()
	return err
}

// condition returns Where, parsed, and nil if there is none.
func (f *Fault) condition() (*query.Query, error) {
	if f.Where == "" {
		return nil, nil
	}
	return query.ParseCondition(f.Where)
}

func list[T ~string](words []T) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return strings.Join(texts, ", ")
}

// A Target is what a fault might strike.
type Target struct {
	Device, Module string
	Path           []string // the segments of a REST request's path, without the first "/"
	Sending        bool     // a cloud-to-device message is being sent by a service, and not yet to the device

	// Twin returns the device's twin, and false if there is none. It is called for a fault with a condition only.
	Twin func() (query.Doc, bool)
}

// names reports whether the fault is for the target, as far as its ids and its path say.
func (f *Fault) names(t *Target) bool {
	if f.On == Message && t.Sending != (f.Effect() == Status) {
		return false
	}
	device, module, one := strings.Cut(f.Device, "/")
	if device != "" && (device != t.Device || one && module != t.Module) {
		return false
	}
	if f.Path == "" {
		return true
	}
	words := strings.Split(strings.Trim(f.Path, "/"), "/")
	if len(words) > len(t.Path) {
		return false
	}
	for i, word := range words {
		if word != "*" && !strings.EqualFold(word, t.Path[i]) {
			return false
		}
	}
	return true
}
