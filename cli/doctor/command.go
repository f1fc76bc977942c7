package doctor

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/provision"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

type doctorOptions struct {
	service        target.Service // only a service's credential may have a --hub-name
	device, module string
	link           target.LinkOptions
	provision      provision.Options
	connect        bool
	stay, timeout  command.Seconds
}

// Command returns "iotdm doctor".
func Command(s output.Streams) *urfave.Command {
	o := doctorOptions{stay: command.Seconds(10 * time.Second), timeout: command.Seconds(5 * time.Second)}
	return command.Leaf(&urfave.Command{
		Name:  "doctor",
		Usage: "find out why this machine cannot reach a hub",
		Description: "Goes the way to the hub one step at a time: name, proxy, ports, certificates,\n" +
			"WebSocket, clock, credential, identity. It changes nothing. For example:\n" +
			"   iotdm doctor\n" +
			"   iotdm doctor --connection-string @device.txt\n" +
			"   iotdm doctor -o json --jq '.[] | select(.verdict == \"failed\")'\n\n" +
			"A device's credential is tried over HTTPS, which does not disturb the device.\n" +
			"With --connect it is tried over MQTT, which ends the connection that the\n" +
			"device has, and doctor looks whether another program takes it back.\n\n" +
			"With --provision it goes to the provisioning service of a device, asks what that\n" +
			"knows of it, without registering it, and goes on to the assigned hub.\n\n" +
			"Exits with 4 when the credential is refused, 5 when something does not answer\n" +
			"in time, 1 when another check failed.",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.device, "look at the device `ID` too, as a service"),
			command.ModuleFlag(&o.module, "look at the module `ID` of the device"),
			&urfave.BoolFlag{Name: "connect", Destination: &o.connect, DisableDefaultText: true, Usage: "connect as the device; ends the connection it has"},
			&urfave.GenericFlag{Name: "stay", Value: &o.stay, Usage: "look so `LONG` for a program with the same id"},
			&urfave.GenericFlag{Name: "timeout", Value: &o.timeout, Usage: "give each step so `LONG`"},
		}, o.link.Flags(), o.provision.Flags(), o.service.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.check(), o.service.Output.Check()); err != nil {
				return err
			}
			return examine(ctx.Context, s, o)
		},
	})
}

func (o *doctorOptions) check() error {
	switch {
	case o.module != "" && o.device == "":
		return command.MissingDevice
	case o.timeout == 0:
		return fail.Usagef("--timeout must be longer than 0s")
	case o.stay == 0:
		return fail.Usagef("--stay must be longer than 0s")
	}
	return nil
}

func examine(ctx context.Context, s output.Streams, o doctorOptions) error {
	opt, err := o.find(s)
	if err != nil {
		return err
	}
	opt.Stay, opt.Timeout = time.Duration(o.stay), time.Duration(o.timeout)
	if o.connect {
		if opt.Connection.DeviceID == "" {
			return fail.Usagef("--connect needs the connection string of a device")
		}
		opt.Connect = true
		s.Note("Connecting as %s; this ends the connection it has", target.Noun(hubrest.Target{DeviceID: opt.Connection.DeviceID, ModuleID: opt.Connection.ModuleID}))
	}
	p := newPrinter(s, o.service.Output.ForPeople())
	checks := Run(ctx, opt, Progress{Begin: p.begin, Done: p.done})
	p.end()
	if err := fail.First(ctx.Err(), p.err); err != nil {
		return err
	}
	if !o.service.Output.ForPeople() {
		if err := o.service.Output.Print(s, output.Result{Value: checks, Columns: checkColumns}); err != nil {
			return err
		}
	}
	return Failure(checks)
}

var checkColumns = []output.Column{{"CHECK", "check"}, {"VERDICT", "verdict"}, {"DETAIL", "detail"}, {"REMEDY", "remedy"}}

// Failure is how a command fails that has made the checks; nil if none failed.
func Failure(checks []Check) error {
	status := fail.Failed
	var names []string
	for _, c := range checks {
		switch {
		case c.Verdict != Failed:
			continue
		case c.Refused:
			status = fail.Unauthorized
		case c.TimedOut && status == fail.Failed:
			status = fail.TimedOut
		}
		names = append(names, c.Name)
	}
	if names == nil {
		return nil
	}
	return fail.Errorf(status, "%d of %s failed: %s", len(names), output.Count(len(checks), "check"), strings.Join(names, ", "))
}

