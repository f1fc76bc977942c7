package hubtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
)

// A test of a back end that reads what devices send with Microsoft's client. The
// hub listens without TLS for it, so that there is nothing to trust.
func TestBackEnd(t *testing.T) {
	h := hubtest.New(t, hubtest.WithAMQPAddrs("", "127.0.0.1:0"), hubtest.WithOptions(node.Options{EventPartitions: 1}))
	backEnd, err := azeventhubs.NewConsumerClientFromConnectionString(h.EventHub().Format(), "", azeventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer backEnd.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	first := true
	partition, err := backEnd.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: &first}})
	if err != nil {
		t.Fatal(err)
	}
	defer partition.Close(context.Background())

	device := h.Device("thermostat-1")
	stored := make(chan error, 1)
	err = h.ReceiveTelemetry(hub.Peer{ID: hub.ID{Device: device.DeviceID}}, hub.Telemetry{Body: []byte("21.5")}, func(err error) { stored <- err })
	if err == nil {
		err = <-stored
	}
	if err != nil {
		t.Fatal(err)
	}
	events, err := partition.ReceiveEvents(ctx, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, from := string(events[0].Body), events[0].SystemProperties["iothub-connection-device-id"]; body != "21.5" || from != "thermostat-1" {
		t.Errorf("the back end read %q from %v", body, from)
	}
}
