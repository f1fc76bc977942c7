package node_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// testdata/old is the data folder of a hub of 2026-11-28, the last one that
// stored identities as REST prints them. It has devices and modules with every
// kind of credential, an IoT Edge device and its child, a session, messages,
// feedback, events, jobs, a configuration and a CA. testdata/old.json is what
// that hub answered when it had opened the folder again.

// TestAFolderOfAnOlderHubOpens has this hub answer the same.
func TestAFolderOfAnOlderHubOpens(t *testing.T) {
	now := clock.Stopped(time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC))
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/old")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/old.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded []struct{ Request, Answer string }
	if err := json.Unmarshal(data, &recorded); err != nil {
		t.Fatal(err)
	}
	plain := hub.ID{Device: "plain"}

	t.Run("as it was", func(t *testing.T) {
		h := wiretest.StartREST(t, node.Options{Storage: node.Folder(dir), Clock: now})
		if err := h.Configurations.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range recorded {
			method, rest, _ := strings.Cut(r.Request, " ")
			path, body, _ := strings.Cut(rest, " ")
			a := h.Do(wiretest.Call{Method: method, Path: path, Body: body})
			if diff := cmp.Diff(r.Answer, fmt.Sprint(a.Status, " ", a.Body)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", r.Request, diff)
			}
		}
		// Python and Node rely on the subscriptions of before.
		d := wiretest.DialTLSAt(t, h.Hub, now.Now())
		if !d.Connect(h.Device(plain.Device)) {
			t.Error("there is no session")
		}
		done := make(chan error, 1)
		go func() {
			_, err := h.InvokeMethod(t.Context(), plain, hub.MethodCall{Name: "reboot"})
			done <- err
		}()
		call := wiretest.Receive[*packets.PublishPacket](d)
		d.Send(wiretest.PublishPacket(0, 0, "$iothub/methods/res/200/?$rid="+wiretest.RequestID(call), ""))
		if err := <-done; err != nil {
			t.Errorf("a direct method: %v", err)
		}
		d.Subscribe(1, "devices/plain/messages/devicebound/#")
		d.WantMessage("hello")
		if m, ok, err := h.ReceiveMessage("plain", 0); ok || err != nil {
			t.Errorf("a second message waits: %v, %v", m, err)
		}
	})

	t.Run("and goes on", func(t *testing.T) {
		h := wiretest.StartREST(t, node.Options{Storage: node.Folder(dir), Clock: now})
		etags := make(map[hub.ID]string)
		for i, err := range h.Devices() {
			if err != nil {
				t.Fatal(err)
			}
			changed, err := h.PutIdentity(i.ID, i.Spec(), hub.Match{ETag: i.ETag()})
			if err != nil {
				t.Errorf("update %s: %v", i.ID, err)
			}
			i.Version++
			if diff := cmp.Diff(i, changed); diff != "" {
				t.Errorf("%s is not what it was (-want +got):\n%s", i.ID, diff)
			}
			etags[i.ID] = changed.ETag()
		}
		if len(etags) != 6 {
			t.Errorf("%d devices, want 6", len(etags))
		}
		for id, want := range etags { // read in the form of today
			if i, err := h.Identity(id); err != nil || i.ETag() != want {
				t.Errorf("%s: etag %s, %v, want %s", id, i.ETag(), err, want)
			}
		}
		before, err := h.Twin(plain)
		if err != nil {
			t.Fatal(err)
		}
		after, err := h.PatchTwin(plain, hub.TwinChange{Tags: json.RawMessage(`{"site":"B"}`)}, hub.Match{ETag: before.ETag()})
		if err != nil || after.ETag() == before.ETag() {
			t.Errorf("patch of an old twin: etag %s, then %s, %v", before.ETag(), after.ETag(), err)
		}
		if _, err := h.Jobs.Cancel("later"); err != nil {
			t.Errorf("a job that waits for its start: %v", err)
		}
		next := make(map[int]int64)
		for _, e := range wiretest.Events(t, h.Node, hub.EventQuery{}) {
			if e.Sequence != next[e.Partition] {
				t.Errorf("event %d of partition %d follows %d", e.Sequence, e.Partition, next[e.Partition]-1)
			}
			next[e.Partition] = e.Sequence + 1
		}
	})
}
