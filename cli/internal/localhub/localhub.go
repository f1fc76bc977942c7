// Package localhub finds the hub on this machine through its data folder: where
// it listens, by which names it goes, and the keys of its policies.
package localhub

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// Folder is the folder of the local hub: the one that is given, or the
// user's own.
func Folder(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := node.DefaultFolder()
	if err != nil {
		return "", fail.Usagef("%v; name one with --data", err)
	}
	return dir, nil
}

// ReadRunning reads where the local hub listens, and its keys.
func ReadRunning(data string) (node.Info, error) {
	dir, err := Folder(data)
	if err != nil {
		return node.Info{}, err
	}
	info, err := node.ReadInfo(dir)
	return info, explainLocalHub(err)
}

// ClockOf returns how the local hub tells by how much its clock has been moved,
// now and later; nil if it is none that can be.
func ClockOf(info node.Info, data string) func() time.Duration {
	if !info.TestControls {
		return nil
	}
	return func() time.Duration {
		if now, err := ReadRunning(data); err == nil && now.PID == info.PID {
			return now.ClockAhead
		}
		return 0
	}
}

// Read is ReadRunning for a hub that may have stopped.
func Read(data string) (node.Info, error) {
	info, err := ReadRunning(data)
	if errors.Is(err, node.ErrNotRunning) {
		err = nil
	}
	return info, err
}

// explainLocalHub says how to come by a hub.
func explainLocalHub(err error) error {
	if errors.Is(err, node.ErrNeverRun) || errors.Is(err, node.ErrNotRunning) {
		return fail.Wrapf(err, fail.NotFound, "%v; start it with \"iotdm hub run\", or name another hub with --connection-string", err)
	}
	if err != nil {
		return fail.Errorf(fail.Failed, "%v", err)
	}
	return nil
}

// PolicyConnection is the connection string of a policy of the local hub. An
// empty policy is iothubowner, an empty host the hub's usual name.
func PolicyConnection(info node.Info, policy, host string) (sas.ConnectionString, error) {
	name, key, err := findPolicy(info, policy)
	if err != nil {
		return sas.ConnectionString{}, err
	}
	return sas.ConnectionString{
		HostName:            HostWithPort(cmp.Or(host, info.HostName), info.HTTPSAddr, HTTPSPort),
		SharedAccessKeyName: name,
		SharedAccessKey:     key,
	}, nil
}

// EventHubConnection is PolicyConnection for clients of Event Hubs, which read
// the events of the hub. With emulator they do without TLS.
func EventHubConnection(info node.Info, policy, host string, emulator bool) (sas.EventHubConnectionString, error) {
	name, key, err := findPolicy(info, policy)
	if err != nil {
		return sas.EventHubConnectionString{}, err
	}
	addr, port := info.AMQPSAddr, AMQPSPort
	if emulator {
		addr, port = info.AMQPAddr, amqpPort
	}
	return sas.EventHubConnectionString{
		Host: HostWithPort(cmp.Or(host, info.HostName), addr, port), SharedAccessKeyName: name, SharedAccessKey: key,
		EntityPath: node.EventHubName, UseDevelopmentEmulator: emulator,
	}, nil
}

// findPolicy returns the name, as the hub spells it, and the key of a policy. An
// empty policy is iothubowner.
func findPolicy(info node.Info, policy string) (name string, key sas.Key, err error) {
	policy = cmp.Or(policy, OwnerPolicy)
	var names []string
	for _, p := range info.Policies {
		if strings.EqualFold(p.Name, policy) {
			return p.Name, p.PrimaryKey, nil
		}
		names = append(names, p.Name)
	}
	return "", "", fail.Errorf(fail.NotFound, "the local hub has no policy %q; it has %s", policy, strings.Join(names, ", "))
}

// PolicyKeys are the primary and secondary keys of the hub's policies, by the
// policies' names in lower case.
func PolicyKeys(info node.Info) map[string][]sas.Key {
	keys := map[string][]sas.Key{}
	for _, p := range info.Policies {
		keys[strings.ToLower(p.Name)] = []sas.Key{p.PrimaryKey, p.SecondaryKey}
	}
	return keys
}

// ReadCA reads the certificate of the local hub's CA.
func ReadCA(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fail.Errorf(fail.Failed, "the local hub's CA: %v", fail.PlainPathError(err))
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fail.Errorf(fail.Failed, "the local hub's CA: %s holds no certificate in PEM form", file)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fail.Errorf(fail.Failed, "the local hub's CA: %s: %v", file, errors.Unwrap(err))
	}
	return ca, nil
}

// OwnerPolicy has every right on a hub, and ProvisioningPolicy on its provisioning
// service.
const (
	OwnerPolicy        = "iothubowner"
	ProvisioningPolicy = node.ProvisioningPolicy
)

// Flag names the data folder; see Folder.
func Flag(data *string) urfave.Flag {
	return &urfave.StringFlag{Name: "data", Category: "Which hub", Destination: data, EnvVars: []string{"IOTDM_DATA"},
		Usage: "the local hub's data `FOLDER`"}
}
