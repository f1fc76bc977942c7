// Package natsconn is the way from a node of a hub to NATS: the connection, what
// the streams there have to be like, and errors that say what to do.
package natsconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/iotdm/iotdm/internal/wait"
)

// Options say where NATS is, and as whom to go there.
type Options struct {
	// URL is the address of a server, or of several with commas between them, such
	// as nats://nats-1:4222,nats://nats-2:4222. It has no password.
	URL string

	// Credentials is a file: the .creds of NATS, an nkey seed, or a line
	// user:password. Only servers of this machine may be used without one.
	Credentials string

	// CA is a PEM file with the CAs of the servers' certificates. Empty are those of
	// the system. With servers of other machines TLS is used in any case.
	CA string

	// Insecure allows servers of other machines without TLS: whoever is on the way sees
	// the hub's keys. It is for networks that nobody else is on.
	Insecure bool

	// Flags are those of a command of iotdm that goes there, for what errors say to do.
	// Empty is --cluster with URL.
	Flags string

	// Name is what NATS calls the connection in its lists.
	Name string

	Logger *slog.Logger // nil discards
}

// Errors of Connect, besides those of options that cannot be used.
var (
	ErrUnreachable  = errors.New("NATS cannot be reached")
	ErrUnauthorized = errors.New("NATS refuses the credentials")
)

// minVersion is the oldest server whose clusters keep what they acknowledged while
// servers come and go.
var minVersion = [3]int{2, 12, 3}

// minPayload is what a message must be able to hold: a group of changes with its
// headers.
const minPayload = 1 << 20

// A Conn is a connection to NATS that makes itself anew for as long as it is open.
type Conn struct {
	*nats.Conn
	JetStream jetstream.JetStream

	url       string
	flags     string                // see Options
	alone     bool                  // the server is in no cluster
	violation atomic.Pointer[error] // what the user was last found not to be allowed
}

// Connect goes to NATS, which it tries again until ctx ends, unless that is of no
// use.
func Connect(ctx context.Context, opt Options) (*Conn, error) {
	log := cmp.Or(opt.Logger, slog.New(slog.DiscardHandler))
	c := &Conn{url: opt.URL, flags: cmp.Or(opt.Flags, "--cluster "+opt.URL)}
	options, err := c.options(opt, log)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		c.Conn, err = nats.Connect(opt.URL, options...)
		if err == nil {
			break
		}
		if err = explainConnect(opt, err); !errors.Is(err, ErrUnreachable) {
			return nil, err
		}
		if !told {
			log.Warn("waiting for NATS", "url", opt.URL, "err", err)
		}
		if wait.For(ctx, 500*time.Millisecond) != nil {
			return nil, err
		}
	}
	c.alone = c.IsConnected() && c.ConnectedClusterName() == ""
	c.JetStream, err = jetstream.New(c.Conn, jetstream.WithDefaultTimeout(3*time.Second))
	if err == nil {
		err = c.check()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// URL is the address that was connected to, for messages.
func (c *Conn) URL() string { return c.url }

// Command is "iotdm hub cluster" with a verb, init or recover, and the flags to come
// here, for messages.
func (c *Conn) Command(verb string) string {
	command := "iotdm hub cluster " + verb + " " + c.flags
	if c.alone {
		command += " --replicas 1" // it can keep no more
	}
	return command
}

func (c *Conn) options(opt Options, log *slog.Logger) ([]nats.Option, error) {
	loopback, err := checkURL(opt.URL)
	if err != nil {
		return nil, err
	}
	options := []nats.Option{
		nats.Name(opt.Name),
		nats.CustomInboxPrefix("iotdm.inbox"), // so that a user needs to be allowed little else
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.ReconnectBufSize(-1), // what cannot be sent now must not be sent later
		nats.IgnoreAuthErrorAbort(),
		nats.Timeout(2 * time.Second),
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(3 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the connection to NATS is lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("connected to NATS again", "server", nc.ConnectedServerName())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				c.violation.Store(&err)
			}
			log.Warn("an error of NATS", "err", err)
		}),
	}
	switch {
	case opt.Credentials != "":
		o, err := credentials(opt.Credentials)
		if err != nil {
			return nil, err
		}
		options = append(options, o)
	case !loopback:
		return nil, fmt.Errorf("NATS on another machine needs credentials, since the hub's keys lie there: name their file with --cluster-creds")
	}
	config, err := opt.tls()
	if err != nil {
		return nil, err
	}
	if !loopback && !opt.Insecure || opt.CA != "" {
		options = append(options, nats.Secure(config))
	} else if loopback {
		// Others than those named might be on other machines.
		options = append(options, nats.IgnoreDiscoveredServers())
	}
	return options, nil
}

