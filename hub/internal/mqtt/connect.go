package mqtt

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// A refusal is a CONNACK with a code other than 0. Clients give up for good
// after every code but 3, so 3 is for what may pass, and only for that.
type refusal struct {
	code   byte
	reason error // for the hub's log
}

func (r *refusal) Error() string { return "refused: " + r.reason.Error() }
func (r *refusal) Unwrap() error { return r.reason }

func refuse(code byte, format string, args ...any) error {
	return &refusal{code, fmt.Errorf(format, args...)}
}

// connect handles the first packet of c, made to the host: it finds out who it is,
// checks the credential, makes c the identity's connection and opens its session. A
// refusal is an error, and CONNACK has been queued either way.
func (d *Door) connect(c *conn, p *packets.ConnectPacket, host string, chain []*x509.Certificate) error {
	err := checkConnect(p)
	if name, ok := parseRegistrationName(p.ClientIdentifier, p.Username); ok && err == nil {
		err = d.admitRegistration(c, p, name, host, chain)
	} else if err == nil {
		err = d.admitIdentity(c, p, chain)
	}
	var r *refusal
	if errors.As(err, &r) {
		c.reply(appendConnack(nil, false, r.code))
	}
	return err
}

// checkConnect refuses a CONNECT that nobody may send.
func checkConnect(p *packets.ConnectPacket) error {
	if p.ProtocolName != "MQTT" || p.ProtocolVersion != 4 {
		return refuse(packets.ErrRefusedBadProtocolVersion, "protocol %q level %d", words.Clip(p.ProtocolName), p.ProtocolVersion)
	}
	if p.ReservedBit != 0 {
		return errors.New("CONNECT with the reserved flag")
	}
	return nil
}

// admitIdentity is connect for a device or module.
func (d *Door) admitIdentity(c *conn, p *packets.ConnectPacket, chain []*x509.Certificate) error {
	if err := d.identify(c, p, chain); err != nil {
		return err
	}
	if err := d.meetFault(c); err != nil {
		return err
	}
	return d.admit(c)
}

// identify fills in what CONNECT says.
func (d *Door) identify(c *conn, p *packets.ConnectPacket, chain []*x509.Certificate) error {
	id, user, err := parseUserName(p.ClientIdentifier, p.Username)
	c.peer.ID = id
	if err != nil {
		return &refusal{packets.ErrRefusedNotAuthorised, err}
	}
	c.peer.Host, c.peer.Model, c.clean = user.host, user.model, p.CleanSession
	c.keepAlive = keepAlive(p.Keepalive)
	if c.peer.Grant, err = d.hub.AuthenticateLink(c.peer.Host, id, string(p.Password), chain); err != nil {
		return refuseFor(err)
	}
	c.expireAt(c.peer.Grant.Expires)
	if p.WillFlag {
		if c.will, err = newWill(id, p); err != nil {
			return &refusal{packets.ErrRefusedNotAuthorised, err}
		}
	}
	return nil
}

// expireAt has c end when its credential does, by the hub's clock; zero is never.
func (c *conn) expireAt(t time.Time) {
	if !t.IsZero() {
		c.expires = time.Now().Add(t.Sub(c.door.hub.Now()))
	}
}

// admit makes c the connection of its identity, queues CONNACK and lets others
// send to c behind it.
func (d *Door) admit(c *conn) error {
	c.peer.Since = d.hub.Now()
	c.heard.Store(c.peer.Since.UnixNano())
	if err := d.hub.Attach(c); err != nil {
		return refuseFor(err)
	}
	filters, present, err := d.openSession(c)
	if err != nil {
		d.hub.Detach(c, whyUnavailable, err)
		return refuseFor(err)
	}
	c.mu.Lock()
	if c.reason == nil {
		c.replyLocked(appendConnack(nil, present, packets.Accepted))
		c.filters = filters
		c.open = true
	}
	c.mu.Unlock()
	d.hub.Ready(c)
	return nil
}

