package cli

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/iotdm/iotdm/hub"
)

// fallbackHTTPSAddr is for users who may not listen on ports below 1024.
const fallbackHTTPSAddr = "127.0.0.1:8443"

// hubListeners are where a hub listens. plain is nil without --mqtt-addr.
type hubListeners struct {
	mqtts, https, plain net.Listener
	fellBack            bool // https is not on the port that was wanted
}

func (l *hubListeners) close() {
	for _, l := range []net.Listener{l.mqtts, l.https, l.plain} {
		if l != nil {
			l.Close()
		}
	}
}

// serveHub starts the hub's listeners. The channel delivers if one of them fails.
func serveHub(server *hub.Server, on hubListeners) <-chan error {
	failed := make(chan error, 3)
	serve := func(serve func(net.Listener) error, l net.Listener) {
		if err := serve(l); !errors.Is(err, hub.ErrClosed) {
			failed <- err
		}
	}
	go serve(server.ServeMQTTS, on.mqtts)
	go serve(server.ServeHTTPS, on.https)
	if on.plain != nil {
		go serve(server.ServeMQTT, on.plain)
	}
	return failed
}

func (o *hubRunOptions) listen(on *hubListeners) (err error) {
	if on.mqtts, err = o.listenOn("--mqtts-addr", o.mqttsAddr); err != nil {
		return err
	}
	if o.mqttAddr != "" {
		if on.plain, err = o.listenOn("--mqtt-addr", o.mqttAddr); err != nil {
			return err
		}
	}
	on.https, err = net.Listen("tcp", o.httpsAddr)
	if errors.Is(err, os.ErrPermission) && !o.httpsExplicit {
		on.fellBack = true
		on.https, err = o.listenOn("--https-addr", fallbackHTTPSAddr)
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
		if info, err := readRunningHub(o.data); err == nil {
			return failf(statusFailed, "%s is in use; the hub with the data folder %s runs already, as process %d, see \"iotdm hub status\"", addr, filepath.Dir(info.CAFile), info.PID)
		}
		return failf(statusFailed, "%s is in use by another program; end it, or choose another address with %s", addr, flag)
	case errors.Is(err, os.ErrPermission):
		return failf(statusFailed, "this user may not listen on %s; choose a port above 1023 with %s, or see \"iotdm hub run --help\"", addr, flag)
	}
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		err = operation.Err
	}
	return usagef("%s %s: %v", flag, addr, err)
}
