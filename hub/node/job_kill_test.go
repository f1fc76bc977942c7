package node_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// put sends a request to the hub and wants 200.
func (h killedHub) put(t *testing.T, path, body string) {
	t.Helper()
	token, err := sas.Sign("localhost", h.service.SharedAccessKeyName, h.service.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("PUT", "https://"+h.https+path+"?api-version=2021-04-12", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "localhost"
	req.Header.Set("Authorization", token)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: trustAnyone}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT %s: %s", path, resp.Status)
	}
}

// TestJobResumesAfterAKill kills a hub while a device has a call of a job that
// it has not answered. Nobody can know whether it was called, so it is called
// again, and the result says so.
func TestJobResumesAfterAKill(t *testing.T) {
	dir := t.TempDir()
	killed := startToKill(t, dir)
	d := dialAddr(t, killed.mqtts)
	d.Connect(killed.device, wiretest.CleanSession)
	d.Subscribe(0, "$iothub/methods/POST/#")
	killed.put(t, "/jobs/v2/job-1", `{"type":"scheduleDeviceMethod","cloudToDeviceMethod":{"methodName":"reboot"},"queryCondition":"deviceId IN ['d1']"}`)
	wiretest.Receive[*packets.PublishPacket](d)
	killed.kill()

	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	again := wiretest.DialTLS(t, h)
	again.Connect(h.Device("d1"), wiretest.CleanSession)
	again.Subscribe(0, "$iothub/methods/POST/#")
	p := wiretest.Receive[*packets.PublishPacket](again)
	again.Send(wiretest.PublishPacket(0, 0, "$iothub/methods/res/200/?$rid="+wiretest.RequestID(p), "1"))
	ctx, cancel := context.WithTimeout(t.Context(), wiretest.Patience)
	defer cancel()
	if _, err := h.Jobs.Wait(ctx, "job-1"); err != nil {
		t.Fatal(err)
	}
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{"d1": "completed 200 1 repeated"})
}

// TestJobRepeatsACallOnceOverManyKills kills the hub again while the call is
// repeated. A device that reboots when it is called must not do so for ever: there
// is no third call, in this life of the hub nor in the next.
func TestJobRepeatsACallOnceOverManyKills(t *testing.T) {
	dir := t.TempDir()
	for life := range 2 {
		killed := startToKill(t, dir)
		d := dialAddr(t, killed.mqtts)
		d.Connect(killed.device, wiretest.CleanSession)
		d.Subscribe(0, "$iothub/methods/POST/#")
		if life == 0 {
			killed.put(t, "/jobs/v2/job-1", `{"type":"scheduleDeviceMethod","cloudToDeviceMethod":{"methodName":"reboot"},"queryCondition":"deviceId IN ['d1']"}`)
		}
		wiretest.Receive[*packets.PublishPacket](d)
		killed.kill()
	}
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	d := wiretest.Respond(t, h, "d1", 200, "1", nil)
	job := wiretest.WaitJob(t, h.Node, "job-1")
	if job.Status != jobs.Completed || job.Statistics.Failed != 1 {
		t.Errorf("the job is %s, %+v", job.Status, job.Statistics)
	}
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{"d1": "failed GatewayTimeout repeated"})
	if n := d.Calls.Load(); n != 0 {
		t.Errorf("the device is called %d more times", n)
	}
	for row := range h.Jobs.Devices("job-1") {
		if !strings.Contains(string(row), "the hub stopped during the call, and again when it was repeated") {
			t.Errorf("the row does not say why: %s", row)
		}
	}
}
