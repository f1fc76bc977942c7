package device

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/provision"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// fleetTag is the tag of what a fleet registers; its value is the prefix of the ids.
const fleetTag = "fleet"

// fleetDevices are the devices of a fleet, and what is to be said of them at the end.
type fleetDevices struct {
	options []mqttdevice.Options
	target  target.Target // the hub, or that of the first device
	host    string

	registration *provision.Registration // of devices that register; nil: they are registered

	prefix  string // of those in a registry; empty: they are in none, or not this fleet's
	ids     []string
	created int // at least so many of them, by this fleet
}

// fleetDevices finds out which devices to play, and registers them if need be.
func (o *deviceRunOptions) fleetDevices(ctx context.Context, s output.Streams) (*fleetDevices, error) {
	link, err := o.as.link.Link()
	if err != nil {
		return nil, err
	}
	if link.Transport == mqttdevice.Auto && !o.fleet.anyWay {
		link.Transport = mqttdevice.TCP // thousands that look for another way make a storm of two
	}
	if o.fleet.file != "" {
		return o.listedDevices(s, link)
	}
	if o.as.provision.Wanted {
		return o.registeringDevices(s, link)
	}
	c, found, err := o.as.hub.Given(s, target.DeviceVariables)
	if err != nil {
		return nil, err
	}
	var t target.Target
	switch {
	case found && c.DeviceID != "":
		return nil, fail.Usagef("this is the connection string of device %q; many devices need that of a policy such as %s, or --connection-strings", c.DeviceID, localhub.OwnerPolicy)
	case found:
		t, err = o.as.hub.Target(c)
	default:
		t, err = o.as.hub.LocalHub("")
	}
	if err != nil {
		return nil, err
	}
	t.Link = link
	f := &fleetDevices{target: t, host: t.Host(), prefix: o.fleet.prefix}
	for i := range o.fleet.count {
		f.ids = append(f.ids, f.prefix+strconv.Itoa(i+1))
	}
	client, err := t.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if t.Local || o.fleet.create {
		err = f.register(ctx, s, client)
	} else {
		err = f.checkRegistered(ctx, client)
	}
	if err != nil {
		err = t.Explain(ctx, err, target.NoIdentity)
		if f.created > 0 {
			err = errors.Join(err, f.leave(context.WithoutCancel(ctx), s, o.fleet.cleanup))
		}
		return nil, err
	}
	f.actAs(t)
	return f, nil
}

// actAs makes the options of the devices. They sign with the key of the policy, which may act as any device
// ("Control access to IoT Hub with shared access signatures" calls the program that does so a token service):
// nobody has to ask for the keys of thousands of devices.
func (f *fleetDevices) actAs(t target.Target) {
	c := t.Connection
	if t.Link.Transport != mqttdevice.WebSocket {
		c.HostName, _ = localhub.SplitPort(c.HostName) // the port is that of REST
	}
	link := fleetLink(t)
	for _, id := range f.ids {
		c.DeviceID = id
		link.ConnectionString = c
		f.options = append(f.options, link)
	}
}

// fleetLink is how a device of a fleet connects.
func fleetLink(t target.Target) mqttdevice.Options {
	options := t.DeviceOptions()
	config := &tls.Config{}
	if options.TLS != nil {
		config = options.TLS.Clone()
	}
	// Key exchange that withstands a quantum computer takes a third of a handshake, and what the devices of a
	// fleet have to say is made up.
	config.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
	options.TLS = config
	return options
}

// register creates the devices that are missing.
func (f *fleetDevices) register(ctx context.Context, s output.Streams, client *hubrest.Client) error {
	tags, err := json.Marshal(map[string]string{fleetTag: f.prefix})
	if err != nil {
		return err
	}
	progress, seen := output.NewTally(s), 0
	defer progress.Clear()
	for ids := range slices.Chunk(f.ids, hubrest.MaxBulk) {
		entries := make([]hubrest.BulkEntry, len(ids))
		for i, id := range ids {
			keys := hubrest.SymmetricKey{PrimaryKey: sas.NewKey(), SecondaryKey: sas.NewKey()}
			entries[i] = hubrest.BulkEntry{ID: id, ImportMode: hubrest.ImportCreate, Status: hubrest.Enabled, Tags: tags,
				Authentication: hubrest.Authentication{Type: hubrest.AuthSAS, SymmetricKey: keys}}
		}
		done, err := client.Bulk(ctx, entries)
		if err != nil {
			return err
		}
		for _, e := range done.Errors {
			if !isThere(e) {
				return fail.Errorf(fail.Failed, "register the fleet: %v", e)
			}
		}
		f.created += len(ids) - len(done.Errors)
		seen += len(ids)
		progress.Show(seen, fmt.Sprintf("Registering devices: %d of %d", seen, len(f.ids)))
	}
	progress.Clear()
	if f.created > 0 {
		s.Note("Created %s on %s", devicesNamed(f.ids, f.created), f.hubName())
	}
	return nil
}

