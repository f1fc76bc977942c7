// Package natstest runs servers of NATS for tests: each in a process of its own,
// that can be stopped, killed and paused, with every link between them, and from
// their clients to them, through a proxy that can be cut.
//
// The processes are the test's own binary, which importing this package makes a
// server when it is started as one. Programs other than tests must not import it.
package natstest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// Settings are what the servers of a cluster are to be like. The zero value is what
// a hub needs.
type Settings struct {
	User, Password string
	Permissions    []Permission // at most one: what User may do; none: everything
	Cert, Key      string       // files of a certificate: clients must use TLS
	MaxPayload     int32        // 0: that of NATS
	NoJetStream    bool
	LazySync       bool // sync to disk now and then, as is NATS's default
	Direct         bool // no proxies, which take time: nothing can be cut, and no server started again
	Place          Place
}

// A Place is where servers have their files. The zero value is a folder of the test.
type Place struct {
	Dir   string   // as a server sees it
	Enter []string // words before a command that is to see it, such as those of nsenter
}

// A Permission is what a user may publish and subscribe to.
type Permission struct{ Publish, Subscribe []string }

// A Cluster is some servers.
type Cluster struct {
	Servers []*Server

	t        testing.TB
	settings Settings
	links    map[[2]int]*Proxy // from one to another, by their places; none if direct
	way      *Way

	mu   sync.Mutex // guards what follows
	ways []*Way
}

// A Server is one of them.
type Server struct {
	Name string

	cluster *Cluster
	place   int
	route   string // where the others find it, if direct

	mu      sync.Mutex // guards what follows
	process *exec.Cmd
	stdin   io.Closer
	at      ready
}

// A Way is how one client comes to all servers.
type Way struct {
	proxies []*Proxy
	direct  []string // addresses instead
}

// Start starts n servers, which end with the test, and returns when JetStream
// serves.
func Start(t testing.TB, n int) *Cluster { return StartWith(t, n, Settings{}) }

// StartWith does so with other settings.
func StartWith(t testing.TB, n int, settings Settings) *Cluster {
	t.Helper()
	c := &Cluster{t: t, settings: settings, links: make(map[[2]int]*Proxy)}
	if settings.Place.Dir == "" {
		c.settings.Place.Dir = t.TempDir()
	}
	for i := range n {
		c.Servers = append(c.Servers, &Server{Name: fmt.Sprintf("nats-%d", i+1), cluster: c, place: i})
		if settings.Direct {
			c.Servers[i].route = freeAddr(t)
			continue
		}
		for j := range n {
			if i != j {
				c.links[[2]int{i, j}] = NewProxy(t, "")
			}
		}
	}
	t.Cleanup(func() {
		for _, s := range c.Servers {
			s.kill()
		}
		if t.Failed() {
			c.logLogs()
		}
	})
	if !settings.Direct {
		c.way = c.NewWay()
	}
	var g errgroup.Group
	for _, s := range c.Servers {
		g.Go(s.start)
	}
	err := g.Wait()
	if err == nil && !settings.NoJetStream && settings.Cert == "" {
		err = c.awaitJetStream()
	}
	if err != nil {
		t.Fatalf("start servers of NATS: %v", err)
	}
	return c
}

