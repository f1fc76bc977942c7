package clustertest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/hubtest/clustertest"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// TestMethodsOverBrokenWays breaks the ways between two nodes and NATS, one after the
// other, while one of them calls a device of the other: each method is answered, and the
// device was called once.
func TestMethodsOverBrokenWays(t *testing.T) {
	ctx := within(t)
	c := clustertest.New(t, 2)
	to, from := c.Nodes[0], c.Nodes[1]
	var mu sync.Mutex
	called := make(map[string]int)
	d, err := mqttdevice.New(mqttdevice.Options{ConnectionString: to.Device("d1"), Addr: to.MQTTSAddr, TLS: to.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	d.HandleMethod("count", func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
		mu.Lock()
		defer mu.Unlock()
		called[string(m.Payload)]++
		return mqttdevice.Response{Status: 200}
	})
	if err := d.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	calling, stop := context.WithCancel(ctx)
	var callers sync.WaitGroup
	var longest time.Duration
	n := 0
	for who := range 8 {
		service := service(t, from)
		callers.Go(func() {
			for i := 0; calling.Err() == nil; i++ {
				began := time.Now()
				a, err := service.InvokeMethod(ctx, hubrest.Target{DeviceID: "d1"}, hubrest.Method{
					Name: "count", Payload: fmt.Appendf(nil, `"%d/%d"`, who, i), ConnectTimeout: 10 * time.Second, ResponseTimeout: 20 * time.Second,
				})
				if err != nil || a.Status != 200 {
					t.Errorf("call %d of %d: %d, %v", i, who, a.Status, err)
				}
				mu.Lock()
				n++
				longest = max(longest, time.Since(began))
				mu.Unlock()
			}
		})
	}
	for i := range 10 {
		time.Sleep(300 * time.Millisecond)
		way := c.Nodes[i%2].Way
		way.Break()
	}
	stop()
	callers.Wait()
	for payload, times := range called {
		if times != 1 {
			t.Errorf("%s was called %d times", payload, times)
		}
	}
	if len(called) != n {
		t.Errorf("%d calls were answered, and %d came to the device", n, len(called))
	}
	t.Logf("%d calls; the longest took %v", n, longest)
}
