//go:build !race

package mqttdevice_test

import _ "github.com/iotdm/iotdm/hub/hubtest/clustertest" // for the flag -nodes
