package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// movedIn runs a test with a hub whose clock it moves. In the bubble the
// machine's time goes on only while all wait: what happens by itself would be
// seen in began.
func movedIn(t *testing.T, opt node.Options, run func(t *testing.T, n *node.Node, c *clock.Clock)) {
	synctest.Test(t, func(t *testing.T) {
		opt.Clock = clock.New()
		n := wiretest.NewNode(t, opt)
		wiretest.Create(t, n, hub.ID{Device: "d1"}, hub.IdentitySpec{})
		began := time.Now()
		run(t, n, opt.Clock)
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v of the machine's time", took)
		}
	})
}

// advance moves the clock and returns when what that wakes waits again.
func advance(c *clock.Clock, d time.Duration) {
	c.Advance(d)
	<-time.After(time.Millisecond)
	synctest.Wait()
}

func TestMessagesExpireWhenTheClockIsMoved(t *testing.T) {
	movedIn(t, node.Options{}, func(t *testing.T, n *node.Node, c *clock.Clock) {
		wiretest.SendMessage(t, n, "d1", hub.Message{MessageID: "m1", Ack: hub.AckFull, Expires: c.Now().Add(time.Hour)})
		advance(c, 59*time.Minute)
		wiretest.WantPending(t, n, "d1", 1)
		expires := c.Now().Add(time.Minute)
		advance(c, time.Minute)
		wiretest.WantPending(t, n, "d1", 0)
		batch, ok, err := n.ReceiveFeedback()
		if err != nil || !ok || len(batch.Records) != 1 {
			t.Fatalf("feedback %+v, %v, %v", batch, ok, err)
		}
		f := batch.Records[0]
		if f.OriginalMessageID != "m1" || f.StatusCode != "Expired" || expires.Sub(f.EnqueuedTime).Abs() > time.Second {
			t.Errorf("feedback is %+v, want that m1 expired at %v", f, expires)
		}
	})
}

func TestLocksEndWhenTheClockIsMoved(t *testing.T) {
	movedIn(t, node.Options{}, func(t *testing.T, n *node.Node, c *clock.Clock) {
		wiretest.SendMessage(t, n, "d1", wiretest.Message("1"))
		receive := func() (m hub.ReceivedMessage, ok bool) {
			t.Helper()
			m, ok, err := n.ReceiveMessage("d1", 0)
			if err != nil {
				t.Fatal(err)
			}
			return m, ok
		}
		first, _ := receive()
		advance(c, 58*time.Second)
		if m, ok := receive(); ok {
			t.Fatalf("%q comes while it is locked", m.Body)
		}
		advance(c, 2*time.Second)
		second, ok := receive()
		if !ok || string(second.Body) != "1" {
			t.Fatalf("got %q, %v, want the message again", second.Body, ok)
		}
		if err := n.CompleteMessage("d1", first.LockToken); !errors.Is(err, hub.ErrMessageLockLost) {
			t.Errorf("settled by the first lock: %v, want %v", err, hub.ErrMessageLockLost)
		}
		if err := n.CompleteMessage("d1", second.LockToken); err != nil {
			t.Error(err)
		}
	})
}

func TestJobsStartWhenTheClockIsMoved(t *testing.T) {
	movedIn(t, node.Options{}, func(t *testing.T, n *node.Node, c *clock.Clock) {
		job := wiretest.TwinJob("later", "*", `{"a":1}`)
		job.Start = c.Now().Add(30 * 24 * time.Hour)
		wiretest.CreateJob(t, n, job)
		advance(c, 29*24*time.Hour)
		if got, err := n.Jobs.Get("later"); err != nil || got.Status != jobs.Scheduled {
			t.Errorf("a day before its start the job is %s, %v", got.Status, err)
		}
		c.Advance(24 * time.Hour)
		if got := wiretest.WaitJob(t, n, "later"); got.Status != jobs.Completed || got.Started.Before(job.Start.UTC()) {
			t.Errorf("the job is %s and started at %v, want %v", got.Status, got.Started, job.Start)
		}
		wiretest.WantOutcomes(t, n, "later", map[string]string{"d1": "completed"})
	})
}

func TestJobsRunOutOfTimeWhenTheClockIsMoved(t *testing.T) {
	movedIn(t, node.Options{}, func(t *testing.T, n *node.Node, c *clock.Clock) {
		wiretest.CreateJob(t, n, jobs.Spec{
			ID: "long", Type: jobs.Method, Condition: "*", MaxTime: 4 * time.Minute,
			Method: &hub.MethodCall{Name: "reboot", ConnectTimeout: hub.MaxMethodTimeout},
		})
		synctest.Wait() // it has begun
		advance(c, 3*time.Minute)
		if got, err := n.Jobs.Get("long"); err != nil || got.Status != jobs.Running {
			t.Errorf("before its time is over the job is %s, %v", got.Status, err)
		}
		c.Advance(time.Minute)
		if got := wiretest.WaitJob(t, n, "long"); got.Status != jobs.Completed || got.Statistics.Failed != 1 {
			t.Errorf("the job is %s with %+v", got.Status, got.Statistics)
		}
		wiretest.WantOutcomes(t, n, "long", map[string]string{"d1": "failed GatewayTimeout"})
	})
}

