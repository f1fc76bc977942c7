package clustertest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/cluster/natslog"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/hubtest/clustertest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
)

// direct is a hub of three nodes with nothing on the way to NATS.
func direct(b *testing.B) *clustertest.Cluster {
	return clustertest.On(b, natstest.StartWith(b, 3, natstest.Settings{Direct: true}), 3)
}

// BenchmarkTwinPatches patches twins through the rules: on one node with its disk,
// and through three nodes in turn on three servers of NATS, all on this machine.
func BenchmarkTwinPatches(b *testing.B) {
	one := []*hub.Server{hubtest.New(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())})).Server}
	var three []*hub.Server
	for _, n := range direct(b).Nodes {
		three = append(three, n.Server)
	}
	const devices = 256
	for _, servers := range [][]*hub.Server{one, three} {
		for i := range devices {
			if _, err := servers[0].PutIdentity(hub.ID{Device: fmt.Sprint("d", i)}, hub.IdentitySpec{}, hub.Match{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, writers := range []int{1, 64, devices} {
		for _, servers := range [][]*hub.Server{one, three} {
			b.Run(fmt.Sprintf("nodes=%d/writers=%d", len(servers), writers), func(b *testing.B) {
				var n atomic.Int64
				var all sync.WaitGroup
				for w := range writers {
					all.Go(func() {
						id, s := hub.ID{Device: fmt.Sprint("d", w)}, servers[w%len(servers)]
						for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
							change := hub.TwinChange{Desired: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}
							if _, err := s.PatchTwin(id, change, hub.Match{}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "patches/s")
			})
		}
	}
}

// BenchmarkNATSAlone is what NATS itself takes for what the others do on three nodes:
// to have a message on the disks of a majority, and to ask another client.
func BenchmarkNATSAlone(b *testing.B) {
	servers := natstest.StartWith(b, 3, natstest.Settings{Direct: true})
	connect := func(name string) *natsconn.Conn {
		conn, err := natsconn.Connect(b.Context(), natsconn.Options{URL: servers.URL(), Name: name})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(conn.Close)
		return conn
	}
	one, other := connect("one"), connect("other")
	if err := natslog.Create(b.Context(), one, len(servers.Servers)); err != nil {
		b.Fatal(err)
	}
	log, _, err := natslog.Open(b.Context(), one)
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 800) // as much as a patch
	b.Run("append", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if err := log.Append(b.Context(), fmt.Sprint(b.N, ".", i), data); err != nil {
				b.Fatal(err)
			}
		}
	})
	if _, err := other.Subscribe("iotdm.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		b.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		b.Fatal(err)
	}
	b.Run("ask", func(b *testing.B) {
		for b.Loop() {
			if _, err := one.Request("iotdm.echo", data, time.Second); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMethodAcrossNodes calls a method of a device on the node that it is
// connected to, and on another.
func BenchmarkMethodAcrossNodes(b *testing.B) {
	c := direct(b)
	client, err := mqttdevice.New(mqttdevice.Options{ConnectionString: c.Nodes[0].Device("d"), Addr: c.Nodes[0].MQTTSAddr, TLS: c.Nodes[0].ClientTLS()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	client.HandleMethod("m", func(context.Context, mqttdevice.Method) mqttdevice.Response { return mqttdevice.Response{Status: 200} })
	if err := client.Connect(b.Context()); err != nil {
		b.Fatal(err)
	}
	for i, name := range []string{"its node", "another"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.Nodes[i].InvokeMethod(b.Context(), hub.ID{Device: "d"}, hub.MethodCall{Name: "m", ConnectTimeout: 10e9}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