// refuseFor turns an error of the rules into a refusal: 5 for what another
// attempt won't change, 3 for what it may.
func refuseFor(err error) error {
	for _, final := range []error{hub.ErrUnauthorizedAccess, hub.ErrDeviceNotFound, hub.ErrModuleNotFound} {
		if errors.Is(err, final) {
			return &refusal{packets.ErrRefusedNotAuthorised, err}
		}
	}
	return &refusal{packets.ErrRefusedServerUnavailable, err}
}

// keepAlive is how long a client may be silent: one and a half times what it
// announced, and never more than the service's 29.45 minutes, which "Communicate
// with IoT Hub using the MQTT protocol" names.
func keepAlive(seconds uint16) time.Duration {
	const most = 1767 * time.Second
	if seconds == 0 {
		return most
	}
	return min(time.Duration(seconds)*time.Second*3/2, most)
}

// newWill makes telemetry of a CONNECT's will, which may be for the identity's
// own telemetry topic only.
func newWill(id hub.ID, p *packets.ConnectPacket) (*hub.Telemetry, error) {
	if p.WillQos > 1 {
		return nil, errors.New("a will with QoS 2")
	}
	r, err := parseTopic(id, p.WillTopic)
	if err == nil && r.kind != sendTelemetry {
		err = errTopic
	}
	if err != nil {
		return nil, fmt.Errorf("will: %w", err)
	}
	m, err := newTelemetry(r.bag, p.WillMessage, p.WillRetain, false)
	if err != nil {
		return nil, fmt.Errorf("will: %w", err)
	}
	m.Properties = append(m.Properties, hub.Property{Name: "iothub-MessageType", Value: "Will"})
	return &m, nil
}

// A userName is what a CONNECT's user name says besides the client id.
type userName struct {
	host  string
	model string // the Plug and Play model id
}

// parseUserName reads the client id, "device" or "device/module", and the user
// name, "host/clientId" followed by "/?" or "/" and a query, or by nothing. The
// client id tells where the query begins: an id may contain "?", "=" and "&"
// itself. The id is valid with an error, too, if it is known.
func parseUserName(clientID, name string) (hub.ID, userName, error) {
	device, module, found := strings.Cut(clientID, "/")
	id := hub.ID{Device: device, Module: module}
	if err := id.Validate(); err != nil || found && module == "" {
		return hub.ID{}, userName{}, errors.New("the client id is not a device id, nor a device id, \"/\" and a module id")
	}
	host, rest, _ := strings.Cut(name, "/")
	rest, ok := strings.CutPrefix(rest, clientID)
	query, more := strings.CutPrefix(rest, "/")
	if host == "" || !ok || rest != "" && !more {
		return id, userName{}, errors.New("the user name is not the hub's name, \"/\" and the client id")
	}
	// What follows must be a query and not another segment of an id.
	first, _, _ := strings.Cut(query, "/")
	if first != "" && first[0] != '?' && !strings.Contains(first, "api-version=") {
		return id, userName{}, errors.New("the user name is for another identity than the client id")
	}
	u := userName{host: host}
	return id, u, u.parseQuery(strings.TrimPrefix(query, "?"))
}

// parseQuery reads the query. Node writes a model id with a bare ";", which is
// no separator here, and "+" is no space. The first of two equal names counts.
func (u *userName) parseQuery(query string) error {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if seen[key] {
			continue
		}
		seen[key] = true
		if key != "api-version" && key != "model-id" {
			continue
		}
		value, err := url.PathUnescape(value)
		if err != nil {
			return errors.New("the user name's query is not percent-encoded")
		}
		if key == "model-id" {
			u.model = value
			continue
		}
		// The oldest clients send none.
		if !hub.ValidAPIVersion(value) {
			return fmt.Errorf("unknown api-version %q", words.Clip(value))
		}
	}
	return nil
}
