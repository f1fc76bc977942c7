package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/cluster/memlog"
	"github.com/iotdm/iotdm/hub/store"
)

// testdata/kept is a log of the program of 2026-11-30, the first that had one: its
// groups with the times at which the log took them, its snapshot, and the state that
// both come to. Nodes of that program and of this one may be members of one cluster,
// and so all of this has to be read for as long as it may be upgraded from, and what is
// written has to be the same: else there is a new number (groupFormat, stateFormat,
// snapshotFormat), and something kept under it.
const kept = "testdata/kept"

var keep = flag.Bool("keep", false, "write testdata/kept anew, for a new format alone")

// A datedLog is a log whose first groups were taken at other times.
type datedLog struct {
	*memlog.Log
	at []time.Time
}

func (l *datedLog) Follow(ctx context.Context, from uint64, fn func(pos uint64, at time.Time, group []byte) error) error {
	return l.Log.Follow(ctx, from, func(pos uint64, at time.Time, group []byte) error {
		if pos <= uint64(len(l.at)) {
			at = l.at[pos-1]
		}
		return fn(pos, at, group)
	})
}

// readKept returns the log that is kept.
func readKept(t *testing.T) (l *datedLog, groups [][]byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(kept, "log"))
	if err != nil {
		t.Fatal(err)
	}
	l = &datedLog{Log: memlog.New()}
	for line := range strings.Lines(string(text)) {
		at, group, _ := strings.Cut(strings.TrimSpace(line), " ")
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(group)
		if err != nil {
			t.Fatal(err)
		}
		l.at, groups = append(l.at, when), append(groups, b)
		if err := l.Append(t.Context(), fmt.Sprint(len(groups)), b); err != nil {
			t.Fatal(err)
		}
	}
	return l, groups
}

// stateOf returns all that a node has, in lines.
func stateOf(t *testing.T, r *store.Replica) string {
	t.Helper()
	var b strings.Builder
	pos, hash, at := r.Applied()
	fmt.Fprintf(&b, "applied %d %x %s\n", pos, hash, at.UTC().Format(time.RFC3339Nano))
	if err := store.Everything(r.DB(), func(key, value []byte) error {
		fmt.Fprintf(&b, "%q %x\n", key, value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func openKept(t *testing.T, l store.Log, snapshots store.Snapshots) *store.Replica {
	t.Helper()
	r, err := store.OpenReplica(store.ReplicaOptions{Log: l, Snapshots: snapshots, Name: "new"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.DB().Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestALogOfAnEarlierProgramIsRead(t *testing.T) {
	if *keep {
		keepLog(t)
	}
	want, err := os.ReadFile(filepath.Join(kept, "state"))
	if err != nil {
		t.Fatal(err)
	}
	l, groups := readKept(t)
	kinds := map[byte]bool{}
	for i, group := range groups {
		again, err := store.Recode(group)
		if err != nil || !bytes.Equal(again, group) {
			t.Errorf("group %d is written in another way: %v\n%x\n%x", i+1, err, group, again)
		}
		for _, kind := range store.Kinds(group) {
			kinds[kind] = true
		}
	}
	for kind := range store.LastKind {
		if !kinds[kind+1] {
			t.Errorf("no group that is kept has a step of kind %d: a new kind needs a new groupFormat, since older nodes pass over what they cannot read", kind+1)
		}
	}
	snapshot, err := os.ReadFile(filepath.Join(kept, "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	r := openKept(t, l, &memlog.Snapshots{})
	if diff := cmp.Diff(string(want), stateOf(t, r)); diff != "" {
		t.Errorf("the log comes to another state (-want +got):\n%s", diff)
	}

	// From the snapshot, and what is behind it.
	snapshots := &memlog.Snapshots{}
	var pos uint64
	if _, err := fmt.Sscan(string(mustRead(t, "position")), &pos); err != nil {
		t.Fatal(err)
	}
	if err := snapshots.Put(t.Context(), pos, bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	late, _ := readKept(t)
	if err := late.Trim(t.Context(), pos); err != nil {
		t.Fatal(err)
	}
	r = openKept(t, late, snapshots)
	if diff := cmp.Diff(string(want), stateOf(t, r)); diff != "" {
		t.Errorf("the snapshot and what is behind it come to another state (-want +got):\n%s", diff)
	}
	if _, err := r.Join(t.Context()); err != nil {
		t.Errorf("go on with the log: %v", err)
	}
	if err := putKey(r.DB(), "lock", "new"); err != nil {
		t.Errorf("go on with the log: %v", err)
	}

	// The snapshot as a backup, which is written as it was.
	var lines strings.Builder
	err = store.ReadBackup(bytes.NewReader(snapshot))(func(key, value []byte) error {
		fmt.Fprintf(&lines, "%q %x\n", key, value)
		return nil
	})
	if err != nil || !strings.Contains(lines.String(), `"k" `) || strings.Contains(lines.String(), `"\x00`) {
		t.Errorf("the backup holds %v\n%s", err, &lines)
	}
	beginning, _, _ := bytes.Cut(snapshot, []byte("\n"))
	var now bytes.Buffer
	if err := r.Backup(&now); err != nil || !bytes.HasPrefix(now.Bytes(), append(beginning, '\n')) {
		t.Errorf("a snapshot begins with %.20q, and one that is kept with %q: %v", now.Bytes(), beginning, err)
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(kept, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// keepLog writes what is kept.
func keepLog(t *testing.T) {
	groups := newSeedLog(t)
	if !slices.ContainsFunc(groups, func(g []byte) bool { return len(g) > 0 }) {
		t.Fatal("no groups")
	}
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	for i, g := range groups {
		at := time.Date(2026, 11, 30, 3, 0, i, 1000*i, time.UTC)
		fmt.Fprintf(w, "%s %x\n", at.Format(time.RFC3339Nano), g)
	}
	_ = w.Flush()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(kept, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("log", b.Bytes())
	l, _ := readKept(t)
	half := &datedLog{Log: memlog.New(), at: l.at}
	for i, g := range groups[:len(groups)/2] {
		if err := half.Append(t.Context(), fmt.Sprint(i), g); err != nil {
			t.Fatal(err)
		}
	}
	r := openKept(t, half, &memlog.Snapshots{})
	var snapshot bytes.Buffer
	if err := r.Backup(&snapshot); err != nil {
		t.Fatal(err)
	}
	write("snapshot", snapshot.Bytes())
	write("position", fmt.Appendln(nil, len(groups)/2))
	write("state", []byte(stateOf(t, openKept(t, l, &memlog.Snapshots{}))))
}
