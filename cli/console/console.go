// Package console has the command "iotdm console".
package console

import (
	"context"
	"crypto/tls"
	"html"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/logs"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/cli/internal/webconsole"
)

type consoleOptions struct {
	target.Messaging
	addr              string
	hosts             urfave.StringSlice
	open, readOnly    bool
	certFile, keyFile string
	passwordFile      string
	header            string
	proxies           urfave.StringSlice
	log               logs.Options

	serve webconsole.Options // of the above
}

// Command returns the command "console".
func Command(s output.Streams) *urfave.Command {
	var o consoleOptions
	return command.Leaf(&urfave.Command{
		Name:  "console",
		Usage: "operate a hub in a browser, Azure IoT Hub too",
		Description: "Serves pages for devices, events, queries, jobs and the rest, until Ctrl-C, and prints a link that\n" +
			"lets one browser in, once; on a terminal the Enter key prints another one. The hub's key stays in\n" +
			"this program. What the credential may not do, the pages leave out.\n\n" +
			"It listens for this machine alone. Any other --addr needs a certificate, and a password or a proxy\n" +
			"that says who the user is. For example:\n" +
			"   iotdm console\n" +
			"   iotdm console --read-only --addr 127.0.0.1:0 --open\n" +
			"   iotdm console --addr 0.0.0.0:8443 --host console.example.com --tls-cert cert.pem --tls-key key.pem \\\n" +
			"      --password-file password",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "addr", Destination: &o.addr, Value: webconsole.DefaultAddr, EnvVars: []string{"IOTDM_CONSOLE_ADDR"},
				Usage: "listen on `HOST:PORT`; port 0 is any"},
			&urfave.BoolFlag{Name: "open", Destination: &o.open, DisableDefaultText: true, Usage: "open the browser"},
			&urfave.BoolFlag{Name: "read-only", Destination: &o.readOnly, DisableDefaultText: true, EnvVars: []string{"IOTDM_CONSOLE_READ_ONLY"},
				Usage: "change nothing on the hub"},
			&urfave.StringSliceFlag{Name: "host", Destination: &o.hosts, EnvVars: []string{"IOTDM_CONSOLE_HOST"},
				Usage: "a `NAME` by which browsers call the console, repeatable"},
			&urfave.StringFlag{Name: "tls-cert", Destination: &o.certFile, EnvVars: []string{"IOTDM_CONSOLE_TLS_CERT"}, Usage: "serve HTTPS, with the certificate in `FILE` (PEM)"},
			&urfave.StringFlag{Name: "tls-key", Destination: &o.keyFile, EnvVars: []string{"IOTDM_CONSOLE_TLS_KEY"}, Usage: "the key of the certificate, in `FILE` (PEM)"},
			&urfave.StringFlag{Name: "password-file", Destination: &o.passwordFile, EnvVars: []string{"IOTDM_CONSOLE_PASSWORD_FILE"},
				Usage: "let in who knows the password in `FILE`"},
			&urfave.StringFlag{Name: "trusted-header", Destination: &o.header, EnvVars: []string{"IOTDM_CONSOLE_TRUSTED_HEADER"},
				Usage: "let in whom a proxy in front names in the header `NAME`"},
			&urfave.StringSliceFlag{Name: "trusted-proxy", Destination: &o.proxies, EnvVars: []string{"IOTDM_CONSOLE_TRUSTED_PROXY"},
				Usage: "the `ADDRESS` of such a proxy, or a network such as 10.0.0.0/8, repeatable"},
		}, o.HubFlags(), []urfave.Flag{o.TransportFlag(), o.log.Flag("IOTDM_CONSOLE_LOG_FORMAT")}),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.Check(), o.log.Check(), o.complete(s)); err != nil {
				return err
			}
			return run(ctx.Context, s, o)
		},
	})
}

// minPassword is the least length of a password.
const minPassword = 8

