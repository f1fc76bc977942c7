package natstest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// variable holds the setup of a server in the environment of its process.
const variable = "IOTDM_NATSTEST_SERVER"

// A setup is what one server is to be.
type setup struct {
	Settings
	Name   string
	Dir    string
	Routes []string // to the others
	Listen string   // for routes; empty: anywhere
}

// ready is what a server says when it runs.
type ready struct{ Client, Cluster, Monitor string }

// A process is the test's own binary, which becomes a server here, before any test
// of it runs: so one can be killed and paused, and nothing has to be installed.
func init() {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return
	}
	if err := serve(text); err != nil {
		fmt.Fprintln(os.Stderr, "natstest:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(text string) error {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	opt := &server.Options{
		ServerName: s.Name, Host: "127.0.0.1", Port: server.RANDOM_PORT, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT,
		JetStream: !s.NoJetStream, StoreDir: s.Dir, SyncAlways: !s.LazySync, MaxPayload: s.MaxPayload,
		Username: s.User, Password: s.Password, NoSigs: true,
		LogFile: s.Dir + ".log",
	}
	if s.Cert != "" {
		config, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: s.Cert, KeyFile: s.Key})
		if err != nil {
			return err
		}
		opt.TLSConfig, opt.TLS, opt.TLSTimeout = config, true, 5
	}
	if len(s.Routes) > 0 {
		opt.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoAdvertise: true, PoolSize: -1}
		if s.Direct {
			listen, err := net.ResolveTCPAddr("tcp", s.Listen)
			if err != nil {
				return err
			}
			opt.Cluster.Port, opt.Cluster.PoolSize = listen.Port, 0
		}
		for _, r := range s.Routes {
			opt.Routes = append(opt.Routes, &url.URL{Scheme: "nats", Host: r})
		}
	}
	for _, p := range s.Permissions {
		opt.Users = append(opt.Users, &server.User{Username: s.User, Password: s.Password, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: p.Publish}, Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
		}})
		opt.Username, opt.Password = "", ""
	}
	n, err := server.NewServer(opt)
	if err != nil {
		return err
	}
	n.ConfigureLogger()
	n.Start()
	if !n.ReadyForConnections(30 * time.Second) {
		return fmt.Errorf("the server does not come up")
	}
	r := ready{Client: n.Addr().String(), Monitor: n.MonitorAddr().String()}
	if a := n.ClusterAddr(); a != nil {
		r.Cluster = a.String()
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return err
	}
	go func() { // the test is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	n.Shutdown()
	n.WaitForShutdown()
	return nil
}
