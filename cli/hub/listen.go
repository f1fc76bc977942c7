package hub

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/hub"
)

// fallbackHTTPSAddr is for users who may not listen on ports below 1024.
const fallbackHTTPSAddr = "127.0.0.1:8443"

// Listeners are where a hub listens. plain is nil without --mqtt-addr.
type Listeners struct {
	MQTTS, HTTPS, plain net.Listener
	fellBack            bool // https is not on the port that was wanted
}

// Close closes the listeners that there are.
func (l *Listeners) Close() {
	for _, l := range []net.Listener{l.MQTTS, l.HTTPS, l.plain} {
		if l != nil {
			l.Close()
		}
	}
}

// Serve starts the hub's listeners. The channel delivers if one of them fails.
func Serve(server *hub.Server, on Listeners) <-chan error {
	failed := make(chan error, 3)
	serve := func(serve func(net.Listener) error, l net.Listener) {
		if err := serve(l); !errors.Is(err, hub.ErrClosed) {
			failed <- err
		}
	}
	go serve(server.ServeMQTTS, on.MQTTS)
	go serve(server.ServeHTTPS, on.HTTPS)
	if on.plain != nil {
		go serve(server.ServeMQTT, on.plain)
	}
	return failed
}

func (o *hubRunOptions) listen(on *Listeners) (err error) {
	if on.MQTTS, err = o.listenOn("--mqtts-addr", o.mqttsAddr); err != nil {
		return err
	}
	if o.mqttAddr != "" {
		if on.plain, err = o.listenOn("--mqtt-addr", o.mqttAddr); err != nil {
			return err
		}
	}
	on.HTTPS, err = net.Listen("tcp", o.httpsAddr)
	if errors.Is(err, os.ErrPermission) && !o.httpsExplicit {
		on.fellBack = true
		on.HTTPS, err = o.listenOn("--https-addr", fallbackHTTPSAddr)
		return err
	}
	if err != nil {
		return o.explainListen("--https-addr", o.httpsAddr, err)
	}
	return nil
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