func TestMethodsStopWaitingWhenTheClockIsMoved(t *testing.T) {
	movedIn(t, node.Options{}, func(t *testing.T, n *node.Node, c *clock.Clock) {
		ended := make(chan error, 1)
		go func() {
			_, err := n.InvokeMethod(t.Context(), hub.ID{Device: "d1"}, hub.MethodCall{Name: "reboot", ConnectTimeout: 2 * time.Minute})
			ended <- err
		}()
		synctest.Wait()
		advance(c, time.Minute)
		select {
		case err := <-ended:
			t.Fatalf("half of the time is over, and it ended with %v", err)
		default:
		}
		c.Advance(time.Minute)
		if err := <-ended; !errors.Is(err, hub.ErrDeviceNotOnline) {
			t.Errorf("it ended with %v, want %v", err, hub.ErrDeviceNotOnline)
		}
	})
}

func TestEventsAreTrimmedWhenTheClockIsMoved(t *testing.T) {
	movedIn(t, node.Options{EventAge: 2 * time.Hour}, func(t *testing.T, n *node.Node, c *clock.Clock) {
		kept := func() (list []string) {
			for _, e := range wiretest.Events(t, n, hub.EventQuery{}) {
				list = append(list, e.From.String())
			}
			return list
		}
		advance(c, time.Hour)
		wiretest.Create(t, n, hub.ID{Device: "d2"}, hub.IdentitySpec{})
		synctest.Wait()
		if diff := cmp.Diff([]string{"d1", "d2"}, kept()); diff != "" {
			t.Errorf("events of an hour (-want +got):\n%s", diff)
		}
		advance(c, 4*time.Hour)
		if got := kept(); got != nil {
			t.Errorf("the events of %v are kept for too long", got)
		}
		if at := c.Ahead(); at != 5*time.Hour {
			t.Errorf("the clock is %v ahead", at)
		}
	})
}

func TestAConnectionEndsWhenTheClockIsMoved(t *testing.T) {
	c := clock.New()
	h := wiretest.StartREST(t, node.Options{Clock: c})
	d := wiretest.DialTLS(t, h.Hub)
	d.Connect(h.Device("d1")) // with a token for an hour
	c.Advance(time.Hour)      // and the allowance for clocks that are a little wrong
	d.Settled()
	expired := h.Log.Expect(hub.ErrExpired.Error())
	c.Advance(sas.Skew + time.Second)
	d.WantClosed()
	select {
	case <-expired:
	case <-time.After(wiretest.Patience):
		t.Errorf("the log does not say that %v:\n%s", hub.ErrExpired, h.Log)
	}

	// The same token is refused now, and taken when it is an hour earlier.
	again := wiretest.DialTLS(t, h.Hub)
	again.Send(wiretest.ConnectPacket(t, h.Device("d1")))
	if ack := wiretest.Receive[*packets.ConnackPacket](again); ack.ReturnCode != packets.ErrRefusedNotAuthorised {
		t.Errorf("CONNACK %d, want %d", ack.ReturnCode, packets.ErrRefusedNotAuthorised)
	}
	c.Advance(-time.Hour)
	wiretest.DialTLS(t, h.Hub).Connect(h.Device("d1"))
}

func TestTokensAreJudgedByTheMovedClock(t *testing.T) {
	c := clock.New()
	h := wiretest.StartREST(t, node.Options{Clock: c})
	h.Device("d1")
	get := func(token string, status int) {
		t.Helper()
		h.Do(wiretest.Call{Method: "GET", Path: "/devices/d1", Token: token}).Want(t, status, "")
	}
	token := h.Token("iothubowner") // for an hour
	get(token, 200)
	c.Advance(2 * time.Hour)
	get(token, 401)
	get(h.Token("iothubowner"), 200)
	c.Advance(-2 * time.Hour)
	get(token, 200)
}

func TestTheTimesOfChangesAreTheMovedClocks(t *testing.T) {
	movedIn(t, node.Options{}, func(t *testing.T, n *node.Node, c *clock.Clock) {
		id := hub.ID{Device: "d1"}
		for _, by := range []time.Duration{48 * time.Hour, -72 * time.Hour} {
			advance(c, by)
			v, err := n.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"a":1}`)}, hub.Match{})
			if err != nil {
				t.Fatal(err)
			}
			doc, err := v.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Properties struct {
					Desired struct {
						Metadata struct {
							LastUpdated time.Time `json:"$lastUpdated"`
						} `json:"$metadata"`
					}
				}
			}
			if err := json.Unmarshal(doc, &got); err != nil {
				t.Fatal(err)
			}
			if off := c.Since(got.Properties.Desired.Metadata.LastUpdated); off.Abs() > time.Second {
				t.Errorf("the clock is %v ahead, and the change %v off it", c.Ahead(), off)
			}
		}
	})
}

// A hub that is moved ends as others do.
func TestShutdownOfAMovedHub(t *testing.T) {
	c := clock.New()
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Clock: c}))
	c.Advance(300 * 24 * time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), wiretest.Patience)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}
