//go:build !race

package rest_test

import _ "github.com/iotdm/iotdm/hub/hubtest/clustertest" // for the flag -nodes
