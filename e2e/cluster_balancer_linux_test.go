package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
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
)

var balancedDevices = flag.Int("balanced.devices", 100, "how many devices TestClusterBehindABalancer connects")

// TestClusterBehindABalancer runs what examples/cluster and docs/CLUSTER.md have: three nats-servers with TLS, three nodes and
// haproxy, all of them processes. Through haproxy writers of all kinds write, devices are connected, and services call
// them and change twins, while the nodes are restarted one after the other; then one is killed.
//
// It fails when something is lost, or refused that must not be, never because something took long. With
// -balanced.devices 1000 it says how long 1,000 devices take.
func TestClusterBehindABalancer(t *testing.T) {
	c := newBalancedCluster(t)
	n := *balancedDevices
	fleet := c.run("device", "run", "--count", strconv.Itoa(n), "--id-prefix", "fleet-", "--create", "--reboot-duration", "0s",
		"--connection-string", "@"+c.login, "--ca-file", c.ca, "--jq", "tojson")
	t.Log(fleet.await(t, "devices are connected to"))
	rounds := &crash{t: t, r: rand.New(rand.NewPCG(*crashSeed, 200))}
	rounds.prepare(c.front)
	rounds.events.gaps = true

	load := newServiceLoad(c.front, n)
	for i, node := range c.nodes {
		rounds.rounds++
		stop := rounds.writing()
		ease := load.begin()
		began := time.Now()
		c.restart(i)
		t.Logf("node %s was restarted in %.1f s", node.flags[3], time.Since(began).Seconds())
		ease()
		stop()
		if err := rounds.events.check(c.front); err != nil {
			rounds.fail(err)
		}
		// Messages are looked at once, in the end: what is in hand comes back only after a while.
		rounds.checkWriters(func(w crashWriter) bool { _, message := w.(*messageWriter); return !message })
	}
	load.report(t)
	if t.Failed() {
		return
	}

	began := time.Now()
	c.nodes[1].kill()
	c.answerAll(n)
	t.Logf("%d of %d devices were connected to a node that was killed: all answered a method after %.1f s", n/3, n, time.Since(began).Seconds())
	c.nodes[1].begin()
	c.awaitReady(1)
	rounds.finish()
	fleet.kill(t) // each node knows of its own devices when they were last heard of
	c.same()
}

// A balancedCluster is three nodes behind haproxy.
type balancedCluster struct {
	*crashCluster
	ca, login string // files for clients
}

// The addresses are those of examples/cluster, on loopback.
const (
	balancedNATS     = "127.0.40."
	balancedNodes    = "127.0.41."
	balancedBalancer = "127.0.42.1"
)

