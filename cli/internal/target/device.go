package target

import (
	"cmp"
	"context"
	"errors"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// Identity is the device or module that t acts as.
func (t Target) Identity() hubrest.Target {
	return hubrest.Target{DeviceID: t.Connection.DeviceID, ModuleID: t.Connection.ModuleID}
}

// DeviceOptions say how the device that t acts as connects.
func (t Target) DeviceOptions() mqttdevice.Options {
	return mqttdevice.Options{
		ConnectionString: t.Connection,
		Transport:        t.Link.Transport,
		Addr:             t.deviceAddr(),
		WebSocketAddr:    t.HTTPSAddr,
		ModelID:          t.Link.Model,
		TLS:              t.Link.config(t.TLS),
		Logger:           t.log,
		Now:              t.Now,
	}
}

// deviceAddr is what a device dials; empty: what the connection string says.
func (t Target) deviceAddr() string {
	if t.Link.Transport == mqttdevice.WebSocket {
		return t.HTTPSAddr
	}
	return t.MQTTSAddr
}

// ExplainDevice is Explain for the errors of a device client.
func (t Target) ExplainDevice(ctx context.Context, err error) error {
	if refused, ok := errors.AsType[*mqttdevice.Error](err); ok {
		return fail.Errorf(fail.Failed, "%s: %v", Noun(t.Identity()), refused)
	}
	switch {
	case errors.Is(err, mqttdevice.ErrTokenExpired):
		return fail.Errorf(fail.Unauthorized, "%v; make a new one with \"iotdm sas token\", or use the device's key", err)
	case errors.Is(err, mqttdevice.ErrCertificateExpired):
		return fail.Errorf(fail.Unauthorized, "%v; renew it, and register its thumbprint if it is self-signed", err)
	case errors.Is(err, mqttdevice.ErrUnauthorized):
		return t.explainUnauthorized(ctx, "")
	case errors.Is(err, mqttdevice.ErrBusy):
		return fail.Errorf(fail.Failed, "%s takes no connections just now: %v; try again", t.Host(), err)
	}
	if _, ok := errors.AsType[*fail.Error](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	if tooLong := command.WhyEnded(ctx); tooLong != nil {
		return tooLong
	}
	if proxy, ok := errors.AsType[*mqttdevice.ProxyError](err); ok {
		return fail.Errorf(fail.Failed, "%v; check HTTPS_PROXY, ALL_PROXY and NO_PROXY", proxy)
	}
	addr := t.dialled()
	if errors.Is(err, mqttdevice.ErrNoAnswer) {
		return fail.Errorf(fail.TimedOut, "%s: %v; %s", addr, mqttdevice.ErrNoAnswer, seeDoctor)
	}
	return t.explainNetwork(err, addr, t.Host())
}

// dialled says what a device dialled.
func (t Target) dialled() string {
	host, port := localhub.SplitPort(t.Host())
	named := func(usual string) string {
		if port != "" {
			return t.Host()
		}
		return host + " port " + usual
	}
	tcp, ws := cmp.Or(t.MQTTSAddr, named(localhub.MQTTSPort)), cmp.Or(t.HTTPSAddr, named(localhub.HTTPSPort))
	switch {
	case t.Link.Transport == mqttdevice.TCP:
		return tcp
	case t.Link.Transport == mqttdevice.WebSocket:
		return ws
	case port != "" && t.HTTPSAddr == "": // it is that of TCP
		ws = "port " + localhub.HTTPSPort
	}
	return tcp + " or " + ws
}
