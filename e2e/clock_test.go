package e2e

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/cli"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/node"
)

// TestClockOff pins what a user whose clock is off gets to see: not that the
// key is wrong, but what to do.
func TestClockOff(t *testing.T) {
	data := t.TempDir()
	t.Setenv("IOTDM_DATA", data)
	// A clock that was moved would be told by the data folder.
	off := clock.Stopped(time.Now().Add(3 * time.Hour))
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(data), Clock: off}))
	if err := h.Publish(node.Info{HostName: h.HostName, MQTTSAddr: h.MQTTSAddr, HTTPSAddr: h.HTTPSAddr, AMQPSAddr: h.AMQPSAddr}); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(h.MQTTSAddr, ":")
	device := h.Device("d1")
	device.HostName += ":" + port
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"a device command", []string{"device", "twin", "get", "--connection-string", device.Format()}},
		{"a service command", []string{"service", "device", "list", "--connection-string", h.Policy("iothubowner").Format()}},
		{"a command on the local hub", []string{"service", "device", "list"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			if status := cli.Main(append([]string{"iotdm"}, tt.args...), strings.NewReader(""), &out, &errOut); status != 4 {
				t.Errorf("exit status %d, want 4", status)
			}
			want := regexp.MustCompile(`^iotdm: \S+ refuses the token because this machine's clock is (3h0m0s|2h59m\d\ds) behind the hub's; set it and try again\n$`)
			if !want.MatchString(errOut.String()) {
				t.Errorf("it says %q, want %v", &errOut, want)
			}
		})
	}
}
