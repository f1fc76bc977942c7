package hub

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/hub/node"
)

const (
	// fallbackHTTPSAddr is for users who may not listen on ports below 1024.
	fallbackHTTPSAddr = "127.0.0.1:8443"

	// anyPort is for AMQP of users who have a message broker on its port, or
	// another hub with ports of its own.
	anyPort = "0"
)

// listen opens what the hub listens on. Notes tell of ports that SDKs have built
// in and that it did not get. After an error some may be open.
func (o *hubRunOptions) listen() (on node.Listeners, notes []string, err error) {
	if on.MQTTS, err = o.listenOn("--mqtts-addr", o.mqttsAddr); err != nil {
		return on, nil, err
	}
	if o.mqttAddr != "" {
		if on.MQTT, err = o.listenOn("--mqtt-addr", o.mqttAddr); err != nil {
			return on, nil, err
		}
	}
	if o.amqpAddr != "" {
		if on.AMQP, err = o.listenOn("--amqp-addr", o.amqpAddr); err != nil {
			return on, nil, err
		}
	}
	on.HTTPS, err = net.Listen("tcp", o.httpsAddr)
	switch {
	case errors.Is(err, os.ErrPermission) && !o.httpsExplicit:
		notes = append(notes, "This user may not listen on port 443, which SDKs have built in. To allow it,", "see \"iotdm hub run --help\".")
		on.HTTPS, err = o.listenOn("--https-addr", fallbackHTTPSAddr)
	case err != nil:
		err = o.explainListen("--https-addr", o.httpsAddr, err)
	}
	if err != nil || o.amqpsAddr == "" {
		return on, notes, err
	}
	if host := sameLoopback(o.mqttsAddr, o.httpsAddr); host != "" && !o.amqpsExplicit {
		o.amqpsAddr = net.JoinHostPort(host, localhub.AMQPSPort)
	}
	on.AMQPS, err = net.Listen("tcp", o.amqpsAddr)
	switch {
	case err != nil && !o.amqpsExplicit:
		notes = append(notes, "Another program has port "+localhub.AMQPSPort+", which SDKs have built in for AMQP. For them, end it and", "start the hub again.")
		host, _, _ := net.SplitHostPort(o.amqpsAddr)
		on.AMQPS, err = o.listenOn("--amqps-addr", net.JoinHostPort(host, anyPort))
	case err != nil:
		err = o.explainListen("--amqps-addr", o.amqpsAddr, err)
	}
	return on, notes, err
}

// sameLoopback returns the loopback address that both are on, if they are: the
// hub has it to itself then, and AMQP belongs there too.
func sameLoopback(mqtts, https string) string {
	host, _, err := net.SplitHostPort(mqtts)
	other, _, otherErr := net.SplitHostPort(https)
	if ip, ipErr := netip.ParseAddr(host); errors.Join(err, otherErr, ipErr) != nil || host != other || !ip.IsLoopback() {
		return ""
	}
	return host
}

func (o *hubRunOptions) listenOn(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, o.explainListen(flag, addr, err)
	}
	return l, nil
}

func (o *hubRunOptions) explainListen(flag, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		if info, err := localhub.ReadRunning(o.data); err == nil {
			return fail.Errorf(fail.Failed, "%s is in use; the hub with the data folder %s runs already, as process %d, see \"iotdm hub status\"", addr, filepath.Dir(info.CAFile), info.PID)
		}
		return fail.Errorf(fail.Failed, "%s is in use by another program; end it, or choose another address with %s", addr, flag)
	case errors.Is(err, os.ErrPermission):
		return fail.Errorf(fail.Failed, "this user may not listen on %s; choose a port above 1023 with %s, or see \"iotdm hub run --help\"", addr, flag)
	}
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		err = operation.Err
	}
	return fail.Usagef("%s %s: %v", flag, addr, err)
}
