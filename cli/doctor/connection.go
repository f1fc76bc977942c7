package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/mqttdevice"
)

// recent is how long ago a connection may have been made that calls for a
// second look.
const recent = time.Minute

// pollInterval is the time between two looks at the registry.
const pollInterval = 250 * time.Millisecond

// rivalRemedy is for two programs that connect as one device.
const rivalRemedy = "find the other program and give it an identity of its own: a device, or a module, has one connection"

// checkConnection looks for a second program that connects as the device. Each
// throws the other out.
func (x *examination) checkConnection(ctx context.Context) Check {
	switch {
	case x.Device.DeviceID == "":
		return skipped(CheckConnection, "no device is named; name one with --device")
	case x.Connect && x.isDevice():
		return x.stay(ctx)
	case x.identity == nil:
		return skipped(CheckConnection, "not looked for"+x.connectHint())
	case x.identity.err != nil:
		return skipped(CheckConnection, "the registry does not tell")
	}
	now := x.signing().Add(-x.hubTime.off)
	if x.identity.changed.IsZero() {
		return x.away(now, target.Noun(x.Device)+" never connected")
	}
	since := now.Sub(x.identity.changed).Round(time.Second)
	if !x.identity.connected {
		return x.away(now, fmt.Sprintf("%s has not been connected for %s", target.Noun(x.Device), span(since)))
	}
	if since > max(recent, 2*x.Stay) {
		return ok(CheckConnection, fmt.Sprintf("%s has been connected for %s", target.Noun(x.Device), span(since)))
	}
	return x.watch(ctx)
}

// away judges a device that is not connected by what the hub tells of it: one
// that tried since and was refused wants to be.
func (x *examination) away(now time.Time, detail string) Check {
	i := x.identity
	if i.disconnect != nil {
		detail += ": " + i.disconnect.Detail
	}
	if r := i.refusal; r != nil && r.Time.After(i.changed) {
		ago := now.Sub(r.Time.Time).Round(time.Second)
		return warning(CheckConnection, fmt.Sprintf("%s; the hub refused it %s ago, over %s from %s: %s", detail, span(max(ago, 0)), r.Door, r.Remote, r.Detail),
			"mend that where the device runs")
	}
	return ok(CheckConnection, detail)
}

// watch counts, in the registry, how often the device's connection changes. A
// device that loses its connection connects again once; two that throw each
// other out go on and on.
func (x *examination) watch(ctx context.Context) Check {
	client, err := x.service(x.Registry, func() time.Time { return x.signing().Add(-x.hubTime.off) })
	if err != nil {
		return skipped(CheckConnection, err.Error())
	}
	defer client.Close()
	began := time.Now()
	end := time.After(x.Stay)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for last, changes, over := x.identity, 0, false; ; {
		select {
		case <-ctx.Done():
			return skipped(CheckConnection, "interrupted")
		case <-end:
			over = true
		case <-tick.C:
		}
		if now := x.read(ctx, client); now.err == nil && !now.changed.Equal(last.changed) {
			last = now
			changes++
		}
		switch {
		case changes == 2:
			return failed(CheckConnection, fmt.Sprintf("%s connected anew twice within %v: it looks as if two programs connect with this id and throw each other out",
				target.Noun(x.Device), time.Since(began).Round(time.Second/10)), rivalRemedy)
		case over && changes == 0:
			return ok(CheckConnection, fmt.Sprintf("the connection of %s did not change for %v", target.Noun(x.Device), x.Stay))
		case over && !last.connected:
			return ok(CheckConnection, target.Noun(x.Device)+" has just disconnected")
		case over:
			return warning(CheckConnection, fmt.Sprintf("%s connected anew within %v: after a network failure, with a new token, or because of another program with this id", target.Noun(x.Device), x.Stay),
				"look again with --stay 2m: two programs throw each other out again and again")
		}
	}
}

// stay connects as the device and looks whether it is thrown out.
func (x *examination) stay(ctx context.Context) Check {
	d, transport, addr := &x.mqtt, mqttdevice.TCP, x.MQTTSAddr
	if x.WebSocket || d.tcpErr != nil {
		d, transport, addr = &x.https, mqttdevice.WebSocket, x.HTTPSAddr
	}
	if d.tcpErr != nil || d.tlsErr != nil {
		return skipped(CheckConnection, "the hub is not reached")
	}
	lost := make(chan error, 1)
	config := &tls.Config{RootCAs: x.Roots, MinVersion: tls.VersionTLS12}
	if x.Certificate != nil {
		config.Certificates = []tls.Certificate{*x.Certificate}
	}
	opt := mqttdevice.Options{
		ConnectionString: x.Connection, Addr: addr, Transport: transport, TLS: config, Logger: x.Logger, Now: x.signing, TokenLife: time.Hour + x.Stay,
		OnState: func(s mqttdevice.State) {
			if s.Status == mqttdevice.Disconnected {
				select {
				case lost <- s.Reason:
				default:
				}
			}
		},
	}
	client, err := mqttdevice.New(opt)
	if err != nil {
		return failed(CheckConnection, err.Error(), "check the connection string")
	}
	defer client.Close()
	// Connect tries again after what may pass; here the first reason counts.
	connecting, cancel := context.WithTimeout(ctx, 2*x.Timeout)
	defer cancel()
	connected := make(chan error, 1)
	go func() { connected <- client.Connect(connecting) }()
	select {
	case err = <-connected:
	case err = <-lost:
		cancel()
		<-connected
	}
	if err != nil {
		if errors.Is(err, mqttdevice.ErrUnauthorized) {
			return x.refused(CheckConnection)
		}
		c := failed(CheckConnection, "connecting over MQTT: "+plainError(err), "see the checks above; else try again")
		c.TimedOut = isTimeout(err)
		return c
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return skipped(CheckConnection, "interrupted")
	case <-lost:
		return failed(CheckConnection, fmt.Sprintf("the hub accepted %s and ended the connection after %v: another program has connected with this id",
			target.Noun(x.Device), time.Since(began).Round(time.Second/10)), "if the device's own agent runs, it did, and all is well; else "+rivalRemedy)
	case <-time.After(x.Stay):
	}
	return ok(CheckConnection, fmt.Sprintf("the hub accepted %s, and nobody else connected with its id for %v", target.Noun(x.Device), x.Stay))
}
