package cli

import (
	"cmp"
	"context"
	"errors"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

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
