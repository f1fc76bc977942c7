package hubtest_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/iotdm/iotdm/hub/hubtest"
)

// A test that runs a device in another language, which has the ports of IoT Hub
// built in. It trusts the hub by its environment.
func Example() {
	TestDevice := func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithAddrs("127.0.0.1:8883", "127.0.0.1:443"))
		device := exec.CommandContext(t.Context(), "python3", "device.py")
		device.Env = append(os.Environ(), h.Env()...)
		device.Env = append(device.Env, "CONNECTION_STRING="+h.Device("d1").Format())
		if out, err := device.CombinedOutput(); err != nil {
			t.Errorf("the device: %v\n%s", err, out)
		}
	}
	_ = TestDevice // go test runs it where it is a function of its own
}
