package hub

import (
	"log/slog"
	"net"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/cli/internal/webconsole"
)

// listenForBrowsers opens what the hub's own console listens on, which is for this machine alone.
func (o *hubRunOptions) listenForBrowsers() (net.Listener, error) {
	l, err := webconsole.Listen("--console-addr", o.consoleAddr)
	if err == nil && !webconsole.IsLoopback(l) {
		l.Close()
		return nil, fail.Usagef("--console-addr %s: other machines reach it; listen on 127.0.0.1, or serve them with \"iotdm console\", which has TLS and passwords", o.consoleAddr)
	}
	return l, err
}

// serveConsole starts the console of the hub whose data folder is dir, and which has published where it listens. It is a
// client of the hub as one of another process would be.
func (o *hubRunOptions) serveConsole(s output.Streams, on net.Listener, dir string, log *slog.Logger) (*webconsole.Server, error) {
	var hub target.Messaging
	hub.Hub.Data, hub.Hub.Log = dir, log
	t, clients, err := hub.OpenLocal(s)
	if err != nil {
		on.Close()
		return nil, err
	}
	server, err := webconsole.Start(on, t, clients, webconsole.Options{Logger: log})
	if err != nil {
		return nil, fail.Errorf(fail.Failed, "%v", err)
	}
	return server, nil
}

// consoleNotes tell where the console is. A link that lets a browser in is for a person alone: what a service prints is kept
// in a log.
func consoleNotes(s output.Streams, pages *webconsole.Server) []string {
	if !output.IsTerminal(s.Out) {
		return []string{"The console is at " + pages.URL("") + " for who has a link; \"iotdm console\" is another one, and prints one."}
	}
	return []string{"The console is at " + pages.Link(""), "which lets one browser in, once; the Enter key prints another link."}
}
