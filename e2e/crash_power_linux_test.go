package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// powerRounds cut the power: the data folder is on a file system in a file, and
// that file is copied when the hub has been stopped in its tracks. What the
// kernel was not told to write, it has not written.
func (c *crash) powerRounds() {
	disk := newCrashDisk(c.t, "96M")
	c.begin(disk.place)
	for c.more() {
		stop := c.writing()
		c.wait(200*time.Millisecond, 1200*time.Millisecond)
		freeze(c.t, c.hub.cmd.Process.Pid)
		disk.cut()
		c.hub.kill()
		stop()
		c.hub.place = disk.mount()
		c.hub.start()
		c.check()
	}
	c.end()
}

// A crashDisk is a file system in a file, whose power can be cut.
type crashDisk struct {
	t *testing.T
	place
	image string
	next  string // what is on the disk after a power cut
	cuts  int
}

// mountDisk has the kernel write by itself what it was not told to as late as it can.
const mountDisk = `mount -o loop,commit=300 "$2" "$1"`

func newCrashDisk(t *testing.T, size string) *crashDisk {
	t.Helper()
	d := &crashDisk{t: t, image: filepath.Join(t.TempDir(), "disk-0")}
	var err error
	if d.place, err = mounted(t, `truncate -s "$3" "$2"; mkfs.ext4 -q "$2"; `+mountDisk, d.image, size); err != nil {
		skip(t, "a file system in a file cannot be mounted, for which one has to be root: "+err.Error())
	}
	return d
}

// cut keeps what is on the disk now. All that use it are frozen, and are killed then.
func (d *crashDisk) cut() {
	d.t.Helper()
	d.cuts++
	d.next = filepath.Join(filepath.Dir(d.image), fmt.Sprintf("disk-%d", d.cuts))
	if out, err := exec.Command("cp", "--sparse=always", d.image, d.next).CombinedOutput(); err != nil {
		d.t.Fatalf("copy the disk: %v\n%s", err, out)
	}
}

// mount mounts the disk again, as it was when the power was cut.
func (d *crashDisk) mount() place {
	d.t.Helper()
	os.Remove(d.image) // the kernel has it until the namespace ends
	d.image = d.next
	next, err := mounted(d.t, mountDisk, d.image)
	if err != nil {
		d.t.Fatal(err)
	}
	d.place.end()
	d.place = next
	return next
}

// freeze stops all threads of processes at once, and returns when none is within a
// system call any more.
func freeze(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	for _, pid := range pids {
		awaitFrozen(t, pid)
	}
}

func awaitFrozen(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(crashPatience); ; pause(context.Background(), time.Millisecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		stopped := err == nil && len(stats) > 0
		for _, name := range stats {
			text, err := os.ReadFile(name)
			_, state, _ := strings.Cut(string(text), ") ")
			if stopped = stopped && (err != nil || strings.HasPrefix(state, "T")); !stopped {
				break
			}
		}
		if stopped {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a process does not stop at SIGSTOP")
		}
	}
}

// TestCrashClusterPower is TestCrashCluster where the power of all is cut: of the
// nats-servers, which have said that it is on a disk what was acknowledged, and of the
// nodes, whose copies need not be as new.
func TestCrashClusterPower(t *testing.T) {
	disk := newCrashDisk(t, "8G") // of which NATS wants to have some in reserve
	c := newCrash(t, 101, *clusterFor/4)
	cluster := newCrashCluster(t, c.r, disk.place)
	c.prepare(cluster.front)
	c.events.gaps = true
	for c.more() {
		stop := c.writing()
		c.wait(200*time.Millisecond, 1500*time.Millisecond)
		cluster.freeze()
		disk.cut()
		cluster.kill()
		stop()
		cluster.move(disk.mount())
		began := time.Now()
		cluster.begin()
		cluster.await()
		t.Logf("round %d: whole again after %v", c.rounds, time.Since(began).Round(100*time.Millisecond))
		c.check()
		cluster.same()
	}
	c.finish()
	cluster.stop()
	t.Logf("%d power cuts; %d requests were acknowledged to the twin writers, %d messages of telemetry, %d of provisioning",
		disk.cuts, c.acknowledged(), c.telemetryAcked(), c.provisioningAcked())
}

func (c *crashCluster) freeze() {
	c.t.Helper()
	var pids []int
	for i, n := range c.nodes {
		pids = append(pids, n.cmd.Process.Pid, c.nats.Servers[i].PID())
	}
	freeze(c.t, pids...)
}

func (c *crashCluster) kill() {
	for i, n := range c.nodes {
		c.down(n)
		n.kill()
		c.nats.Servers[i].Kill()
	}
}

// begin starts all, each of which waits for the others.
func (c *crashCluster) begin() {
	c.t.Helper()
	for i, n := range c.nodes {
		c.nats.Servers[i].Start()
		n.begin()
	}
}
