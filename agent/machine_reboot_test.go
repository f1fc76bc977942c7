package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// A machine goes down while the reboot command runs, and comes up again.
func TestMachineReboots(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	down := filepath.Join(t.TempDir(), "down")
	m.opt.RebootCommand = "echo going down; : >" + down
	a := m.start()
	first := m.await("the first boot", func(r shown) bool { return r.Boot.ID == "boot-1" })
	if first.Boot.Unasked || first.RebootTime != "2026-01-01T00:00:00.000000Z" {
		t.Errorf("the first start reports %+v", first)
	}

	answer := m.call("reboot")
	var payload struct{ RequestID string }
	if err := json.Unmarshal(answer.Payload, &payload); err != nil || answer.Status != 200 || payload.RequestID == "" {
		t.Fatalf("answer %d %s", answer.Status, answer.Payload)
	}
	stored, err := readJSON[rebootRecord](filepath.Join(m.opt.Folder, "reboot.json"))
	if err != nil || stored.Request == nil || stored.Request.ID != payload.RequestID {
		t.Errorf("after the answer the disk has %+v (%v)", stored, err)
	}
	if got := m.call("rebootDevice"); got.Status != 409 {
		t.Errorf("a second call is answered with %d, want 409", got.Status)
	}
	going := m.awaitOutcome(Rebooting)
	if diff := cmp.Diff("boot-1", going.Reboot.BootID); diff != "" {
		t.Errorf("bootId while rebooting (-want +got):\n%s", diff)
	}
	a.Close()

	m.reboot("boot-2", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	m.start()
	got := m.awaitOutcome(Rebooted)
	want := shown{RebootTime: "2026-01-02T00:00:00.000000Z"}
	want.Boot.ID = "boot-2"
	want.Reboot = RebootRequest{ID: payload.RequestID, Method: "reboot", Attempt: 1, Outcome: Rebooted, BootID: "boot-2"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(RebootRequest{}, "RequestedAt", "Duration")); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
	if got.Reboot.Duration <= 0 || got.Reboot.RequestedAt.IsZero() {
		t.Errorf("reported %+v", got.Reboot)
	}
}

func TestRebootThatDoesNotHappen(t *testing.T) {
	for _, tt := range []struct {
		name, command string
		grace         time.Duration
		outcome       Outcome
		reason        string
	}{
		{"the command fails", "echo no right to reboot >&2; exit 7", 0, CommandFailed, "the reboot command failed: exit status 7: no right to reboot"},
		{"the command does not exist", "/nowhere/reboot", 0, CommandFailed, "the reboot command failed: exit status 127: "},
		{"the command has no effect", "true", time.Millisecond, NotRebooted, "the reboot command"},
		{"the command hangs", "exec sleep 1000", time.Millisecond, NotRebooted, "the reboot command had not ended after 1ms and was stopped"},
		{"the command is killed", "kill -9 $$", 3 * time.Second, CommandFailed, "the reboot command failed: signal: killed"},
		{"the command floods", "yes", 0, CommandFailed, "the reboot command failed: the command printed too much and was killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, hubtest.New(t))
			m.opt.RebootCommand, m.opt.RebootGrace = tt.command, tt.grace
			m.start()
			m.call("reboot")
			got := m.awaitOutcome(tt.outcome)
			if !strings.HasPrefix(got.Reboot.Reason, tt.reason) || len(got.Reboot.Reason) > 600 {
				t.Errorf("reason %q, want %q", got.Reboot.Reason, tt.reason)
			}
			// The device goes on, and counts.
			if r := m.call("reboot"); r.Status != 200 {
				t.Errorf("the next call is answered with %d %s", r.Status, r.Payload)
			}
			m.await("a second attempt", func(r shown) bool { return r.Reboot.Attempt == 2 })
		})
	}
}

