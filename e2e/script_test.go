package e2e

import (
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/iotdm/iotdm/cli"
	"github.com/iotdm/iotdm/hub/cluster/natstest"
)

// TestMain lets the scripts run this test's binary as iotdm, and as the nats-server that go.mod has.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"iotdm":       func() { os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) },
		"nats-server": serveNATS,
	})
}

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

// TestScripts runs testdata/script. A script is a user with a home, a data
// folder and free ports of its own. Beside the commands of testscript it has
//
//	status N COMMAND...                run the command, which exits with N
//	certificate NAME COMMON-NAME [CA]  make a certificate (certificate_test.go)
//	serve NAME DIR                     serve files over HTTP (serve_test.go)
//	nats NAME                          start a server of NATS, whose address is in $NAME
//	listen ADDRESS                     listen there until the script ends
//
// "go test -run TestScripts/NAME -update" rewrites the expected output in a
// script after a wanted change.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("IOTDM_DATA", filepath.Join(e.WorkDir, "data"))
			e.Setenv("IOTDM_DEVICE_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("IOTDM_HUB_MQTTS_ADDR", "127.0.0.1:0")
			e.Setenv("IOTDM_HUB_HTTPS_ADDR", "127.0.0.1:0")
			e.Setenv("IOTDM_HUB_AMQPS_ADDR", "127.0.0.1:0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": checkStatus, "certificate": writeCertificate, "serve": serveFolder, "nats": startNATS(t), "listen": listen},
	})
}

// startNATS starts servers that end with t, whose monitoring port is in NAME_MONITOR.
func startNATS(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		lazy := len(args) == 2 && args[1] == "lazy"
		if neg || len(args) != 1 && !lazy {
			ts.Fatalf("usage: nats NAME [lazy]")
		}
		c := natstest.StartWith(t, 1, natstest.Settings{LazySync: lazy})
		ts.Setenv(args[0], c.URL())
		ts.Setenv(args[0]+"_MONITOR", c.Servers[0].MonitorURL())
	}
}

// listen waits until no other test has the address.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listen ADDRESS")
	}
	l, err := net.Listen("tcp", args[0])
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l, err = net.Listen("tcp", args[0])
	}
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
}

func checkStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}
