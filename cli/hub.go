package cli

import (
	"cmp"
	"errors"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

func hubCommands(s streams) *urfave.Command {
	return group("hub", "run and use a hub of your own",
		hubRunCommand(s), hubStatusCommand(s), hubEnvCommand(s), hubConnectionStringCommand(s), hubResetCommand(s), hubEventsCommand(s),
		caCertCommands(s),
		group("trust", "make this machine trust the local hub's certificates", hubTrustInstallCommand(s), hubTrustUninstallCommand(s)),
	)
}

// dataFolder is the folder of the local hub: the one that is given, or the
// user's own.
func dataFolder(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := hub.DefaultFolder()
	if err != nil {
		return "", usagef("%v; name one with --data", err)
	}
	return dir, nil
}

// readRunningHub reads where the local hub listens, and its keys.
func readRunningHub(data string) (hub.Info, error) {
	dir, err := dataFolder(data)
	if err != nil {
		return hub.Info{}, err
	}
	info, err := hub.ReadInfo(dir)
	return info, explainLocalHub(err)
}

// readLocalHub does the same for a hub that may have stopped.
func readLocalHub(data string) (hub.Info, error) {
	info, err := readRunningHub(data)
	if errors.Is(err, hub.ErrNotRunning) {
		err = nil
	}
	return info, err
}

// explainLocalHub says how to come by a hub.
func explainLocalHub(err error) error {
	if errors.Is(err, hub.ErrNeverRun) || errors.Is(err, hub.ErrNotRunning) {
		return &failure{statusNotFound, err.Error() + "; start it with \"iotdm hub run\", or name another hub with --connection-string", err}
	}
	if err != nil {
		return failf(statusFailed, "%v", err)
	}
	return nil
}

// policyConnection is the connection string of a policy of the local hub. An
// empty policy is iothubowner, an empty host the hub's usual name.
func policyConnection(info hub.Info, policy, host string) (sas.ConnectionString, error) {
	policy = cmp.Or(policy, ownerPolicy)
	var names []string
	for _, p := range info.Policies {
		if strings.EqualFold(p.Name, policy) {
			return sas.ConnectionString{
				HostName:            hostWithPort(cmp.Or(host, info.HostName), info.HTTPSAddr, httpsPort),
				SharedAccessKeyName: p.Name,
				SharedAccessKey:     p.PrimaryKey,
			}, nil
		}
		names = append(names, p.Name)
	}
	return sas.ConnectionString{}, failf(statusNotFound, "the local hub has no policy %q; it has %s", policy, strings.Join(names, ", "))
}