// Wherever the agent is killed, the next start reports what has happened.
func TestKilledAtEachStep(t *testing.T) {
	asked := time.Now().Add(-time.Hour).UTC()
	for _, tt := range []struct {
		name    string
		request *RebootRequest // on disk when the agent was killed
		boot    string         // at the next start
		want    Outcome
		reason  string
		unasked bool
	}{
		{"before it was answered", &RebootRequest{Outcome: accepted}, "boot-1", NotRebooted, "the agent was started again before it ran the reboot command", false},
		{"before it was answered, and the machine went down", &RebootRequest{Outcome: accepted}, "boot-2", Rebooted, "", false},
		{"while the command ran", &RebootRequest{Outcome: Rebooting}, "boot-1", NotRebooted, "the agent was started again, and the machine is still up", false},
		{"by the reboot", &RebootRequest{Outcome: Rebooting}, "boot-2", Rebooted, "", false},
		{"before it reported the boot", &RebootRequest{Outcome: Rebooted, BootID: "boot-1"}, "boot-1", Rebooted, "", false},
		{"before it reported a failure", &RebootRequest{Outcome: CommandFailed, Reason: "because"}, "boot-1", CommandFailed, "because", false},
		{"after a failure, by a boot that nobody asked for", &RebootRequest{Outcome: CommandFailed, Reason: "because"}, "boot-2", CommandFailed, "because", true},
		{"after a reboot, by another", &RebootRequest{Outcome: Rebooted, BootID: "boot-1"}, "boot-2", Rebooted, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, hubtest.New(t))
			m.opt.RebootCommand = "true"
			q := *tt.request
			q.ID, q.Method, q.RequestedAt, q.Attempt = "r-1", "reboot", asked, 1
			doc, err := json.Marshal(rebootRecord{Boot: m.boot, Request: &q})
			if err != nil {
				t.Fatal(err)
			}
			if err := writeDurably(filepath.Join(m.opt.Folder, "reboot.json"), doc); err != nil {
				t.Fatal(err)
			}
			// Its clock is of no importance: here it says that the boot was before the request.
			m.reboot(tt.boot, m.boot.Time)
			m.start()
			got := m.await(string(tt.want), func(r shown) bool { return r.Reboot.Outcome == tt.want && r.Boot.ID == tt.boot })
			if got.Reboot.ID != "r-1" || got.Reboot.Reason != tt.reason || got.Boot.Unasked != tt.unasked {
				t.Errorf("reported %+v, want reason %q, unasked %v", got, tt.reason, tt.unasked)
			}
		})
	}
}

