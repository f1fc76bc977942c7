package target

import (
	"context"
	"errors"
	"strings"
	"syscall"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// Messaging holds the options of a service command that speaks AMQP. It is
// embedded in the others' options.
type Messaging struct {
	Service
	transport string
}

var amqpTransports = map[string]hubamqp.Transport{"": hubamqp.Auto, "auto": hubamqp.Auto, "amqp": hubamqp.TCP, "ws": hubamqp.WebSocket}

// TransportFlag says what AMQP runs on.
func (o *Messaging) TransportFlag() urfave.Flag {
	return command.Choice{Values: []string{"auto", "amqp", "ws"}, StringFlag: &urfave.StringFlag{
		Name: "transport", Category: "Which hub", Destination: &o.transport, DefaultText: "auto",
		Usage: "`HOW` to speak AMQP: amqp (port 5671), ws (WebSocket, 443), or auto"}}
}

// Flags returns the flags that fill o.
func (o *Messaging) Flags() []urfave.Flag {
	return command.Concat(o.Service.Flags(), []urfave.Flag{o.TransportFlag()})
}

// Check refuses options that make no sense.
func (o *Messaging) Check() error {
	if _, known := amqpTransports[o.transport]; !known {
		return fail.Usagef("--transport %q is not auto, amqp or ws", o.transport)
	}
	return o.Service.Check()
}

// OpenAMQP finds the hub. The caller closes the client.
func (o *Messaging) OpenAMQP(s output.Streams) (Target, *hubamqp.Client, error) {
	t, err := o.find(s)
	if err != nil {
		return t, nil, err
	}
	client, err := o.newClient(t, hubamqp.Options{ConnectionString: t.Connection, Credential: t.entra})
	return t, client, err
}

// OpenEvents is OpenAMQP for a command that reads events: it takes the connection
// string of an event hub too, such as that of the built-in endpoint.
func (o *Messaging) OpenEvents(s output.Streams) (Target, *hubamqp.Client, error) {
	o.Hub.logRetries(s)
	if o.HubName != "" {
		return o.OpenAMQP(s)
	}
	text, source, err := o.Hub.given(s, append(ServiceVariables[:len(ServiceVariables):len(ServiceVariables)], eventsVariable))
	if err != nil || source != eventsVariable && !sas.IsEventHubConnectionString(text) {
		return o.OpenAMQP(s)
	}
	c, err := sas.ParseEventHubConnectionString(text)
	if err != nil {
		return Target{}, nil, badConnectionString(source, err)
	}
	host, port := localhub.SplitPort(c.Host)
	t, err := o.Hub.Target(sas.ConnectionString{HostName: host})
	if err != nil {
		return t, nil, err
	}
	if _, ours := localhub.SplitPort(t.AMQPSAddr); port != "" && port != ours { // it is another hub
		t.AMQPSAddr, t.HTTPSAddr, t.NoAMQPS = "", "", false
	}
	client, err := o.newClient(t, hubamqp.Options{EventHub: c})
	return t, client, err
}

// find finds the hub.
func (o *Messaging) find(s output.Streams) (Target, error) {
	o.Hub.logRetries(s)
	if o.HubName != "" {
		t, _, err := o.EntraTarget()
		return t, err
	}
	return o.Hub.service(s)
}

func (o *Messaging) newClient(t Target, opt hubamqp.Options) (*hubamqp.Client, error) {
	opt.Transport = amqpTransports[o.transport]
	if t.NoAMQPS {
		if opt.Transport == hubamqp.TCP {
			return nil, fail.Errorf(fail.NotFound, "the hub on this machine does not listen for AMQP over TLS; leave out --transport amqp, which takes WebSocket, or start the hub with --amqps-addr 127.0.0.1:%s", localhub.AMQPSPort)
		}
		opt.Transport = hubamqp.WebSocket
	}
	opt.Addr, opt.WebSocketAddr, opt.TLS, opt.Logger = t.AMQPSAddr, t.HTTPSAddr, t.TLS, t.log
	opt.Now = t.Now
	client, err := hubamqp.New(opt)
	if err != nil {
		return nil, fail.Usagef("%v", err)
	}
	return client, nil
}

// ExplainAMQP is Explain for the errors of a client over AMQP, about the identity
// on if the call has one.
func (t Target) ExplainAMQP(ctx context.Context, err error, on hubrest.Target) error {
	refusal, refused := errors.AsType[*hubamqp.Error](err)
	switch {
	case !refused:
	case errors.Is(err, hubamqp.ErrUnauthorized):
		words := refusal.Message
		if strings.Contains(words, "nauthorized") { // it says no more than that
			words = ""
		}
		return t.explainUnauthorized(ctx, words)
	case errors.Is(err, hubamqp.ErrNotFound) && on.DeviceID != "":
		return fail.Errorf(fail.NotFound, "%s does not exist on %s; see \"iotdm service device list\"", Noun(on), t.Host())
	case errors.Is(err, hubamqp.ErrNotFound):
		return fail.Errorf(fail.NotFound, "%s: not found: %s", t.Host(), refusal.Message)
	case errors.Is(err, hubamqp.ErrLimit) && on.DeviceID != "":
		return fail.Errorf(fail.Failed, "as many messages wait for %s as the hub keeps (50); wait until it is connected, or throw them away with \"iotdm service c2d purge --device %s\"", Noun(on), on.DeviceID)
	default:
		return fail.Errorf(fail.Failed, "%v", refusal)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if proxy, ok := errors.AsType[*hubamqp.ProxyError](err); ok {
		return fail.Errorf(fail.Failed, "%v; check HTTPS_PROXY, ALL_PROXY and NO_PROXY", proxy)
	}
	if tooLong := command.WhyEnded(ctx); tooLong != nil {
		return tooLong
	}
	switch {
	case errors.Is(err, hubamqp.ErrNoAnswer):
		return fail.Errorf(fail.TimedOut, "%s: %v; %s", t.Host(), hubamqp.ErrNoAnswer, seeDoctor)
	case errors.Is(err, hubamqp.ErrConnectionLost):
		return fail.Errorf(fail.Failed, "%v; %s", err, seeDoctor)
	case errors.Is(err, syscall.ECONNREFUSED) && !t.Local:
		return fail.Errorf(fail.Failed, "%v; is the hub running, and may this machine reach it? %s", err, seeDoctor)
	}
	return t.Explain(ctx, err, on)
}
