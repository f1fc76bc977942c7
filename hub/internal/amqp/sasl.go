package amqp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// mechanisms are what the hub offers. MSSBCBS and ANONYMOUS prove nothing: a
// token comes over $cbs, or the client certificate is enough.
var mechanisms = []wire.Symbol{"MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"}

// Codes of SASL outcomes.
const (
	saslOK   = 0
	saslAuth = 1
)

// greet takes a connection as far as the header of AMQP itself. Most clients
// begin with SASL; Node's, and some others, have none. A client may send all of
// its part before it has read anything.
func (c *conn) greet() error {
	header, err := c.Header()
	if err != nil {
		return fault{err, whyLost}
	}
	if header == wire.HeaderSASL {
		if err := c.Write(wire.AppendSASL([]byte(wire.HeaderSASL), &wire.SASLMechanisms{Mechanisms: mechanisms})); err != nil {
			return fault{err, whyLost}
		}
		if err := c.negotiate(); err != nil {
			return err
		}
		if header, err = c.Header(); err != nil {
			return fault{err, whyLost}
		}
	}
	if err := c.Write([]byte(answerTo(header))); err != nil {
		return fault{err, whyLost}
	}
	if header != wire.HeaderAMQP {
		return fmt.Errorf("the peer speaks %s", protocolOf(header))
	}
	return nil
}

// answerTo is the header that a header is answered with: that of a version which
// the hub has, as section 2.2 of the specification's transport wants it.
func answerTo(header string) string {
	if strings.HasPrefix(header, "AMQP\x03") {
		return wire.HeaderSASL
	}
	return wire.HeaderAMQP
}

// protocolOf says which protocol begins so, for the log.
func protocolOf(first string) string {
	switch {
	case strings.HasPrefix(first, "AMQP\x00\x00\x09") || strings.HasPrefix(first, "AMQP\x01\x01"):
		return "AMQP 0-9-1 or older, and not AMQP 1.0"
	case strings.HasPrefix(first, wire.HeaderTLS):
		return "AMQP with TLS inside, and not TLS from the beginning"
	case strings.HasPrefix(first, "AMQP"):
		return fmt.Sprintf("AMQP with header %q, and not version 1.0", first)
	case strings.HasPrefix(first, "\x16\x03"):
		return "TLS where AMQP without TLS is served"
	case strings.HasPrefix(first, "\x10"):
		return "MQTT"
	}
	for _, method := range []string{"GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "CONNECT ", "PRI "} {
		if strings.HasPrefix(first, method) || len(first) < len(method) && len(first) > 3 && strings.HasPrefix(method, first) {
			return "HTTP"
		}
	}
	return fmt.Sprintf("something that begins with %q, and not AMQP", words.Clip(first))
}

// negotiate does the one exchange that the hub's mechanisms need.
func (c *conn) negotiate() error {
	frame, err := c.SASLFrame()
	if err != nil {
		return err
	}
	init, ok := frame.Body.(*wire.SASLInit)
	if !ok {
		return errors.New("the first SASL frame is not an init")
	}
	id, failed := c.checkInit(init)
	code := uint8(saslOK)
	if failed != nil {
		c.refused(id, failed)
		code = saslAuth
	}
	if err := c.Write(wire.AppendSASL(nil, &wire.SASLOutcome{Code: code})); err != nil && failed == nil {
		return fault{err, whyLost}
	}
	return failed
}

// checkInit checks what the peer says of itself. Names of mechanisms are taken in
// any case, and what ANONYMOUS is told is nobody's business. The identity is that
// which the peer claims to be, if it says so.
func (c *conn) checkInit(init *wire.SASLInit) (hub.ID, error) {
	switch strings.ToUpper(string(init.Mechanism)) {
	case "MSSBCBS", "ANONYMOUS":
		return hub.ID{}, nil
	case "EXTERNAL":
		if len(c.chain) == 0 {
			return hub.ID{}, hub.ErrUnauthorizedAccess.With("EXTERNAL without a client certificate")
		}
		return hub.ID{}, nil // who it is shows by its first link
	case "PLAIN":
		if scope, id, token, ok := parseRegistrationPlain(init.InitialResponse); ok {
			c.introduce(scope, id, token)
			return hub.ID{}, nil
		}
		p, err := parsePlain(init.InitialResponse)
		if err != nil {
			return hub.ID{}, hub.ErrUnauthorizedAccess.With("PLAIN: %v", err)
		}
		return p.id, c.checkPlain(p)
	}
	return hub.ID{}, hub.ErrUnauthorizedAccess.With("there is no SASL mechanism %q", words.Clip(string(init.Mechanism)))
}

// checkPlain checks a user name and a password: a token, or the key of a policy.
func (c *conn) checkPlain(p plain) error {
	if p.policy != "" && p.hub == "" {
		caller, err := c.door.hub.AuthenticateKey(p.policy, sas.Key(p.password))
		if err != nil {
			return err
		}
		return c.claim(claim{key: "key " + strings.ToLower(p.policy), caller: caller})
	}
	cl, err := c.newClaim(p.password)
	if err != nil {
		return err
	}
	// The name is another way to say what is in the token; what counts is that.
	host := strings.ToLower(cl.host)
	if name := strings.ToLower(p.hub); host != name && !strings.HasPrefix(host, name+".") {
		return hub.ErrUnauthorizedAccess.With("PLAIN: the token is for %s, the user name for %s", words.Clip(host), words.Clip(name))
	}
	if p.policy != "" {
		if !strings.EqualFold(cl.policy, p.policy) {
			return hub.ErrUnauthorizedAccess.With("PLAIN: the token is not of policy %s", words.Clip(p.policy))
		}
	} else {
		if _, err := c.door.hub.AuthenticateLink(cl.host, p.id, p.password, nil); err != nil {
			return err
		}
		cl.id, cl.only = p.id, true
	}
	return c.claim(cl)
}

// A plain is what the response of PLAIN says.
type plain struct {
	policy   string
	id       hub.ID // of a device or module, if there is no policy
	hub      string // the first label of the hub's name; empty beside a policy's key
	password string
}

// parsePlain reads the initial response of PLAIN. User names are those of
// "Communicate with your IoT hub by using the AMQP Protocol": "policy@sas.root.hub"
// and "device@sas.hub"; "device@hub" is an older one, and clients of Event Hubs
// send the name of a policy alone.
func parsePlain(response []byte) (plain, error) {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return plain{}, errors.New("the response is not a user name and a password behind zero bytes")
	}
	user, p := string(parts[1]), plain{password: string(parts[2])}
	if user == "" || p.password == "" {
		return plain{}, errors.New("the user name or the password is empty")
	}
	at := strings.LastIndexByte(user, '@')
	if at < 0 {
		p.policy = user
		return p, nil
	}
	name, domain := user[:at], user[at+1:]
	if label, ok := cutPrefixFold(domain, "sas.root."); ok {
		p.policy, p.hub = name, label
	} else {
		label, _ := cutPrefixFold(domain, "sas.")
		p.hub = label
		a := parseAddress("/devices/" + name + "/twin")
		if p.id = a.id; a.node != nodeDeviceTwin {
			return plain{}, errors.New("the user name does not begin with a device id")
		}
	}
	if name == "" || p.hub == "" {
		return plain{}, errors.New("the user name lacks a name or a hub")
	}
	return p, nil
}

// cutPrefixFold is strings.CutPrefix in any case.
func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