func isThere(e hubrest.BulkError) bool { return e.Code == 409001 || e.Name == "DeviceAlreadyExists" }

func (f *fleetDevices) hubName() string {
	if f.target.Local {
		return "the local hub"
	}
	return f.host
}

// devicesNamed speaks of n devices, all or some of ids.
func devicesNamed(ids []string, n int) string {
	if n == 1 && len(ids) == 1 {
		return fmt.Sprintf("device %q", ids[0])
	}
	names := fmt.Sprintf("%s to %s", ids[0], ids[len(ids)-1])
	if n == len(ids) {
		return fmt.Sprintf("the %d devices %s", n, names)
	}
	return fmt.Sprintf("%d of the devices %s", n, names)
}

// checkRegistered fails when devices are missing.
func (f *fleetDevices) checkRegistered(ctx context.Context, client *hubrest.Client) error {
	found, err := f.query(ctx, client, "STARTSWITH(deviceId, "+condition.Quote(f.prefix)+")")
	if answer, ok := errors.AsType[*hubrest.Error](err); ok && errors.Is(answer, hubrest.ErrUnauthorized) {
		return nil // with the right to connect alone, connecting has to tell
	}
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(f.ids), func(id string) bool { return found[id] })
	switch len(missing) {
	case 0:
		return nil
	case 1:
		return fail.Errorf(fail.NotFound, "device %q does not exist on %s; register it with --create", missing[0], f.host)
	}
	return fail.Errorf(fail.NotFound, "%d devices, such as %q, do not exist on %s; register them with --create", len(missing), missing[0], f.host)
}

// query returns the ids of the devices that a condition chooses.
func (f *fleetDevices) query(ctx context.Context, client *hubrest.Client, condition string) (map[string]bool, error) {
	found := make(map[string]bool)
	for row, err := range client.Query(ctx, "SELECT deviceId FROM devices WHERE "+condition, 0) {
		if err != nil {
			return nil, err
		}
		var d struct{ DeviceID string }
		if err := json.Unmarshal(row, &d); err != nil {
			return nil, fmt.Errorf("find the devices: the hub's answer is not as documented: %w", err)
		}
		found[d.DeviceID] = true
	}
	return found, nil
}

// How long deleting may take after Ctrl-C, and finding out what is left.
const (
	cleanupTimeout = 2 * time.Minute
	leaveTimeout   = 3 * time.Second
)

// leave says which devices stay registered, or deletes those that are the fleet's.
func (f *fleetDevices) leave(ctx context.Context, s output.Streams, cleanup bool) error {
	if f.prefix == "" {
		return nil
	}
	patience := leaveTimeout
	if cleanup {
		patience = cleanupTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := f.target.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	tagged, err := f.query(ctx, client, "tags."+fleetTag+" = "+condition.Quote(f.prefix))
	ours := slices.DeleteFunc(slices.Clone(f.ids), func(id string) bool { return !tagged[id] })
	if err != nil || len(ours) == 0 {
		if !cleanup {
			return nil // the hub may be gone, and what is left there is no news
		}
		return f.target.Explain(ctx, err, target.NoIdentity)
	}
	if !cleanup {
		s.Note("%s registered on %s, with tags.%s = %s; --cleanup deletes %s", phrase.Choose(len(ours) == 1, "1 device stays", fmt.Sprint(len(ours), " devices stay")),
			f.hubName(), fleetTag, condition.Quote(f.prefix), phrase.Choose(len(ours) == 1, "it", "them"))
		return nil
	}
	progress, deleted := output.NewTally(s), 0
	defer progress.Clear()
	for ids := range slices.Chunk(ours, hubrest.MaxBulk) {
		entries := make([]hubrest.BulkEntry, len(ids))
		for i, id := range ids {
			entries[i] = hubrest.BulkEntry{ID: id, ImportMode: hubrest.ImportDelete}
		}
		done, err := client.Bulk(ctx, entries)
		if err != nil {
			return f.target.Explain(ctx, err, target.NoIdentity)
		}
		for _, e := range done.Errors {
			if e.Code != 404001 && e.Name != "DeviceNotFound" {
				return fail.Errorf(fail.Failed, "delete the fleet: %v", e)
			}
		}
		deleted += len(ids)
		progress.Show(deleted, fmt.Sprintf("Deleting devices: %d of %d", deleted, len(ours)))
	}
	progress.Clear()
	s.Note("Deleted %s", devicesNamed(f.ids, len(ours)))
	return nil
}
