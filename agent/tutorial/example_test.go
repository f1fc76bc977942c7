package tutorial_test

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/iotdm/iotdm/agent/tutorial"
)

// What a device that is rebooted says to its hub.
func Example() {
	out := json.NewEncoder(os.Stdout)
	for _, method := range tutorial.Methods() {
		fmt.Println("when", method, "is called:")
		out.Encode(tutorial.Report(time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("CET", 3600))))
		out.Encode(tutorial.Response(200, tutorial.Answer).Payload)
	}
	// Output:
	// when rebootDevice is called:
	// {"rebootTime":"2026-01-02T03:04:05.000000Z"}
	// {"Response":"This is the response from the device"}
	// when reboot is called:
	// {"rebootTime":"2026-01-02T03:04:05.000000Z"}
	// {"Response":"This is the response from the device"}
}
