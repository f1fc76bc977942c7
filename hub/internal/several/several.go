// Package several is how package clustertest has the hubs of package hubtest be of
// several nodes: who tests against a hub imports hubtest, which must not bring NATS
// along.
package several

import (
	"testing"

	"github.com/iotdm/iotdm/hub/node"
)

// Start starts the nodes of one hub, which end with the test: one for each door, and
// the one that the test itself asks. It is nil where hubs are of one node.
var Start func(t testing.TB, opt node.Options) (rules *node.Node, doors []*node.Node)