// complete reads the files that the flags name.
func (o *consoleOptions) complete(s output.Streams) error {
	o.serve = webconsole.Options{ReadOnly: o.readOnly, Hosts: o.hosts.Value(), TrustedHeader: o.header}
	if (o.certFile == "") != (o.keyFile == "") {
		return fail.Usagef("--tls-cert and --tls-key belong together; give both")
	}
	if o.certFile != "" {
		pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return fail.Usagef("--tls-cert, --tls-key: %v", fail.PlainPathError(err))
		}
		o.serve.Certificate = &pair
	}
	if o.passwordFile != "" {
		text, err := command.ReadValue(s, "--password-file", "@"+o.passwordFile)
		if err != nil {
			return err
		}
		if len(text) < minPassword {
			return fail.Usagef("--password-file: the password has less than %d characters; take a longer one", minPassword)
		}
		o.serve.Password = text
	}
	for _, host := range o.hosts.Value() {
		if name, _, err := net.SplitHostPort(host); err == nil {
			return fail.Usagef("--host %s: give the name without a port: %s", host, name)
		}
	}
	for _, text := range o.proxies.Value() {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return fail.Usagef("--trusted-proxy %q is neither an address nor a network such as 10.0.0.0/8", text)
		}
		o.serve.TrustedProxies = append(o.serve.TrustedProxies, prefix)
	}
	if (o.header == "") != (len(o.serve.TrustedProxies) == 0) {
		return fail.Usagef("--trusted-header and --trusted-proxy belong together: the header counts only if it comes from the proxy")
	}
	return nil
}

// checkReach refuses to serve more than this machine without what that takes.
func (o *consoleOptions) checkReach(on net.Listener) error {
	switch {
	case webconsole.IsLoopback(on):
		return nil
	case o.serve.Certificate == nil:
		return fail.Usagef("--addr %s: other machines reach it, which needs --tls-cert and --tls-key; or listen on 127.0.0.1", o.addr)
	case o.serve.Password == "" && o.serve.TrustedHeader == "":
		return fail.Usagef("--addr %s: other machines reach it, which needs --password-file, or --trusted-header; or listen on 127.0.0.1", o.addr)
	case len(o.serve.Hosts) == 0:
		return fail.Usagef("--addr %s: name the host by which browsers call the console with --host", o.addr)
	}
	return nil
}

func run(ctx context.Context, s output.Streams, o consoleOptions) error {
	on, err := webconsole.Listen("--addr", o.addr)
	if err != nil {
		return err
	}
	if err := o.checkReach(on); err != nil {
		on.Close()
		return err
	}
	t, clients, err := o.OpenAll(s)
	if err != nil {
		on.Close()
		return err
	}
	o.serve.Logger = slog.New(o.log.Handler(s, slog.LevelInfo))
	s = o.log.Streams(s)
	server, err := webconsole.Start(on, t, clients, o.serve)
	if err != nil {
		return fail.Errorf(fail.Failed, "%v", err)
	}
	defer server.Close()
	host := ""
	if len(o.serve.Hosts) > 0 {
		host = o.serve.Hosts[0]
	}
	link := server.URL(host)
	if o.serve.Password == "" && o.serve.TrustedHeader == "" {
		link = server.Link(host)
	}
	s.Note("The console of %s is at the link below, until Ctrl-C.", t.Host())
	s.Print("%s", link)
	server.OfferLinks(ctx, s, host)
	if o.open {
		if remove, err := openBrowser(ctx, link); err != nil {
			s.Note("The browser does not open: %v; open the link yourself.", err)
		} else {
			defer remove()
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Failed():
		return fail.Errorf(fail.Failed, "serve the console: %v", err)
	}
}

// openBrowser has the system show a link, by a page of its own: a command line is no place for a token.
func openBrowser(ctx context.Context, link string) (remove func(), err error) {
	dir, err := os.MkdirTemp("", "iotdm-console-")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	page := filepath.Join(dir, "open.html")
	text := "<!DOCTYPE html><meta charset=utf-8><meta http-equiv=refresh content=\"0;url=" + html.EscapeString(link) + "\"><title>iotdm</title>\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		remove()
		return nil, err
	}
	name, args := "xdg-open", []string{page}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", page}
	}
	if err := exec.CommandContext(ctx, name, args...).Start(); err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}
