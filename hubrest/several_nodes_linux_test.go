//go:build !race

package hubrest_test

import _ "github.com/iotdm/iotdm/hub/hubtest/clustertest" // for the flag -nodes