func newBalancedCluster(t *testing.T) *balancedCluster {
	if _, err := exec.LookPath("haproxy"); err != nil {
		skip(t, "haproxy is not installed, on which this test runs examples/cluster: "+err.Error())
	}
	dir := t.TempDir()
	c := &balancedCluster{crashCluster: &crashCluster{t: t}, ca: filepath.Join(dir, "hub.pem"), login: filepath.Join(dir, "login")}
	nats := c.startNATS(dir)
	creds := filepath.Join(dir, "hub.creds")
	c.write(creds, "hub:password")
	shared := []string{"--cluster", nats, "--cluster-creds", creds, "--cluster-ca", filepath.Join(dir, "ca.pem")}
	c.iotdm(append([]string{"hub", "cluster", "init"}, shared...)...)

	rest := "443"
	if !canBind(net.JoinHostPort(balancedBalancer, rest)) {
		rest = "8443"
	}
	for i, name := range []string{"a", "b", "c"} {
		h := newCrashHub(t, plainPlace(t))
		ip := balancedNodes + strconv.Itoa(i+1)
		h.mqtts, h.rest = ip+":8883", ip+":"+rest
		h.flags = append([]string{"--amqps-addr", ip + ":5671", "--node", name, "--health-addr", ip + ":8080", "--host", balancedBalancer, "--drain", "3s"}, shared...)
		h.begin()
		c.nodes = append(c.nodes, h)
	}
	c.startBalancer(dir, rest)
	for i := range c.nodes {
		c.awaitReady(i)
	}
	first := c.nodes[0]
	first.readKey()
	c.balancer = &crashHub{t: t, place: first.place, mqtts: balancedBalancer + ":8883", rest: balancedBalancer + ":" + rest}
	c.front = &crashHub{t: t, place: first.place, cluster: c.crashCluster, key: first.key, token: first.token}
	c.front.reconnect()
	text, err := os.ReadFile(filepath.Join(first.seen, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c.write(c.ca, string(text))
	out, err := exec.Command("iotdm", "hub", "connection-string", "--data", first.data).Output()
	if err != nil {
		t.Fatal(err)
	}
	c.write(c.login, strings.TrimSpace(string(out)))
	return c
}

func (c *balancedCluster) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// example is a file of examples/cluster with other words in it, every one of which it must have.
func (c *balancedCluster) example(name string, words ...string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", "cluster", name))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(words); i += 2 {
		if !bytes.Contains(text, []byte(words[i])) {
			c.t.Fatalf("examples/cluster/%s has no %q", name, words[i])
		}
		text = bytes.ReplaceAll(text, []byte(words[i]), []byte(words[i+1]))
	}
	return string(text)
}

// startNATS starts three servers with the certificates that docs/CLUSTER.md makes.
func (c *balancedCluster) startNATS(dir string) (url string) {
	c.t.Helper()
	var servers, routes, urls []string
	for i := range 3 {
		ip := balancedNATS + strconv.Itoa(i+1)
		servers = append(servers, ip)
		routes = append(routes, fmt.Sprintf("%q", "nats://route:password@"+ip+":6222"))
		urls = append(urls, "nats://"+ip+":4222")
	}
	made := 0
	for _, b := range blocks(c.t, "docs/CLUSTER.md") {
		if !strings.Contains(b.text, "openssl") {
			continue
		}
		made++
		script := strings.NewReplacer("nats-1 nats-2 nats-3", strings.Join(servers, " "), "DNS:", "IP:").Replace(b.text)
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			c.t.Fatalf("the commands of %s, line %d: %v\n%s", b.document, b.line, err, out)
		}
	}
	if made != 1 {
		c.t.Fatalf("docs/CLUSTER.md makes certificates %d times", made)
	}
	for i, ip := range servers {
		own := filepath.Join(dir, "nats-"+strconv.Itoa(i+1))
		conf := own + ".conf"
		c.write(conf, c.example("nats.conf", "0.0.0.0", ip, "/data", own, "#tls", "tls", "$NATS_NAME # as", ip+" # as",
			"/tls/cert.pem", filepath.Join(dir, ip+".pem"), "/tls/key.pem", filepath.Join(dir, ip+".key"), "/tls/ca.pem", filepath.Join(dir, "ca.pem")))
		cmd := exec.Command("nats-server", "-c", conf)
		cmd.Env = append(os.Environ(), "NATS_NAME=nats-"+strconv.Itoa(i+1), "NATS_ROUTES=["+strings.Join(routes, ",")+"]",
			"NATS_ROUTE_PASSWORD=password", "NATS_HUB_PASSWORD=password")
		c.shown(cmd)
	}
	return strings.Join(urls, ",")
}

func (c *balancedCluster) startBalancer(dir, rest string) {
	words := []string{"bind :", "bind " + balancedBalancer + ":"}
	for i, name := range []string{"a", "b", "c"} {
		words = append(words, "hub-"+name+":", balancedNodes+strconv.Itoa(i+1)+":")
	}
	words = append(words, ":443", ":"+rest)
	conf := filepath.Join(dir, "haproxy.cfg")
	c.write(conf, c.example("haproxy.cfg", words...))
	c.shown(exec.Command("haproxy", "-db", "-f", conf))
}

func (c *balancedCluster) run(args ...string) *program {
	return c.shown(exec.Command("iotdm", args...))
}

// shown starts a program, whose output is shown if the test fails.
func (c *balancedCluster) shown(cmd *exec.Cmd) *program {
	c.t.Helper()
	p := start(c.t, cmd)
	c.t.Cleanup(func() {
		if c.t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			c.t.Logf("%s printed:\n%s", strings.Join(cmd.Args, " "), strings.Join(p.lines[max(0, len(p.lines)-10):], "\n"))
		}
	})
	return p
}

// awaitReady returns when a node says that it is ready, and the balancer has seen it.
func (c *balancedCluster) awaitReady(i int) {
	c.t.Helper()
	n := c.nodes[i]
	for deadline := time.Now().Add(2 * crashPatience); ; pause(context.Background(), 50*time.Millisecond) {
		resp, err := http.Get("http://" + balancedNodes + strconv.Itoa(i+1) + ":8080/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if !n.running() || time.Now().After(deadline) {
			c.t.Fatalf("node %d is not ready; it is running: %v\n%s", i, n.running(), c.tail())
		}
	}
	const probed = 2 * time.Second // that is what docs/CLUSTER.md asks for: the balancer probes each second
	pause(context.Background(), probed)
}

