package cli

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

func deviceCommands(s streams) *urfave.Command {
	return group("device", "be a device: answer methods, report properties, send telemetry",
		deviceRunCommand(s),
		group("twin", "the device's own view of its twin", deviceTwinGetCommand(s), deviceTwinReportCommand(s), deviceTwinWatchCommand(s)),
		deviceSendCommand(s),
	)
}

// actAsOptions are what every device command has: which hub, and which device
// of it to be.
type actAsOptions struct {
	hub    hubOptions
	device string
	module string
	link   linkOptions
}

func (o *actAsOptions) flags() []urfave.Flag {
	return concat([]urfave.Flag{
		deviceFlag(&o.device, "be the device `ID`"),
		moduleFlag(&o.module, "be the module `ID` of the device"),
	}, o.link.flags(), o.hub.flags())
}

// find finds the hub and the credential of the device, which may connect. The
// choice is completed by the flags.
func (o *actAsOptions) find(ctx context.Context, s streams, choice deviceChoice) (target, error) {
	link, err := o.link.link()
	if err != nil {
		return target{}, err
	}
	choice.device, choice.module, choice.link = o.device, o.module, link
	t, err := o.hub.device(ctx, s, choice)
	if err == nil && t.disabled {
		err = failf(statusUnauthorized, "device %q is disabled on %s; enable it with \"iotdm service device enable --device %s\"",
			t.connection.DeviceID, t.host(), t.connection.DeviceID)
	}
	return t, err
}

// identity is the device or module that t acts as.
func (t target) identity() hubrest.Target {
	return hubrest.Target{DeviceID: t.connection.DeviceID, ModuleID: t.connection.ModuleID}
}

// deviceOptions say how the device that t acts as connects.
func (t target) deviceOptions() mqttdevice.Options {
	return mqttdevice.Options{
		ConnectionString: t.connection,
		Transport:        t.link.transport,
		Addr:             t.deviceAddr(),
		WebSocketAddr:    t.httpsAddr,
		ModelID:          t.link.model,
		TLS:              t.link.config(t.tls),
		Logger:           t.log,
	}
}

// deviceAddr is what a device dials; empty: what the connection string says.
func (t target) deviceAddr() string {
	if t.link.transport == mqttdevice.WebSocket {
		return t.httpsAddr
	}
	return t.mqttsAddr
}

// onceTimeout bounds what a command that connects, does one thing and ends
// waits for.
const onceTimeout = 30 * time.Second

// onceHelp is for the help of those commands.
const onceHelp = "A device has one connection: this ends that of an agent, which then connects again. For example:\n"

// connectOnce finds the hub and connects, for a command that does one thing.
// Unlike the agent it does not try again: the user is waiting.
func (o *actAsOptions) connectOnce(ctx context.Context, s streams) (target, *mqttdevice.Client, error) {
	t, err := o.find(ctx, s, deviceChoice{})
	if err != nil {
		return t, nil, err
	}
	client, err := t.connectOnce(ctx, s)
	return t, client, err
}

func (t target) connectOnce(parent context.Context, s streams) (*mqttdevice.Client, error) {
	ctx, cancel := context.WithTimeout(parent, onceTimeout)
	defer cancel()
	var mu sync.Mutex
	var reason error
	opt := t.deviceOptions()
	opt.OnState = func(state mqttdevice.State) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case state.Status == mqttdevice.Disconnected && reason == nil:
			reason = state.Reason
			cancel()
		case state.Status == mqttdevice.Connected && state.Reason != nil:
			s.note("TCP is blocked (%v); connected over WebSocket", state.Reason)
		}
	}
	client, err := mqttdevice.New(opt)
	if err != nil {
		return nil, err
	}
	if err = client.Connect(ctx); err == nil {
		return client, nil
	}
	client.Close()
	if parent.Err() != nil {
		return nil, parent.Err()
	}
	mu.Lock()
	defer mu.Unlock()
	if reason != nil {
		err = reason
	}
	return nil, t.explainDevice(parent, err)
}

// explainDevice is explain for the errors of a device client.
func (t target) explainDevice(ctx context.Context, err error) error {
	if refused, ok := errors.AsType[*mqttdevice.Error](err); ok {
		return failf(statusFailed, "%s: %v", noun(t.identity()), refused)
	}
	switch {
	case errors.Is(err, mqttdevice.ErrTokenExpired):
		return failf(statusUnauthorized, "%v; make a new one with \"iotdm sas token\", or use the device's key", err)
	case errors.Is(err, mqttdevice.ErrCertificateExpired):
		return failf(statusUnauthorized, "%v; renew it, and register its thumbprint if it is self-signed", err)
	case errors.Is(err, mqttdevice.ErrUnauthorized):
		return t.explainUnauthorized(ctx, "")
	case errors.Is(err, mqttdevice.ErrBusy):
		return failf(statusFailed, "%s takes no connections just now: %v; try again", t.host(), err)
	}
	if _, ok := errors.AsType[*failure](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	if tooLong := whyEnded(ctx); tooLong != nil {
		return tooLong
	}
	if proxy, ok := errors.AsType[*mqttdevice.ProxyError](err); ok {
		return failf(statusFailed, "%v; check HTTPS_PROXY, ALL_PROXY and NO_PROXY", proxy)
	}
	addr := t.dialled()
	if errors.Is(err, mqttdevice.ErrNoAnswer) {
		return failf(statusTimeout, "%s: %v; %s", addr, mqttdevice.ErrNoAnswer, seeDoctor)
	}
	return t.explainNetwork(err, addr, t.host())
}

// dialled says what a device dialled.
func (t target) dialled() string {
	host, port := splitPort(t.host())
	named := func(usual string) string {
		if port != "" {
			return t.host()
		}
		return host + " port " + usual
	}
	tcp, ws := cmp.Or(t.mqttsAddr, named(mqttsPort)), cmp.Or(t.httpsAddr, named(httpsPort))
	switch {
	case t.link.transport == mqttdevice.TCP:
		return tcp
	case t.link.transport == mqttdevice.WebSocket:
		return ws
	case port != "" && t.httpsAddr == "": // it is that of TCP
		ws = "port " + httpsPort
	}
	return tcp + " or " + ws
}
