package store_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

var (
	seeds = flag.Uint64("seeds", 40, "how many histories the tests of replicas try")
	seed  = flag.Uint64("seed", 0, "the first of them")
)

// A history is what three nodes do that meet faults.
type history struct {
	t         *testing.T
	seed      uint64
	log       *memlog.Log
	snapshots *memlog.Snapshots
	faults    memlog.Faults
	nodes     []*lawNode

	mu  sync.Mutex // guards what follows
	ops []*op
	ids int
}

// A lawNode is a place where a replica runs, or does not.
type lawNode struct {
	h    *history
	name string

	mu      sync.Mutex // guards what follows
	fs      *vfs.MemFS
	client  *memlog.Client
	replica *store.Replica
	heard   []string // what its replica was told, since it was opened
}

// An op is one Update, which adds its name to a list.
type op struct {
	name       string
	key        string
	read       string // what the list was before
	began, end time.Time
	err        error
	commits    int
}

func (h *history) fatal(format string, args ...any) {
	h.t.Helper()
	h.t.Errorf("seed %d: %s", h.seed, fmt.Sprintf(format, args...))
}

// open opens the replica of a node and joins.
func (n *lawNode) open() {
	f := n.h.faults
	f.Seed = n.h.seed + uint64(len(n.name))
	client := n.h.log.Client(f)
	r, err := store.OpenReplicaFS(n.fs, "", store.ReplicaOptions{Log: client, Snapshots: n.h.snapshots, Name: n.name})
	if err != nil {
		n.h.fatal("open %s: %v", n.name, err)
		return
	}
	n.mu.Lock()
	n.client, n.replica, n.heard = client, r, nil
	n.mu.Unlock()
	r.DB().OnTell("op", func(m store.Notice) {
		epoch, _, _ := strings.Cut(string(m.Data), " ")
		var e uint64
		if _, err := fmt.Sscan(epoch, &e); err != nil || !r.Alive(e) {
			n.h.fatal("%s was told %q at %d by who is no member", n.name, m.Data, m.Pos)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.heard = append(n.heard, fmt.Sprintf("%d.%d %s", m.Pos, m.Index, m.Data))
	})
}

func (n *lawNode) get() (*store.Replica, *memlog.Client) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.replica, n.client
}

// crash stops a node as a power cut does, and starts it again.
func (n *lawNode) crash(r *rand.Rand) {
	old, client := n.get()
	client.Cut(true)
	clone := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(r.Uint64(), 0))})
	if err := old.Close(); err != nil {
		n.h.fatal("close %s: %v", n.name, err)
	}
	n.fs = clone
	n.open()
}

// keepMember joins whenever the node is no member.
func (n *lawNode) keepMember(ctx context.Context) {
	for ctx.Err() == nil {
		r, _ := n.get()
		select {
		case <-r.Fenced():
		case <-time.After(time.Second):
			continue
		case <-ctx.Done():
			return
		}
		if _, err := r.Join(ctx); err != nil && !errors.Is(err, store.ErrNoLog) {
			time.Sleep(100 * time.Millisecond) // closed, as a rule
		}
	}
}