// tls returns how the servers prove themselves.
func (opt Options) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if opt.CA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(opt.CA)
	if err != nil {
		return nil, fmt.Errorf("CA of NATS: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA of NATS: %s has no certificate in PEM form", opt.CA)
	}
	return config, nil
}

// checkURL refuses what Connect cannot use, and reports whether all servers are on
// this machine.
func checkURL(text string) (loopback bool, err error) {
	loopback = true
	for _, one := range strings.Split(text, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		switch {
		case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "":
			return false, errors.New("the address of NATS must be like nats://nats-1:4222, or several with commas between them")
		case u.Scheme != "nats" && u.Scheme != "tls":
			return false, fmt.Errorf("the address of NATS begins with %s://: it must be nats:// or tls://", u.Scheme)
		case u.User != nil:
			return false, errors.New("the address of NATS holds a user or password, which others can see there: put user:password into a file and name that with --cluster-creds")
		}
		ip := net.ParseIP(u.Hostname())
		loopback = loopback && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
	}
	return loopback, nil
}

func credentials(file string) (nats.Option, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("credentials for NATS: %w", err)
	}
	line := strings.TrimSpace(string(text))
	switch {
	case strings.Contains(line, "NATS USER JWT"):
		return nats.UserCredentials(file), nil
	case strings.HasPrefix(line, "SU") && !strings.ContainsAny(line, ":\n"):
		option, err := nats.NkeyOptionFromSeed(file)
		if err != nil {
			return nil, fmt.Errorf("credentials for NATS: %s: %w", file, err)
		}
		return option, nil
	}
	user, password, ok := strings.Cut(line, ":")
	if !ok || user == "" || password == "" || strings.Contains(line, "\n") {
		return nil, fmt.Errorf("credentials for NATS: %s must be the .creds of NATS, an nkey seed, or one line user:password", file)
	}
	return nats.UserInfo(user, password), nil
}

// explainConnect says what to do when Connect of NATS fails.
func explainConnect(opt Options, err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nkeys.ErrInvalidSeed), errors.Is(err, nkeys.ErrInvalidChecksum):
		if opt.Credentials == "" {
			return fmt.Errorf("%w: %s wants some: name their file with --cluster-creds", ErrUnauthorized, opt.URL)
		}
		return fmt.Errorf("%w of %s at %s: %s; correct that file, or the users of NATS", ErrUnauthorized, opt.Credentials, opt.URL, words(err))
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("NATS at %s has no TLS, and is not on this machine alone: give its servers certificates (tls {...} in their configuration), since the hub's keys go there, or say --cluster-insecure if nobody else is on that network", opt.URL)
	case errors.As(err, &unknown):
		return fmt.Errorf("NATS at %s has a certificate of a CA that is not known here: name the CA's file with --cluster-ca", opt.URL)
	case errors.As(err, &name), errors.As(err, &invalid):
		return fmt.Errorf("NATS at %s: %s; give the server a certificate that is valid for that address", opt.URL, words(err))
	}
	return fmt.Errorf("%w at %s: %s; start it, or correct --cluster", ErrUnreachable, opt.URL, words(err))
}

// words are those of an error of NATS, without its prefix.
func words(err error) string { return strings.TrimPrefix(err.Error(), "nats: ") }

// check refuses a server that is not good enough.
func (c *Conn) check() error {
	if version := c.ConnectedServerVersion(); tooOld(version) {
		return fmt.Errorf("NATS at %s is nats-server %s: the hub needs %s or later", c.url, version, oldest())
	}
	if n := c.MaxPayload(); n < minPayload {
		return fmt.Errorf("NATS at %s takes messages of %d bytes: set max_payload to %d or more", c.url, n, minPayload)
	}
	return nil
}

// tooOld reports whether a server's version is before minVersion.
func tooOld(version string) bool {
	var v [3]int
	_, err := fmt.Sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2])
	return err != nil || slices.Compare(v[:], minVersion[:]) < 0
}

func oldest() string { return fmt.Sprintf("%d.%d.%d", minVersion[0], minVersion[1], minVersion[2]) }

// Retry calls fn until it has another error than that NATS cannot be reached, or ctx
// ends: a cluster that has just begun, or lost a server, may take some seconds.
func Retry(ctx context.Context, fn func(context.Context) error) error {
	for {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := fn(short)
		cancel()
		if !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrTooFewServers) || wait.For(ctx, 200*time.Millisecond) != nil {
			return err
		}
	}
}
