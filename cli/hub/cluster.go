package hub

import (
	"cmp"
	"context"
	"errors"
	"os"
	"regexp"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/cluster/natsconn"
	"github.com/iotdm/iotdm/hub/store"
)

func clusterCommands(s output.Streams) *urfave.Command {
	return command.Group("cluster", "make and look at a hub of several nodes, on NATS JetStream",
		clusterInitCommand(s), clusterStatusCommand(s), clusterBackupCommand(s), clusterExportCommand(s), clusterRecoverCommand(s))
}

// clusterOptions are where the NATS of a hub with several nodes is.
type clusterOptions struct {
	url, creds, ca string
	insecure       bool

	monitors []string // addresses
}

func (o *clusterOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "cluster", Destination: &o.url, EnvVars: []string{"IOTDM_HUB_CLUSTER"}, Category: "Several nodes",
			Usage: "be one of several nodes of a hub on the NATS at `URL`, such as nats://nats-1:4222,nats://nats-2:4222"},
		&urfave.StringFlag{Name: "cluster-creds", Destination: &o.creds, EnvVars: []string{"IOTDM_HUB_CLUSTER_CREDS"}, Category: "Several nodes",
			Usage: "the `FILE` of the user of NATS: .creds, an nkey seed, or a line user:password"},
		&urfave.StringFlag{Name: "cluster-ca", Destination: &o.ca, EnvVars: []string{"IOTDM_HUB_CLUSTER_CA"}, Category: "Several nodes",
			Usage: "the CAs of NATS's certificates, a PEM `FILE`, unless they are the system's"},
		&urfave.BoolFlag{Name: "cluster-insecure", Destination: &o.insecure, DisableDefaultText: true, EnvVars: []string{"IOTDM_HUB_CLUSTER_INSECURE"}, Category: "Several nodes",
			Usage: "reach NATS on other machines without TLS: who is on the way sees all keys"},
	}
}

func (o *clusterOptions) nats() natsconn.Options {
	return natsconn.Options{URL: o.url, Credentials: o.creds, CA: o.ca, Insecure: o.insecure, Flags: o.typed()}
}

// typed is how people type o.
func (o *clusterOptions) typed() string {
	text := "--cluster " + command.ShellWord(o.url)
	if o.creds != "" {
		text += " --cluster-creds " + command.ShellWord(o.creds)
	}
	if o.ca != "" {
		text += " --cluster-ca " + command.ShellWord(o.ca)
	}
	if o.insecure {
		text += " --cluster-insecure"
	}
	return text
}

// monitorFlag is that of commands that ask the servers themselves. Its value is
// checked by checkMonitor.
func monitorFlag(value *string) urfave.Flag {
	return &urfave.StringFlag{Name: "cluster-monitor", Destination: value, EnvVars: []string{"IOTDM_HUB_CLUSTER_MONITOR"}, Category: "Several nodes",
		Usage: "see at the monitoring port at `URL` of each server of NATS that it keeps what it acknowledges, such as http://nats-1:8222,http://nats-2:8222"}
}

func (o *clusterOptions) checkMonitor(value string) (err error) {
	if value == "" {
		return nil
	}
	if o.monitors, err = natsconn.MonitorURLs(value); err != nil {
		return fail.Usagef("--cluster-monitor: %v", err)
	}
	return nil
}

// monitor asks the servers of NATS of themselves, if it is known where. It tells of
// those that do not answer, and refuses those that lose what they acknowledge.
func (o *clusterOptions) monitor(ctx context.Context, tell func(error)) ([]natsconn.Server, error) {
	servers, missing, err := natsconn.Monitor(ctx, o.nats(), o.monitors)
	for _, m := range missing {
		tell(m)
	}
	return servers, explainCluster(err)
}

// check refuses a command that needs a cluster and has none.
func (o *clusterOptions) check() error {
	if o.url == "" {
		return fail.Usagef("--cluster is missing: say where the NATS of the hub is, such as nats://127.0.0.1:4222")
	}
	return nil
}

// nodeName is what a node may be called.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ownName is the name of a node that was given none.
func ownName(given string) (string, error) {
	if given == "" {
		host, _ := os.Hostname()
		given = cmp.Or(host, "node")
	}
	if !nodeName.MatchString(given) {
		return "", fail.Usagef("--node %q: it must be up to 63 letters, digits, dots, hyphens and underscores, and begin with a letter or digit", given)
	}
	return given, nil
}

// explainCluster gives an error of a cluster its exit status.
func explainCluster(err error) error {
	status := fail.Failed
	switch {
	case err == nil:
		return nil
	case errors.Is(err, natsconn.ErrUnauthorized):
		status = fail.Unauthorized
	case errors.Is(err, natsconn.ErrUnreachable), errors.Is(err, natsconn.ErrNoHub), errors.Is(err, store.ErrNoState):
		status = fail.NotFound
	case errors.Is(err, store.ErrNoLog):
		status = fail.TimedOut
	}
	return fail.Errorf(status, "%v", err)
}