// find finds the hub and the credential to examine, and what else this machine
// knows of that hub.
func (o *doctorOptions) find(s output.Streams) (Options, error) {
	link, err := o.link.Link()
	if err != nil {
		return Options{}, err
	}
	opt := Options{Certificate: link.Certificate, WebSocket: link.Transport == mqttdevice.WebSocket, Logger: o.service.Hub.Log}
	if o.provision.Wanted {
		return o.findProvisioning(s, link, opt)
	}
	t, err := o.choose(s, &opt)
	if err != nil {
		return opt, err
	}
	opt.SetHub(t)
	switch c := t.Connection; {
	case c.DeviceID == "":
		opt.Device = hubrest.Target{DeviceID: o.device, ModuleID: o.module}
	case o.device != "" && o.device != c.DeviceID || o.module != "" && o.module != c.ModuleID:
		return opt, fail.Usagef("the connection string is that of device %q; leave out --device, or name the same", c.DeviceID)
	}
	return opt, opt.AddKnowledge(s, o.service.Hub.Data)
}

// findProvisioning finds the provisioning service and the credential to examine.
func (o *doctorOptions) findProvisioning(s output.Streams, link target.Link, opt Options) (Options, error) {
	if o.device != "" || o.module != "" || o.connect || o.service.HubName != "" {
		return opt, fail.Usagef("--provision is for a device before it has a hub; leave out --device, --module, --connect and --hub-name")
	}
	r, err := o.provision.Find(s, &o.service.Hub, link, false)
	if err != nil {
		return opt, err
	}
	opt.SetHub(r.Service)
	opt.Provisioning = &Provisioning{Registration: r.RegistrationOptions, Reach: r.Dial}
	if info, err := localhub.ReadRunning(o.service.Hub.Data); err == nil && info.IDScope == r.IDScope {
		// Without it there is a check less.
		opt.Provisioning.Enrollments, _ = localhub.PolicyConnection(info, localhub.ProvisioningPolicy, "")
		if opt.HubCA, err = localhub.ReadCA(info.CAFile); err != nil {
			return opt, err
		}
	}
	return opt, nil
}

// SetHub fills in which hub t is, and as whom to talk to it.
func (opt *Options) SetHub(t target.Target) {
	opt.Connection, opt.MQTTSAddr, opt.HTTPSAddr = t.Connection, t.MQTTSAddr, t.HTTPSAddr
	opt.AMQPSAddr, opt.NoAMQPS = t.AMQPSAddr, t.NoAMQPS
	if t.Ahead != nil {
		opt.Ahead = t.Ahead()
	}
	if t.TLS != nil {
		opt.Roots = t.TLS.RootCAs
	}
}

// choose finds the hub: unlike other commands, doctor takes a device's
// connection string as well as a service's.
func (o *doctorOptions) choose(s output.Streams, opt *Options) (target.Target, error) {
	hub := &o.service.Hub
	if o.service.HubName != "" {
		t, credential, err := o.service.EntraTarget()
		opt.Source, opt.Credential = "--hub-name", credential
		return t, err
	}
	variables := slices.Concat(target.DeviceVariables, target.ServiceVariables)
	if o.device != "" {
		variables = target.ServiceVariables
	}
	c, source, err := hub.GivenBy(s, variables)
	switch {
	case err != nil:
		return target.Target{}, err
	case source == "":
		dir, err := localhub.Folder(hub.Data)
		if err != nil {
			return target.Target{}, err
		}
		opt.Source = "the local hub's data folder " + dir
		return hub.LocalHub("")
	}
	opt.Source = source
	return hub.Target(c)
}

// AddKnowledge adds what this machine knows of the hub if it is its own, which
// has the data folder data, and the credential for its registry that the
// environment has.
func (opt *Options) AddKnowledge(s output.Streams, data string) error {
	info, err := localhub.ReadRunning(data)
	host, _ := localhub.SplitPort(cmp.Or(opt.Connection.GatewayHostName, opt.Connection.HostName))
	if err == nil && localhub.NamesThisMachine(host, info) && opt.Credential == nil {
		opt.Policies = localhub.PolicyKeys(info)
		if opt.HubCA, err = localhub.ReadCA(info.CAFile); err != nil {
			return err
		}
		if opt.Registry, err = localhub.PolicyConnection(info, localhub.OwnerPolicy, ""); err != nil {
			return err
		}
		return nil
	}
	if opt.Connection.DeviceID == "" {
		return nil
	}
	environment := target.Options{Data: data}
	service, found, err := environment.Given(s, target.ServiceVariables)
	if other, _ := localhub.SplitPort(service.HostName); err == nil && found && service.DeviceID == "" && strings.EqualFold(other, host) {
		opt.Registry = service
	}
	return nil // what is wrong with a variable that was not asked for is not the question
}