// work makes one op through a node.
func (h *history) work(n *lawNode, r *rand.Rand) {
	h.mu.Lock()
	h.ids++
	o := &op{name: fmt.Sprint(h.ids), key: fmt.Sprintf("list/%d", r.IntN(4)), began: time.Now()}
	h.ops = append(h.ops, o)
	h.mu.Unlock()
	replica, _ := n.get()
	boom := errors.New("boom")
	fails := r.IntN(20) == 0
	slow := time.Duration(max(r.IntN(40)-36, 0)) * 2 * time.Second
	err := replica.DB().Update(o.key, func(tx *store.Tx) error {
		old, err := tx.Get([]byte(o.key))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if slow > 0 {
			time.Sleep(slow)
		}
		h.mu.Lock()
		o.read = string(old)
		h.mu.Unlock()
		tx.Set([]byte(o.key), append(old, o.name+","...))
		tx.Tell("op", fmt.Appendf(nil, "%d %s", store.Epoch(replica), o.name))
		tx.OnCommit(func() {
			h.mu.Lock()
			o.commits++
			h.mu.Unlock()
		})
		if fails {
			return boom
		}
		return nil
	})
	if err == nil {
		if got, err := replica.DB().Get([]byte(o.key)); err != nil || !strings.Contains(","+string(got), ","+o.name+",") {
			// The store may have been closed since.
			if !errors.Is(err, store.ErrClosed) {
				h.fatal("%s was acknowledged and is not read on its node: %q, %v", o.name, got, err)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	o.end, o.err = time.Now(), err
}

// look reads through one node what was acknowledged through any.
func (h *history) look(n *lawNode) {
	h.mu.Lock()
	var done []*op
	for _, o := range h.ops {
		if !o.end.IsZero() && o.err == nil {
			done = append(done, o)
		}
	}
	h.mu.Unlock()
	r, _ := n.get()
	if r.DB().Barrier(h.t.Context()) != nil {
		return
	}
	for _, o := range done {
		if got, err := r.DB().Get([]byte(o.key)); err == nil && !strings.Contains(","+string(got), ","+o.name+",") {
			h.fatal("%s was acknowledged and is not read through %s behind a barrier", o.name, n.name)
		}
	}
}

func TestReplicasKeepTheirPromises(t *testing.T) {
	for s := *seed; s < *seed+*seeds && !t.Failed(); s++ {
		synctest.Test(t, func(t *testing.T) { tryHistory(t, s) })
	}
}

func tryHistory(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	h := &history{t: t, seed: seed, log: memlog.New(), snapshots: &memlog.Snapshots{}}
	share := func() float64 { return float64(r.IntN(3)) * r.Float64() * 0.15 }
	h.faults = memlog.Faults{Unknown: share(), Duplicate: share(), Broken: share() / 2, Delay: time.Duration(r.IntN(200)) * time.Millisecond}
	if err := store.StartLog(t.Context(), h.log, h.snapshots, nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg, keepers sync.WaitGroup
	for i := range 3 {
		n := &lawNode{h: h, name: strings.Repeat("n", i+1), fs: vfs.NewCrashableMem()}
		h.nodes = append(h.nodes, n)
		n.open()
		if t.Failed() {
			t.FailNow()
		}
		keepers.Go(func() { n.keepMember(ctx) })
	}
	for i := range 6 {
		own := rand.New(rand.NewPCG(seed, uint64(100+i)))
		wg.Go(func() {
			for range 12 {
				n := h.nodes[own.IntN(3)]
				if own.IntN(6) == 0 {
					h.look(n)
				}
				h.work(n, own)
				time.Sleep(time.Duration(own.IntN(1500)) * time.Millisecond)
			}
		})
	}
	wg.Go(func() { h.harm(r) })
	wg.Wait()
	for _, n := range h.nodes {
		_, client := n.get()
		client.Cut(false)
	}
	time.Sleep(30 * time.Second) // what was left comes to its end
	stop()
	keepers.Wait()
	h.judge()
	for _, n := range h.nodes {
		if err := n.replica.Close(); err != nil {
			h.fatal("close: %v", err)
		}
	}
	time.Sleep(10 * time.Second) // copies that are still under way
}

// harm does to the nodes what happens to nodes.
func (h *history) harm(r *rand.Rand) {
	for range 8 {
		time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
		n, other := h.nodes[r.IntN(3)], h.nodes[r.IntN(3)]
		replica, client := n.get()
		switch r.IntN(7) {
		case 6: // behind the second the locks are swept
			ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
			for range 3 {
				_ = replica.Snapshot(ctx)
			}
			cancel()
		case 0:
			client.Cut(true)
			time.Sleep(time.Duration(r.IntN(14000)) * time.Millisecond)
			client.Cut(false)
		case 1:
			victim, _ := other.get()
			ctx, cancel := context.WithTimeout(h.t.Context(), 3*time.Second)
			_ = replica.Expel(ctx, store.Epoch(victim))
			cancel()
		case 2:
			n.crash(r)
		case 3:
			ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
			_ = replica.Snapshot(ctx)
			cancel()
		case 4:
			h.log.Forget()
		case 5:
			ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
			_ = replica.Leave(ctx)
			cancel()
		}
	}
}

// judge looks at what came of it.
func (h *history) judge() {
	t := h.t
	var hashes [][32]byte
	lists := map[string][]string{}
	for _, n := range h.nodes {
		if err := n.replica.DB().Barrier(t.Context()); err != nil {
			h.fatal("%s at the end: %v", n.name, err)
			return
		}
	}
	for _, n := range h.nodes {
		hash, err := store.StateHash(n.replica.DB())
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, hash)
	}
	if hashes[0] != hashes[1] || hashes[0] != hashes[2] {
		h.fatal("the nodes differ: %x", hashes)
	}
	err := h.nodes[0].replica.DB().Scan(nil, nil, func(key, value []byte) error {
		lists[string(key)] = strings.Split(strings.TrimSuffix(string(value), ","), ",")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	count := map[string]int{}
	for _, names := range lists {
		for i, name := range names {
			at[name] = i
			count[name]++
		}
	}
	acked := 0
	for _, o := range h.ops {
		n := count[o.name]
		switch {
		case n > 1:
			h.fatal("%s was applied %d times", o.name, n)
		case o.err == nil && n != 1:
			h.fatal("%s was acknowledged and is lost", o.name)
		case o.err == nil && o.commits != 1:
			h.fatal("OnCommit of %s ran %d times", o.name, o.commits)
		case o.err != nil && n == 1 && !errors.Is(o.err, store.ErrNoLog) && !errors.Is(o.err, store.ErrClosed):
			h.fatal("%s was refused (%v) and is there", o.name, o.err)
		case o.err != nil && n == 0 && o.commits != 0:
			h.fatal("OnCommit of %s ran, which is not there", o.name)
		}
		if n == 1 && o.err == nil {
			acked++
			if want := strings.Join(append(slices.Clone(lists[o.key][:at[o.name]]), ""), ","); want != o.read {
				h.fatal("%s has read %q and follows %q", o.name, o.read, want)
			}
		}
	}
	for _, a := range h.ops {
		for _, b := range h.ops {
			if a.err == nil && b.err == nil && a.key == b.key && a.end.Before(b.began) && at[a.name] > at[b.name] {
				h.fatal("%s ended before %s began and is behind it", a.name, b.name)
			}
		}
	}
	if acked == 0 {
		h.fatal("nothing was acknowledged")
	}
	// What a node was told is the end of what the one was told that was told most.
	longest := h.nodes[0].heard
	for _, n := range h.nodes {
		if len(n.heard) > len(longest) {
			longest = n.heard
		}
	}
	for _, n := range h.nodes {
		if !slices.Equal(n.heard, longest[len(longest)-len(n.heard):]) {
			h.fatal("%s was told\n%s\nand another\n%s", n.name, strings.Join(n.heard, "\n"), strings.Join(longest, "\n"))
		}
	}
}

// gate is a log that can be asked, and is not followed behind its first group until it
// is opened.
type gate struct {
	store.Log
	open chan struct{}
}

func (g gate) Follow(ctx context.Context, from uint64, fn func(uint64, time.Time, []byte) error) error {
	return g.Log.Follow(ctx, from, func(pos uint64, at time.Time, group []byte) error {
		if pos > 1 {
			select {
			case <-g.open:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return fn(pos, at, group)
	})
}

func TestACrashLeavesAStateAndItsPosition(t *testing.T) {
	for s := *seed; s < *seed+*seeds && !t.Failed(); s++ {
		r := rand.New(rand.NewPCG(s, 9))
		log, snapshots := memlog.New(), &memlog.Snapshots{}
		if err := store.StartLog(t.Context(), log, snapshots, nil); err != nil {
			t.Fatal(err)
		}
		fs := vfs.NewCrashableMem()
		replica, err := store.OpenReplicaFS(fs, "", store.ReplicaOptions{Log: log, Snapshots: snapshots, Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		states := map[uint64][32]byte{}
		note := func() {
			pos, _, _ := replica.Applied()
			if states[pos], err = store.StateHash(replica.DB()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := replica.Join(t.Context()); err != nil {
			t.Fatal(err)
		}
		note()
		for i := range 60 {
			err := replica.DB().Update(fmt.Sprint(i%5), func(tx *store.Tx) error {
				tx.Set(fmt.Appendf(nil, "k/%d", r.IntN(30)), bytes.Repeat([]byte{byte(i)}, r.IntN(3000)))
				if r.IntN(4) == 0 {
					tx.DeletePrefix(fmt.Appendf(nil, "k/%d", r.IntN(30)))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			note()
			if r.IntN(20) == 0 {
				if err := store.Flush(replica.DB()); err != nil {
					t.Fatal(err)
				}
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(s, 1))})
		want, err := store.StateHash(replica.DB())
		if err != nil {
			t.Fatal(err)
		}
		if err := replica.Close(); err != nil {
			t.Fatal(err)
		}
		g := gate{log, make(chan struct{})}
		again, err := store.OpenReplicaFS(crashed, "", store.ReplicaOptions{Log: g, Snapshots: snapshots, Name: "a"})
		if err != nil {
			t.Fatal(err)
		}
		pos, _, _ := again.Applied()
		got, err := store.StateHash(again.DB())
		if err != nil {
			t.Fatal(err)
		}
		if was, ok := states[pos]; pos > 1 && (!ok || got != was) {
			t.Errorf("seed %d: after a crash the copy is at %d, and is not what it was there", s, pos)
		}
		close(g.open)
		if err := again.DB().Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := store.StateHash(again.DB()); err != nil || got != want {
			t.Errorf("seed %d: behind position %d the log leads elsewhere, error %v", s, pos, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
