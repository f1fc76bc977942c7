package hubamqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/internal/dial"
	"github.com/iotdm/iotdm/sas"
)

// An endpoint is one that is compatible with Event Hubs: where the events of an IoT hub are.
type endpoint struct {
	sas.EventHubConnectionString
	signature sas.Secret // a ready-made token, in place of policy and key
}

// audience is what a token for e has to cover.
func (e endpoint) audience() string {
	host, _ := splitPort(e.Host)
	return "sb://" + strings.ToLower(host) + "/" + e.EntityPath
}

// eventHub finds where the events are: where the hub redirects who would read them from it.
func (c *Client) eventHub(ctx context.Context, ways *dial.Dialer) (endpoint, error) {
	if c.opt.EventHub.Host != "" {
		return endpoint{EventHubConnectionString: c.opt.EventHub}, nil
	}
	conn, err := c.open(ctx, c.hubEnd(ways))
	if err != nil {
		return endpoint{}, err
	}
	defer conn.close()
	session, err := conn.amqp.NewSession(ctx, nil)
	if err == nil {
		_, err = session.NewReceiver(ctx, "messages/events/", nil)
	}
	if err == nil {
		return endpoint{}, errors.New("the hub does not say where its events are: it took a reader instead of redirecting it")
	}
	refusal, ok := errors.AsType[*amqp.Error](err)
	if !ok || over(ctx) || refusal.Condition != amqp.ErrCondLinkRedirect {
		return endpoint{}, wireError(ctx, err)
	}
	e, err := redirected(refusal.Info)
	if err != nil {
		return endpoint{}, err
	}
	c.log.Debug("redirected to the events", keyHost, e.Host, keyName, e.EntityPath)
	cs := c.opt.ConnectionString
	switch {
	case c.opt.Credential != nil:
	case cs.SharedAccessSignature != "":
		e.signature = cs.SharedAccessSignature
		if host, _ := splitPort(e.Host); !strings.EqualFold(host, c.host) {
			return endpoint{}, fmt.Errorf("the events are at %s, for which a token of %s is no good; give the key of a policy", host, c.host)
		}
	default:
		e.SharedAccessKeyName, e.SharedAccessKey = cs.SharedAccessKeyName, cs.SharedAccessKey
	}
	return e, nil
}

// redirected reads where a redirect leads: the address, amqps://HOST:PORT/NAME/, and the host name beside it.
func redirected(info map[string]any) (endpoint, error) {
	text := func(name string) string {
		s, _ := info[name].(string)
		return s
	}
	_, rest, ok := strings.Cut(text("address"), "://")
	host, name, more := strings.Cut(rest, "/")
	name, _, _ = strings.Cut(name, "/")
	if h := text("hostname"); h != "" {
		host = h
	}
	host, port := splitPort(host)
	if !ok || !more || host == "" || name == "" {
		return endpoint{}, errors.New("the hub redirects to its events, but does not say where they are")
	}
	if n, ok := info["port"].(int32); ok && port == "" && strconv.Itoa(int(n)) != amqpsPort {
		host = net.JoinHostPort(host, strconv.Itoa(int(n)))
	}
	var e endpoint
	e.Host, e.EntityPath = host, name
	return e, nil
}

// eventHubWays returns what makes streams to e. One that is the hub itself is reached as the hub is.
func (c *Client) eventHubWays(e endpoint) *dial.Dialer {
	host, port := splitPort(e.Host)
	if e.UseDevelopmentEmulator {
		return &dial.Dialer{Log: c.log, Routes: []dial.Route{{Addr: net.JoinHostPort(host, cmp.Or(port, emulatorPort))}}}
	}
	if strings.EqualFold(host, c.host) {
		return c.dialer(eventHubPath)
	}
	given, givenWS := "", ""
	if c.host == "" {
		given, givenWS = c.opt.Addr, c.opt.WebSocketAddr
	}
	return c.dialerAt(net.JoinHostPort(host, cmp.Or(port, amqpsPort)), net.JoinHostPort(host, httpsPort), eventHubPath, given, givenWS)
}