// restart restarts a node in the orderly way.
func (c *balancedCluster) restart(i int) {
	c.t.Helper()
	n := c.nodes[i]
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	select {
	case <-n.exited:
	case <-time.After(2 * crashPatience):
		c.t.Fatalf("node %d does not stop\n%s", i, n.tail())
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		c.t.Errorf("node %d exited with %d:\n%s", i, code, n.tail())
	}
	n.begin()
	c.awaitReady(i)
}

// answerAll calls each device once, which may take its time to connect.
func (c *balancedCluster) answerAll(n int) {
	c.t.Helper()
	var wg sync.WaitGroup
	turns := make(chan struct{}, 32)
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			for deadline := time.Now().Add(3 * crashPatience); ; pause(context.Background(), 100*time.Millisecond) {
				a, err := callFleet(c.front, i, 60)
				if err == nil && a.status == 200 {
					return
				}
				c.t.Logf("fleet-%d after %.1f s: %v %v", i+1, time.Since(began).Seconds(), a, err)
				if time.Now().After(deadline) {
					c.t.Errorf("fleet-%d does not answer: %v, %v", i+1, a, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func callFleet(h *crashHub, i, connect int) (crashAnswer, error) {
	return h.do("POST", fmt.Sprintf("/twins/fleet-%d/methods", i+1),
		fmt.Sprintf(`{"methodName":"reboot","responseTimeoutInSeconds":30,"connectTimeoutInSeconds":%d}`, connect))
}

// A serviceLoad is services that call the devices and change twins with etags, and take nothing but what IoT Hub
// answers when all is well.
type serviceLoad struct {
	h       *crashHub
	devices int // that are called

	mu       sync.Mutex // guards what follows
	outcomes map[string]int
	wrong    []string
}

func newServiceLoad(h *crashHub, devices int) *serviceLoad {
	l := &serviceLoad{h: h, devices: devices, outcomes: make(map[string]int)}
	for i := range loadTwins {
		if err := createDevice(h, loadTwin(i), ""); err != nil {
			h.t.Fatal(err)
		}
	}
	return l
}

const loadTwins = 4

func loadTwin(i int) string { return fmt.Sprintf("patched-%d", i) }

// begin has the services begin, and returns what ends them.
func (l *serviceLoad) begin() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range loadTwins {
		wg.Go(func() { l.patch(ctx, loadTwin(i)) })
		wg.Go(func() { l.call(ctx, i*l.devices/loadTwins) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// count notes what came of something.
func (l *serviceLoad) count(what string, a crashAnswer, err error) {
	outcome := fmt.Sprintf("%s: %d", what, a.status)
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		outcome = what + ": " + op.Op + " failed"
	case err != nil:
		outcome = what + ": no answer"
	case a.status/100 != 2:
		outcome += " " + a.header.Get("iothub-errorcode")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes[outcome]++
	if err != nil || a.status/100 != 2 {
		l.wrong = append(l.wrong, fmt.Sprintf("%s %s: %v %v", time.Now().Format("15:04:05.000"), outcome, a, err))
	}
}

// patch changes a twin by what it read of it. A change that was not answered may have been made.
func (l *serviceLoad) patch(ctx context.Context, id string) {
	least, most := 0, 1<<30 // before the first of this round
	for pause(ctx, 5*time.Millisecond) {
		twin, err := readTwin(l.h, id)
		if err != nil {
			l.count("read", crashAnswer{}, err)
			continue
		}
		if twin.Tags.N < least || twin.Tags.N > most {
			l.h.t.Errorf("%s has %d; acknowledged was %d, and the last that was sent %d", id, twin.Tags.N, least, most)
			return
		}
		most = twin.Tags.N + 1
		a, err := l.h.do("PATCH", "/twins/"+id, fmt.Sprintf(`{"tags":{"n":%d}}`, most), "If-Match", `"`+twin.ETag+`"`)
		if l.count("patch", a, err); err == nil && a.ok() {
			least = most
		}
	}
}

// call calls one device after the other, each of which has the time to connect again.
func (l *serviceLoad) call(ctx context.Context, i int) {
	for ; pause(ctx, 5*time.Millisecond); i++ {
		a, err := callFleet(l.h, i%l.devices, 30)
		l.count("method", a, err)
	}
}

// report tells what came of all, and fails if something did not go well.
func (l *serviceLoad) report(t *testing.T) {
	for _, outcome := range slices.Sorted(maps.Keys(l.outcomes)) {
		t.Logf("%6d %s", l.outcomes[outcome], outcome)
	}
	if len(l.wrong) > 0 {
		t.Errorf("services were refused, or got no answer, %d times:\n%s", len(l.wrong), strings.Join(l.wrong[:min(len(l.wrong), 20)], "\n"))
	}
}