// freeAddr returns an address that nobody listens on, and that no connection gets as its
// own: those have ports from 32768 on.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(12000+rand.IntN(20000)))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// logLogs shows what the servers have to say for themselves at their end.
func (c *Cluster) logLogs() {
	for _, s := range c.Servers {
		text, _ := os.ReadFile(s.dir() + ".log")
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		c.t.Logf("%s:\n%s", s.Name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
}

// Move has the servers, which must not run, have their files at another place, where
// these are already.
func (c *Cluster) Move(to Place) { c.settings.Place = to }

func (s *Server) dir() string { return filepath.Join(s.cluster.settings.Place.Dir, s.Name) }

// URL is where clients find the servers, through proxies unless they are direct.
func (c *Cluster) URL() string {
	if c.settings.Direct {
		return c.NewWay().URL()
	}
	return c.way.URL()
}

// NewWay returns a way of its own for one client, which can be cut.
func (c *Cluster) NewWay() *Way {
	w := &Way{}
	if c.settings.Direct {
		for _, s := range c.Servers {
			w.direct = append(w.direct, s.at.Client)
		}
		return w
	}
	for _, s := range c.Servers {
		s.mu.Lock()
		w.proxies = append(w.proxies, NewProxy(c.t, s.at.Client))
		s.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ways = append(c.ways, w)
	return w
}

// URL is where the client finds the servers.
func (w *Way) URL() string {
	var urls []string
	for _, addr := range w.direct {
		urls = append(urls, "nats://"+addr)
	}
	for _, p := range w.proxies {
		urls = append(urls, "nats://"+p.Addr())
	}
	return strings.Join(urls, ",")
}

// Cut cuts the client off from all servers, or heals that.
func (w *Way) Cut(d Direction) {
	for _, p := range w.proxies {
		p.Cut(d)
	}
}

// Break closes the client's connections to all servers. What is held back is lost.
func (w *Way) Break() {
	for _, p := range w.proxies {
		p.Break()
	}
}

// CutFrom cuts the client off from one server.
func (w *Way) CutFrom(place int, d Direction) { w.proxies[place].Cut(d) }

// Cut cuts the links between two servers, or heals that: Forth is what the first
// sends.
func (c *Cluster) Cut(a, b int, d Direction) {
	reverse := d
	if d != Both && d != None {
		reverse = Both &^ d
	}
	c.links[[2]int{a, b}].Cut(d)
	c.links[[2]int{b, a}].Cut(reverse)
}

// Isolate cuts one server off from all others, but not from its clients.
func (c *Cluster) Isolate(place int, d Direction) {
	for i := range c.Servers {
		if i != place {
			c.Cut(place, i, d)
		}
	}
}

// Leader returns the place of the server that leads a stream. It waits until there
// is one.
func (c *Cluster) Leader(stream string) int {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, s := range c.Servers {
			if s.leads(stream) {
				return s.place
			}
		}
	}
	c.t.Fatalf("stream %s has no leader", stream)
	return 0
}

// leads asks the server itself.
func (s *Server) leads(stream string) bool {
	s.mu.Lock()
	monitor, runs := s.at.Monitor, s.process != nil
	s.mu.Unlock()
	if !runs {
		return false
	}
	client := http.Client{Timeout: time.Second}
	r, err := client.Get("http://" + monitor + "/jsz?streams=true")
	if err != nil {
		return false
	}
	defer r.Body.Close()
	var j struct {
		Accounts []struct {
			Streams []struct {
				Name    string `json:"name"`
				Cluster struct {
					Leader string `json:"leader"`
				} `json:"cluster"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if json.NewDecoder(r.Body).Decode(&j) != nil {
		return false
	}
	for _, a := range j.Accounts {
		for _, d := range a.Streams {
			if d.Name == stream {
				return d.Cluster.Leader == s.Name || len(s.cluster.Servers) == 1
			}
		}
	}
	return false
}

// MonitorURL is where the server's monitoring is.
func (s *Server) MonitorURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.at.Monitor
}

func (c *Cluster) awaitJetStream() error {
	nc, err := nats.Connect(c.URL(), nats.UserInfo(c.settings.User, c.settings.Password), nats.MaxReconnects(-1), nats.IgnoreDiscoveredServers())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		short, cancel := context.WithTimeout(ctx, time.Second)
		// All servers have to know each other.
		_, err := js.CreateStream(short, jetstream.StreamConfig{Name: "probe", Replicas: len(c.Servers), Storage: jetstream.MemoryStorage})
		if err == nil {
			err = js.DeleteStream(short, "probe")
		}
		cancel()
		switch {
		case err == nil, len(c.settings.Permissions) > 0: // which may not let us
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("JetStream: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Start starts a server again, which must not run.
func (s *Server) Start() {
	s.cluster.t.Helper()
	if err := s.start(); err != nil {
		s.cluster.t.Fatalf("start a server of NATS: %v", err)
	}
}

func (s *Server) start() error {
	setup := setup{Settings: s.cluster.settings, Name: s.Name, Dir: s.dir(), Listen: s.route}
	for i, other := range s.cluster.Servers {
		switch {
		case i == s.place:
		case s.cluster.settings.Direct:
			setup.Routes = append(setup.Routes, other.route)
		default:
			setup.Routes = append(setup.Routes, s.cluster.links[[2]int{s.place, i}].Addr())
		}
	}
	text, err := json.Marshal(setup)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	words := append(slices.Clone(s.cluster.settings.Place.Enter), self)
	p := exec.Command(words[0], words[1:]...)
	p.Env = append(slices.Clone(os.Environ()), variable+"="+string(text))
	p.Stderr = os.Stderr
	stdin, err := p.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := p.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	var at ready
	if err := json.NewDecoder(stdout).Decode(&at); err != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
		return err
	}
	s.mu.Lock()
	s.process, s.stdin, s.at = p, stdin, at
	s.mu.Unlock()
	s.aim(at.Client, at.Cluster)
	return nil
}

// aim sets the targets of the proxies in front of s.
func (s *Server) aim(client, cluster string) {
	for to, p := range s.cluster.links {
		if to[1] == s.place {
			p.SetTarget(cluster)
		}
	}
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	for _, w := range s.cluster.ways {
		w.proxies[s.place].SetTarget(client)
	}
}

// Stop ends a server as an operator would.
func (s *Server) Stop() {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	if p != nil {
		_ = p.Process.Signal(syscall.SIGTERM)
		_ = p.Wait()
	}
	s.gone()
}

// Kill ends a server as a crash would.
func (s *Server) Kill() { s.kill() }

func (s *Server) kill() {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	if p != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	s.gone()
}

func (s *Server) gone() {
	s.mu.Lock()
	if s.stdin != nil {
		_ = s.stdin.Close()
	}
	s.process, s.stdin = nil, nil
	s.mu.Unlock()
	s.aim("", "")
}

// Forget removes what a server that does not run has on its disk.
func (s *Server) Forget() {
	s.cluster.t.Helper()
	if err := os.RemoveAll(s.dir()); err != nil {
		s.cluster.t.Fatal(err)
	}
}
