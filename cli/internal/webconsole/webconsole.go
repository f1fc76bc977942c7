// Package webconsole serves the console of a hub to browsers: for the command "console", and for "hub run".
package webconsole

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

// DefaultAddr is where a console listens.
const DefaultAddr = "127.0.0.1:8089"

// Options say what a console is like.
type Options struct {
	ReadOnly       bool
	Hosts          []string // by which browsers may call it, besides those of the loopback interface
	Password       string
	TrustedHeader  string
	TrustedProxies []netip.Prefix
	Certificate    *tls.Certificate // nil: plain HTTP
	Logger         *slog.Logger
}

// A Server is a console that is served.
type Server struct {
	console *console.Console
	http    *http.Server
	on      net.Listener
	clients target.Clients
	scheme  string
	failed  chan error
}

// Listen opens addr, which the flag has named.
func Listen(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fail.Errorf(fail.Failed, "%s is in use, perhaps by another console; choose another address with %s, such as %s 127.0.0.1:0", addr, flag, flag)
	case errors.Is(err, os.ErrPermission):
		return nil, fail.Errorf(fail.Failed, "this user may not listen on %s; choose a port above 1023 with %s", addr, flag)
	}
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		err = operation.Err
	}
	return nil, fail.Usagef("%s %s: %v", flag, addr, err)
}

// IsLoopback reports whether nobody but this machine reaches what listens.
func IsLoopback(l net.Listener) bool {
	addr, ok := l.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// Start serves the console of a hub, until Close. The server closes the listener and the clients, also after an error.
func Start(on net.Listener, t target.Target, clients target.Clients, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := console.New(console.Options{
		Client: clients.Hub, Events: clients.Messages, Provisioning: clients.Provisioning,
		HubName: t.Host(), HostName: t.Connection.HostName, MQTTSAddr: t.MQTTSAddr, HTTPSAddr: t.HTTPSAddr,
		Policy: policyOf(t), Explain: explainer(t),
		ReadOnly: o.ReadOnly, Hosts: o.Hosts, Password: o.Password, TrustedHeader: o.TrustedHeader, TrustedProxies: o.TrustedProxies,
		Logger: o.Logger, Now: t.Now,
	})
	if err != nil {
		on.Close()
		clients.Close()
		return nil, err
	}
	s := &Server{console: c, on: on, clients: clients, scheme: "http", failed: make(chan error, 1)}
	s.http = &http.Server{
		Handler: c, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 5 * time.Minute, WriteTimeout: 10 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
	}
	if o.Certificate != nil {
		s.scheme = "https"
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*o.Certificate}}
	}
	go func() {
		var err error
		if o.Certificate != nil {
			err = s.http.ServeTLS(on, "", "")
		} else {
			err = s.http.Serve(on)
		}
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		s.failed <- err
	}()
	return s, nil
}

// policyOf names the credential of t.
func policyOf(t target.Target) string {
	if name := t.Connection.SharedAccessKeyName; name != "" {
		return "policy " + name
	}
	return "Entra ID"
}

// explainer words errors as the commands do.
func explainer(t target.Target) func(context.Context, error, hubrest.Target) error {
	return func(ctx context.Context, err error, on hubrest.Target) error {
		if _, ok := errors.AsType[*hubamqp.Error](err); ok {
			return t.ExplainAMQP(ctx, err, on)
		}
		return t.Explain(ctx, err, on)
	}
}

// URL is where a browser finds the console. The host is one of o.Hosts if there is one.
func (s *Server) URL(host string) string {
	addr := s.on.Addr().String()
	if host != "" {
		_, port, _ := net.SplitHostPort(addr)
		addr = localhub.HostWithPort(host, addr, cmp.Or(map[string]string{"http": "80", "https": "443"}[s.scheme], port))
	}
	return s.scheme + "://" + addr + "/"
}

// Link is the address with a token that lets a browser in once.
func (s *Server) Link(host string) string { return s.URL(host) + "?t=" + s.console.NewToken() }

// Failed tells when serving ends, with nil after Close.
func (s *Server) Failed() <-chan error { return s.failed }

// Close ends the console, and waits some seconds for answers that are under way.
func (s *Server) Close() {
	const grace = 3 * time.Second
	s.console.Close()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	s.clients.Close()
}

// OfferLinks prints a link each time that a person presses Enter, until ctx ends. It does nothing unless a person does:
// In is a terminal. It is not waited for: nothing but the end of the program makes reading a terminal end.
func (s *Server) OfferLinks(ctx context.Context, streams output.Streams, host string) {
	if !output.IsTerminal(streams.In) {
		return
	}
	go func() {
		for lines := bufio.NewReader(streams.In); ; {
			if _, err := lines.ReadString('\n'); err != nil || ctx.Err() != nil {
				return
			}
			io.WriteString(streams.Out, s.Link(host)+"\n")
		}
	}()
}
