package e2e

import (
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// TestTheExampleOfNATSIsWhatAHubNeeds reads the configuration that docs/CLUSTER.md shows, as a nats-server does.
func TestTheExampleOfNATSIsWhatAHubNeeds(t *testing.T) {
	t.Setenv("NATS_NAME", "nats-1")
	t.Setenv("NATS_ROUTES", `["nats://route:secret@nats-2:6222", "nats://route:secret@nats-3:6222"]`)
	t.Setenv("NATS_ROUTE_PASSWORD", "secret")
	t.Setenv("NATS_HUB_PASSWORD", "secret")
	opt, err := server.ProcessConfigFile(filepath.Join("..", "examples", "cluster", "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if !opt.JetStream || !opt.SyncAlways || len(opt.Routes) != 2 || opt.ServerName != "nats-1" {
		t.Errorf("JetStream %v, sync always %v, %d routes, name %q", opt.JetStream, opt.SyncAlways, len(opt.Routes), opt.ServerName)
	}
	if len(opt.Users) != 1 || opt.Users[0].Permissions == nil {
		t.Fatalf("users: %+v; want the hub's alone, with what it may do", opt.Users)
	}
}
