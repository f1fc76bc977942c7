package hub

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/hub/node"
)

// fallbackHTTPSAddr is for users who may not listen on ports below 1024.
const fallbackHTTPSAddr = "127.0.0.1:8443"

// listen opens what the hub listens on. It reports whether HTTPS is not on the
// port that was wanted. After an error some may be open.
func (o *hubRunOptions) listen() (on node.Listeners, fellBack bool, err error) {
	if on.MQTTS, err = o.listenOn("--mqtts-addr", o.mqttsAddr); err != nil {
		return on, false, err
	}
	if o.mqttAddr != "" {
		if on.MQTT, err = o.listenOn("--mqtt-addr", o.mqttAddr); err != nil {
			return on, false, err
		}
	}
	on.HTTPS, err = net.Listen("tcp", o.httpsAddr)
	switch {
	case errors.Is(err, os.ErrPermission) && !o.httpsExplicit:
		on.HTTPS, err = o.listenOn("--https-addr", fallbackHTTPSAddr)
		return on, true, err
	case err != nil:
		return on, false, o.explainListen("--https-addr", o.httpsAddr, err)
	}
	return on, false, nil
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