func TestUnaskedBoot(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	m.opt.RebootCommand = "true"
	a := m.start()
	m.await("the first boot", func(r shown) bool { return r.Boot.ID == "boot-1" })
	a.Close()
	m.reboot("boot-2", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	m.start()
	got := m.await("the second boot", func(r shown) bool { return r.Boot.ID == "boot-2" })
	if !got.Boot.Unasked || got.RebootTime != "2026-01-02T00:00:00.000000Z" || got.Reboot != (RebootRequest{}) {
		t.Errorf("reported %+v", got)
	}
}

// The folder is gone, as if it had been in memory. The twin knows what was under way.
func TestFolderIsLost(t *testing.T) {
	for _, tt := range []struct {
		boot string
		want Outcome
	}{{"boot-1", NotRebooted}, {"boot-2", Rebooted}} {
		t.Run(string(tt.want), func(t *testing.T) {
			m := newMachine(t, hubtest.New(t))
			m.opt.RebootCommand = "true"
			a := m.start()
			m.call("reboot")
			asked := m.awaitOutcome(Rebooting).Reboot.ID
			a.Close()
			if err := os.RemoveAll(m.opt.Folder); err != nil {
				t.Fatal(err)
			}
			m.reboot(tt.boot, m.boot.Time)
			m.start()
			if got := m.awaitOutcome(tt.want); got.Reboot.ID != asked || got.Boot.Unasked {
				t.Errorf("reported %+v", got)
			}
		})
	}
}

// The machine starts with a clock that is years behind, and gets the time from the network.
func TestClockIsSetAfterTheBoot(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	m.opt.RebootCommand = "exit 1"
	m.reboot("boot-1", time.Date(1970, 1, 1, 0, 0, 9, 0, time.UTC))
	a := m.start()
	m.await("the wrong time", func(r shown) bool { return r.RebootTime == "1970-01-01T00:00:09.000000Z" })
	m.reboot("boot-1", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	a.Close()
	m.start()
	got := m.await("the right time", func(r shown) bool { return r.RebootTime == "2026-01-01T00:00:00.000000Z" })
	if got.Boot.Unasked {
		t.Error("setting the clock counts as a boot")
	}
}

func TestRebootRefused(t *testing.T) {
	t.Run("the folder cannot be written", func(t *testing.T) {
		m := newMachine(t, hubtest.New(t))
		m.opt.RebootCommand = "exit 9"
		if err := os.WriteFile(m.opt.Folder, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m.start()
		if r := m.call("reboot"); r.Status != 500 {
			t.Errorf("answered with %d %s", r.Status, r.Payload)
		}
		if got := m.awaitOutcome(Refused); !strings.Contains(got.Reboot.Reason, m.opt.Folder) {
			t.Errorf("reason %q", got.Reboot.Reason)
		}
	})
	t.Run("boots cannot be told apart", func(t *testing.T) {
		m := newMachine(t, hubtest.New(t))
		m.opt.RebootCommand = "exit 9"
		m.boot = Boot{}
		m.start()
		if r := m.call("reboot"); r.Status != 500 {
			t.Errorf("answered with %d %s", r.Status, r.Payload)
		}
		if got := m.awaitOutcome(Refused); got.Reboot.Reason != "no boot clock" || got.RebootTime != "" {
			t.Errorf("reported %+v", got)
		}
	})
	t.Run("there is no folder", func(t *testing.T) {
		m := newMachine(t, hubtest.New(t))
		m.opt.RebootCommand, m.opt.Folder = "true", ""
		if _, err := New(m.opt); err == nil {
			t.Error("no error")
		}
	})
}

// What cannot be read is no reason to stay down.
func TestDamagedRecord(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	m.opt.RebootCommand = "exit 3"
	if err := writeDurably(filepath.Join(m.opt.Folder, "reboot.json"), []byte(`{"boot":`)); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.await("the boot", func(r shown) bool { return r.Boot.ID == "boot-1" && !r.Boot.Unasked })
	m.call("reboot")
	m.awaitOutcome(CommandFailed)
}

// A caller who got no answer must not have the machine rebooted all the same.
func TestAnswerThatCannotBeSent(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	ran := filepath.Join(t.TempDir(), "ran")
	m.opt.RebootCommand = ": >" + ran
	a, err := New(m.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	reboot, err := newMachineReboot(a)
	if err != nil {
		t.Fatal(err)
	}
	r := reboot.handle(t.Context(), mqttdevice.Method{Name: "reboot"})
	if r.Status != 200 {
		t.Fatalf("answered with %d", r.Status)
	}
	r.Sent(errors.New("connection lost"))
	stored, err := readJSON[rebootRecord](filepath.Join(m.opt.Folder, "reboot.json"))
	if err != nil || stored.Request.Outcome != NotRebooted || !strings.Contains(stored.Request.Reason, "connection lost") {
		t.Errorf("on disk: %+v (%v)", stored.Request, err)
	}
	if len(reboot.asked) != 0 {
		t.Error("the reboot goes on")
	}
}

// A report that waits for a connection must not hold up the reboot.
func TestTellingIsBounded(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	m.opt.RebootCommand = "true"
	a, err := New(m.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.reboots.telling <- struct{}{} // another report is under way
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.reboots.tell(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("tell ends with %v", err)
	}
}

func TestKernelBoot(t *testing.T) {
	first, err := readBoot()
	if err != nil {
		t.Fatal(err)
	}
	second, err := readBoot()
	if err != nil || !first.same(second) || first.Time.After(time.Now()) || first.Time.IsZero() {
		t.Errorf("%+v, then %+v (%v)", first, second, err)
	}
}
