package clustertest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/hubtest/clustertest"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func service(t *testing.T, n *clustertest.Node) *hubrest.Client {
	t.Helper()
	c, err := hubrest.New(hubrest.Options{ConnectionString: n.Policy("iothubowner"), TLS: n.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestADeviceAndItsServiceAreAtDifferentNodes registers a device at one node,
// connects it to another, and calls it, changes and reads its twin at the third.
func TestADeviceAndItsServiceAreAtDifferentNodes(t *testing.T) {
	ctx := within(t)
	c := clustertest.New(t, 3)
	d1 := hubrest.Target{DeviceID: "d1"}
	a, b, third := c.Nodes[0], c.Nodes[1], service(t, c.Nodes[2])
	desired := make(chan int64, 10)
	client, err := mqttdevice.New(mqttdevice.Options{ConnectionString: a.Device("d1"), Addr: b.MQTTSAddr, TLS: b.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	client.HandleMethod("greet", func(context.Context, mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Status: 200, Payload: json.RawMessage(`"hello"`)}
	})
	client.HandleDesired(func(_ context.Context, d mqttdevice.Desired) { desired <- d.Version })
	if err := client.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	answer, err := third.InvokeMethod(ctx, d1, hubrest.Method{Name: "greet", ConnectTimeout: 10 * time.Second})
	if err != nil || answer.Status != 200 || string(answer.Payload) != `"hello"` {
		t.Errorf("greet: %d %s, %v", answer.Status, answer.Payload, err)
	}
	for i := range 5 {
		if _, err := third.PatchTwin(ctx, d1, hubrest.TwinChange{Desired: map[string]int{"n": i}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		select {
		case got := <-desired:
			if want := int64(i + 2); got != want {
				t.Errorf("version %d comes where %d should", got, want)
			}
		case <-ctx.Done():
			t.Fatal("the device got no desired properties")
		}
	}
	if _, err := client.PatchReported(ctx, map[string]int{"x": 1}); err != nil {
		t.Fatal(err)
	}
	for i, n := range c.Nodes {
		twin, err := service(t, n).Twin(ctx, d1)
		if err != nil || twin.ConnectionState != "Connected" || !strings.Contains(string(twin.Reported), `"x":1`) {
			t.Errorf("node %d has the twin %+v, %v", i, twin, err)
		}
	}
	nodes, err := third.Nodes(ctx)
	if err != nil || len(nodes) != 3 || !nodes[0].Leads || nodes[1].Leads || !nodes[2].Self {
		t.Errorf("the nodes are %+v, %v", nodes, err)
	}
	for i, n := range c.Nodes {
		if traffic, err := service(t, n).Traffic(ctx); err != nil || traffic.ConnectedDevices != 1 || traffic.MethodCalls < 1 || traffic.TwinWrites != 6 {
			t.Errorf("node %d says of all: %+v, %v", i, traffic, err)
		}
	}
	var refused *hubrest.Error
	if _, err := third.Device(ctx, "nobody"); !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("a device that is not there: %v", err)
	}
}

// TestMetrics sees that a node says what an operator watches of a cluster, and that
// the leader is one.
func TestMetrics(t *testing.T) {
	c := clustertest.New(t, 3)
	leaders := 0
	for _, n := range c.Nodes {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: n.ClientTLS()}}
		r, err := client.Get("https://" + n.HTTPSAddr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		client.CloseIdleConnections()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"iotdm_hub_cluster_members 3\n", "iotdm_hub_cluster_nats_connected 1\n"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not say %q", n.Name, want)
			}
		}
		if strings.Contains(string(text), "iotdm_hub_cluster_leader 1\n") {
			leaders++
		}
	}
	if leaders != 1 {
		t.Errorf("%d nodes lead", leaders)
	}
}
