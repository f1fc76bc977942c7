package clustertest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/hubtest/clustertest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// TestEventsOfAllNodes has a device send to one node and then to another, and the
// node that it is connected to vanish. Every node tells the same of that.
func TestEventsOfAllNodes(t *testing.T) {
	ctx := within(t)
	c := clustertest.New(t, 3)
	connection := c.Nodes[0].Device("d1")
	var want []string // bodies of telemetry
	connect := func(n *clustertest.Node) *mqttdevice.Client {
		t.Helper()
		client, err := mqttdevice.New(mqttdevice.Options{ConnectionString: connection, Addr: n.MQTTSAddr, TLS: n.ClientTLS()})
		if err == nil {
			err = client.Connect(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	send := func(client *mqttdevice.Client) {
		t.Helper()
		for range 20 {
			body := fmt.Sprint(len(want))
			if err := client.Send(ctx, mqttdevice.Message{Payload: []byte(body)}); err != nil {
				t.Fatal(err)
			}
			want = append(want, body)
		}
	}
	first := connect(c.Nodes[1])
	send(first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for c.Nodes[2].ConnectionState(hub.ID{Device: "d1"}).Connected && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // else the next connection takes over, of which no event tells
	}
	send(connect(c.Nodes[2]))

	// What each node tells of the device: telemetry, and connections in order.
	type told struct{ Telemetry, Connections []string }
	events := func(n *clustertest.Node) (got told, numbers []string) {
		t.Helper()
		for e, err := range n.Events(ctx, hub.EventQuery{Device: "d1"}) {
			if err != nil {
				t.Fatal(err)
			}
			switch e.Source {
			case hub.SourceTelemetry:
				got.Telemetry = append(got.Telemetry, string(e.Body))
			case hub.SourceConnectionState:
				i := slices.IndexFunc(e.Properties, func(p hub.Property) bool { return p.Name == "opType" })
				got.Connections = append(got.Connections, e.Properties[i].Value)
				var body struct {
					SequenceNumber string `json:"sequenceNumber"`
				}
				if err := json.Unmarshal(e.Body, &body); err != nil || len(body.SequenceNumber) != 64 {
					t.Errorf("%s: body %s, %v", e.Properties[i].Value, e.Body, err)
				}
				numbers = append(numbers, body.SequenceNumber)
			}
		}
		return got, numbers
	}
	all := told{want, []string{"deviceConnected", "deviceDisconnected", "deviceConnected"}}
	for i, n := range c.Nodes {
		got, numbers := events(n)
		if diff := cmp.Diff(all, got); diff != "" || !slices.IsSorted(numbers) {
			t.Errorf("node %d tells (-want +got), with the numbers %q:\n%s", i, numbers, diff)
		}
	}

	c.Nodes[2].Way.Cut(natstest.Both)
	all.Connections = append(all.Connections, "deviceDisconnected")
	for _, n := range c.Nodes[:2] {
		var got told
		for len(got.Connections) < len(all.Connections) && ctx.Err() == nil {
			got, _ = events(n)
			time.Sleep(50 * time.Millisecond)
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("%s tells when a node has gone (-want +got):\n%s", n.Name, diff)
		}
	}
	c.Nodes[2].Way.Cut(natstest.None)
}
