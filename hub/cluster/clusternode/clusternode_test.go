package clusternode_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster"
	"github.com/iotdm/iotdm/hub/cluster/clusternode"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/hubtest/clustertest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// allowed is what a user of NATS needs to be allowed, as docs/CLUSTER.md says.
var allowed = natstest.Permission{
	Publish:   []string{"iotdm.>", "$JS.API.>", "$JS.FC.>", "$O.iotdm-snap.>"},
	Subscribe: []string{"iotdm.>"},
}

// TestANodeNeedsNoMoreRights has a user that may do only what the hub needs make a
// hub, store a state, begin with it, and have two nodes of it.
func TestANodeNeedsNoMoreRights(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	servers := natstest.StartWith(t, 1, natstest.Settings{User: "hub", Password: "secret", Permissions: []natstest.Permission{allowed}})
	creds := filepath.Join(t.TempDir(), "user")
	if err := os.WriteFile(creds, []byte("hub:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nats := natsconn.Options{URL: servers.URL(), Credentials: creds}
	large := make([]byte, 3<<20) // of several chunks
	for i := range large {
		large[i] = byte(i * i >> 8)
	}
	_, err := clusternode.Init(ctx, cluster.InitOptions{NATS: nats, Copies: 1, From: func(record func(key, value []byte) error) error {
		return record([]byte("test/large"), large)
	}})
	if err != nil {
		t.Fatal(err)
	}
	var lives []*clusternode.Life
	for _, name := range []string{"a", "b"} {
		h, err := clusternode.Open(ctx, clusternode.Options{Name: name, NATS: nats})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}()
		life, err := h.Join(ctx, func() (node.Options, error) { return node.Options{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := life.End(ctx); err != nil {
				t.Error(err)
			}
		}()
		lives = append(lives, life)
		if v, err := h.Store().Get([]byte("test/large")); err != nil || len(v) != len(large) {
			t.Errorf("%s has %d bytes, %v", name, len(v), err)
		}
	}
	if _, err := lives[0].PutIdentity(hub.ID{Device: "d"}, hub.IdentitySpec{}, hub.Match{}); err != nil {
		t.Error(err)
	}
	if err := lives[1].Fresh(ctx); err != nil {
		t.Error(err)
	}
	if _, err := lives[1].Identity(hub.ID{Device: "d"}); err != nil {
		t.Error(err)
	}
}

// getHealth asks the health checks on l.
func getHealth(t *testing.T, l net.Listener, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	r, err := client.Get("http://" + l.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// awaitReady waits until /ready has a status and says some words.
func awaitReady(ctx context.Context, t *testing.T, l net.Listener, status int, words string) {
	t.Helper()
	for ctx.Err() == nil {
		if got, text := getHealth(t, l, "/ready"); got == status && strings.Contains(text, words) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	got, text := getHealth(t, l, "/ready")
	t.Fatalf("GET /ready: %d %s, want %d and %s", got, text, status, words)
}

// TestANodeWaitsForTheHubToBeMade starts a node before there is a hub, and one whose data
// folder holds a copy of another.
func TestANodeWaitsForTheHubToBeMade(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	nats := natsconn.Options{URL: natstest.Start(t, 1).URL(), Flags: "--cluster ..."}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	health := node.ServeHealth(l, slog.New(slog.DiscardHandler))
	defer health.Close()
	storage := node.Folder(t.TempDir())
	opened := make(chan error, 1)
	go func() {
		h, err := clusternode.Open(ctx, clusternode.Options{Storage: storage, Name: "a", NATS: nats, Health: health})
		if err == nil {
			err = errors.Join(h.Store().Barrier(ctx), h.Close())
		}
		opened <- err
	}()
	awaitReady(ctx, t, l, 503, `"cluster":"there is no hub in NATS yet`)
	if _, err := clusternode.Init(ctx, cluster.InitOptions{NATS: nats, Copies: 1}); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatalf("the node does not go on: %v", err)
	}
	awaitReady(ctx, t, l, 503, `"cluster":"not a member yet"`)

	nats.URL = natstest.Start(t, 1).URL()
	_, err = clusternode.Open(ctx, clusternode.Options{Storage: storage, Name: "a", NATS: nats})
	if !errors.Is(err, store.ErrLogWentBack) || !strings.HasSuffix(err.Error(), "iotdm hub cluster recover --cluster ... --replicas 1 --data FOLDER") {
		t.Errorf("a NATS without the hub that the node has read: %v", err)
	}
}

// TestANodeThatIsBehindIsNotReady has a node serve, fall behind, catch up and end, and
// looks at what its health checks say, which answer before and behind all that too.
func TestANodeThatIsBehindIsNotReady(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	nats := natsconn.Options{URL: natstest.Start(t, 1).URL()}
	if _, err := clusternode.Init(ctx, cluster.InitOptions{NATS: nats, Copies: 1}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	health := node.ServeHealth(l, slog.New(slog.DiscardHandler))
	defer health.Close()
	get := func(path string) (int, string) { t.Helper(); return getHealth(t, l, path) }
	says := func(status int, words string) { t.Helper(); awaitReady(ctx, t, l, status, words) }
	says(503, `"cluster":"not a member yet"`)
	h, err := clusternode.Open(ctx, clusternode.Options{Name: "a", NATS: nats, Health: health})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for range 2 { // lives
		life, err := h.Join(ctx, func() (node.Options, error) { return node.Options{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		says(503, `"listeners":"not open"`)
		mqtt, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		life.Serve(node.Listeners{MQTT: mqtt})
		says(200, `{"status":"ready","checks":{"cluster":"ok","listeners":"ok","store":"ok"}}`)
		if status, text := get("/metrics"); status != 200 || !strings.Contains(text, "iotdm_hub_cluster_log_lag_seconds 0\n") {
			t.Errorf("GET /metrics: %d, without a lag of 0", status)
		}
		goOn := make(chan bool)
		stop, err := h.Store().Subscribe("test/", func(c store.Change) {
			if c.Pos > 0 { // it is none of what was there before
				<-goOn
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		changed := make(chan error, 1)
		go func() {
			changed <- h.Store().Update("test", func(tx *store.Tx) error { tx.Set([]byte("test/k"), nil); return nil })
		}()
		says(503, `{"status":"behind",`)
		close(goOn)
		says(200, `"cluster":"ok"`)
		if err := <-changed; err != nil {
			t.Error(err)
		}
		stop()
		if err := life.End(ctx); err != nil {
			t.Error(err)
		}
		says(503, `"cluster":"not a member any more"`)
		if status, _ := get("/health"); status != 200 {
			t.Errorf("GET /health without a node: %d", status)
		}
	}
}

// TestAllNodesTakePoliciesOfOne has a node come with policies of its own, which the one
// that serves already takes at once.
func TestAllNodesTakePoliciesOfOne(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	nats := natsconn.Options{URL: natstest.Start(t, 1).URL()}
	if _, err := clusternode.Init(ctx, cluster.InitOptions{NATS: nats, Copies: 1}); err != nil {
		t.Fatal(err)
	}
	serve := func(name string, storage node.Storage, policies ...hub.Policy) *clusternode.Life {
		t.Helper()
		h, err := clusternode.Open(ctx, clusternode.Options{Name: name, NATS: nats, Storage: storage})
		if err != nil {
			t.Fatal(err)
		}
		life, err := h.Join(ctx, func() (node.Options, error) { return node.Options{Policies: policies}, nil })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(life.End(context.WithoutCancel(ctx)), h.Close()); err != nil {
				t.Error(err)
			}
		})
		return life
	}
	named := func(life *clusternode.Life, name string) hub.Policy {
		t.Helper()
		list := life.Policies()
		i := slices.IndexFunc(list, func(p hub.Policy) bool { return p.Name == name })
		if i < 0 {
			t.Fatalf("there is no policy %s", name)
		}
		return list[i]
	}
	dir := t.TempDir()
	first := serve("a", node.Folder(dir))
	old := named(first, "service")
	if _, err := first.AuthenticateKey("service", old.PrimaryKey); err != nil {
		t.Fatal(err)
	}

	second := serve("b", node.Storage{}, hub.Policy{Name: "service", PrimaryKey: sas.NewKey()}, hub.Policy{Name: "reader", Rights: []hub.Right{hub.RegistryRead}})
	if err := first.Fresh(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range []hub.Policy{named(second, "service"), named(second, "reader")} {
		if _, err := first.AuthenticateKey(p.Name, p.PrimaryKey); err != nil {
			t.Errorf("the new key of %s: %v", p.Name, err)
		}
	}
	if _, err := first.AuthenticateKey("service", old.PrimaryKey); !errors.Is(err, hub.ErrUnauthorizedAccess) {
		t.Errorf("the old key: %v", err)
	}
	if _, err := second.AuthenticateKey("service", old.SecondaryKey); err != nil {
		t.Errorf("the key that was not replaced: %v", err)
	}
	if diff := cmp.Diff(second.Policies(), first.Policies()); diff != "" {
		t.Errorf("policies of both (-second +first):\n%s", diff)
	}
	for want := string(named(second, "service").PrimaryKey); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "policies.json"))
		if err == nil && strings.Contains(string(text), want) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the data folder of the first does not get the new key: %v", err)
		}
	}
}

// TestATLSSessionGoesOnAtAnotherNode has a client connect to one node, and then to the
// other, which has none of its own keys to know the client by.
func TestATLSSessionGoesOnAtAnotherNode(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := clustertest.New(t, 2)
	config := c.Nodes[0].ClientTLS()
	config.ServerName, config.ClientSessionCache = "localhost", tls.NewLRUClientSessionCache(1)
	resumed := func(n *clustertest.Node) bool {
		t.Helper()
		client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		r, err := client.Get("https://" + n.HTTPSAddr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Fatal(err)
		}
		return r.TLS.DidResume
	}
	if resumed(c.Nodes[0]) {
		t.Error("the first connection goes on with a session")
	}
	// The leader makes the key beside what it serves.
	for i := 1; !resumed(c.Nodes[i%2]); i++ {
		if ctx.Err() != nil {
			t.Fatal("no node knows the session of the other")
		}
	}
}
