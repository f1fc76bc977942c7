package mqttdevice

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

// A watch is a client whose desired properties a test watches.
type watch struct {
	*Client
	p    *peer
	far  *peerConn
	seen chan string // version and patch
}

func newWatch(t *testing.T) *watch {
	w := &watch{p: newPeer(t), seen: make(chan string, 100)}
	w.Client, w.far, _ = connected(t, w.p, func(c *Client) {
		c.HandleDesired(func(_ context.Context, d Desired) { w.seen <- fmt.Sprint(d.Version, " ", string(d.Patch)) })
	})
	return w
}

func (w *watch) notify(version int, body string) {
	w.far.publish(fmt.Sprintf("$iothub/twin/PATCH/properties/desired/?$version=%d", version), body)
}

func (w *watch) section(version int, desired string) {
	w.far.t.Helper()
	body := strings.TrimSuffix(desired, "}")
	if body != "{" {
		body += ","
	}
	w.far.answerTwin(fmt.Sprintf(`{"desired":%s"$version":%d},"reported":{"$version":1}}`, body, version))
}

// expect compares everything the handler has been given since the last time.
func (w *watch) expect(want ...string) {
	w.far.t.Helper()
	synctest.Wait()
	var got []string
	for len(w.seen) > 0 {
		got = append(got, <-w.seen)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.far.t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestDesiredPropertiesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.Close()

		// A notification may come before the answer to GET that includes it, or one that does not.
		w.notify(2, `{"a":1,"$version":2}`)
		w.section(2, `{"a":1,"gone":true}`)
		w.expect(`2 {"a":1,"gone":true}`)
		w.notify(2, `{"a":1,"$version":2}`)
		w.notify(1, `{"a":0,"$version":1}`)
		w.expect()
		w.notify(3, `{"gone":null,"b":{"c":[1]},"$version":3}`)
		w.notify(4, `{"a":2,"$version":4}`)
		w.expect(`3 {"gone":null,"b":{"c":[1]}}`, `4 {"a":2}`)

		// A gap means that one was missed.
		w.notify(6, `{"a":4,"$version":6}`)
		w.section(6, `{"a":4,"b":{"d":1}}`)
		w.expect(`6 {"a":4,"b":{"c":null,"d":1}}`)

		// Nothing happened while the device was away.
		w.far.Close()
		w.far = w.p.accept()
		w.section(6, `{"a":4,"b":{"d":1}}`)
		w.expect()

		// Two changes happened; the section, not their notifications, tells.
		w.far.Close()
		w.far = w.p.accept()
		w.section(8, `{"b":{"d":2},"e":0}`)
		w.expect(`8 {"a":null,"b":{"d":2},"e":0}`)

		// The device was deleted and made again.
		w.far.Close()
		w.far = w.p.accept()
		w.section(1, `{}`)
		w.expect(`1 {"b":null,"e":null}`)
		w.notify(2, `{"x":1,"$version":2}`)
		w.expect(`2 {"x":1}`)

		// What is no JSON object is worth a look.
		w.notify(3, `[`)
		w.section(3, `{"x":2}`)
		w.expect(`3 {"x":2}`)
	})
}

func TestDesiredSectionIsReadAgainAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(t)
		defer w.Close()
		get := next[*packets.PublishPacket](w.far)
		_, rid, _ := strings.Cut(get.TopicName, "$rid=")
		w.far.publish("$iothub/twin/res/429/?$rid="+rid, "")
		w.section(2, `{"a":1}`)
		w.expect(`2 {"a":1}`)
	})
}

func TestSlowDesiredHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		step := make(chan Desired)
		c, far, _ := connected(t, p, func(c *Client) {
			c.HandleDesired(func(ctx context.Context, d Desired) { step <- d })
		})
		defer c.Close()
		far.answerTwin(`{"desired":{"n":1,"$version":1},"reported":{"$version":1}}`)
		synctest.Wait() // the handler is at work
		last := int64(3 * maxDesired)
		for v := int64(2); v <= last; v++ {
			far.publish(fmt.Sprintf("$iothub/twin/PATCH/properties/desired/?$version=%d", v), fmt.Sprintf(`{"n":%d}`, v))
		}
		if got := <-step; got.Version != 1 {
			t.Errorf("first change is %d, want 1", got.Version)
		}
		far.answerTwin(fmt.Sprintf(`{"desired":{"n":%d,"$version":%[1]d},"reported":{"$version":1}}`, last))
		if diff := cmp.Diff(Desired{Patch: raw(fmt.Sprintf(`{"n":%d}`, last)), Version: last}, <-step); diff != "" {
			t.Errorf("change after too many (-want +got):\n%s", diff)
		}
	})
}

func TestDesiredHandlerSetLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		far.publish("$iothub/twin/PATCH/properties/desired/?$version=2", `{"a":1}`)
		synctest.Wait()
		seen := make(chan Desired)
		c.HandleDesired(func(_ context.Context, d Desired) { seen <- d; panic("secret") })
		far.answerTwin(`{"desired":{"a":1,"$version":2},"reported":{"$version":1}}`)
		if got := <-seen; got.Version != 2 {
			t.Errorf("first change is %d, want 2", got.Version)
		}
		far.publish("$iothub/twin/PATCH/properties/desired/?$version=3", `{"a":2}`)
		if got := <-seen; got.Version != 3 {
			t.Errorf("change after a panic is %d, want 3", got.Version)
		}
		c.HandleDesired(nil)
		far.publish("$iothub/twin/PATCH/properties/desired/?$version=4", `{"a":3}`)
		synctest.Wait()
	})
}
