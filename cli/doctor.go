package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
)

type doctorOptions struct {
	service        serviceOptions // only a service's credential may have a --hub-name
	device, module string
	link           linkOptions
	connect        bool
	stay, timeout  seconds
}

func doctorCommand(s streams) *urfave.Command {
	o := doctorOptions{stay: seconds(10 * time.Second), timeout: seconds(5 * time.Second)}
	return leaf(&urfave.Command{
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
			"Exits with 4 when the credential is refused, 5 when something does not answer\n" +
			"in time, 1 when another check failed.",
		Flags: concat([]urfave.Flag{
			deviceFlag(&o.device, "look at the device `ID` too, as a service"),
			moduleFlag(&o.module, "look at the module `ID` of the device"),
			&urfave.BoolFlag{Name: "connect", Destination: &o.connect, DisableDefaultText: true, Usage: "connect as the device; ends the connection it has"},
			&urfave.GenericFlag{Name: "stay", Value: &o.stay, Usage: "look so `LONG` for a program with the same id"},
			&urfave.GenericFlag{Name: "timeout", Value: &o.timeout, Usage: "give each step so `LONG`"},
		}, o.link.flags(), o.service.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := firstError(o.check(), o.service.output.check()); err != nil {
				return err
			}
			return examine(ctx.Context, s, o)
		},
	})
}

func (o *doctorOptions) check() error {
	switch {
	case o.module != "" && o.device == "":
		return missingDevice
	case o.timeout == 0:
		return usagef("--timeout must be longer than 0s")
	case o.stay == 0:
		return usagef("--stay must be longer than 0s")
	}
	return nil
}

func examine(ctx context.Context, s streams, o doctorOptions) error {
	opt, err := o.find(s)
	if err != nil {
		return err
	}
	opt.Stay, opt.Timeout = time.Duration(o.stay), time.Duration(o.timeout)
	if o.connect {
		if opt.Connection.DeviceID == "" {
			return usagef("--connect needs the connection string of a device")
		}
		opt.Connect = true
		s.note("Connecting as %s; this ends the connection it has", noun(hubrest.Target{DeviceID: opt.Connection.DeviceID, ModuleID: opt.Connection.ModuleID}))
	}
	p := newCheckPrinter(s, o.service.output.forPeople())
	checks := doctor.Run(ctx, opt, doctor.Progress{Begin: p.begin, Done: p.done})
	p.end()
	if err := firstError(ctx.Err(), p.err); err != nil {
		return err
	}
	if !o.service.output.forPeople() {
		if err := o.service.output.print(s, result{value: checks, columns: checkColumns}); err != nil {
			return err
		}
	}
	return checksError(checks)
}

var checkColumns = []column{{"CHECK", "check"}, {"VERDICT", "verdict"}, {"DETAIL", "detail"}, {"REMEDY", "remedy"}}

// checksError is the failure that the checks amount to; nil if none failed.
func checksError(checks []doctor.Check) error {
	status := statusFailed
	var names []string
	for _, c := range checks {
		switch {
		case c.Verdict != doctor.Failed:
			continue
		case c.Refused:
			status = statusUnauthorized
		case c.TimedOut && status == statusFailed:
			status = statusTimeout
		}
		names = append(names, c.Name)
	}
	if names == nil {
		return nil
	}
	return failf(status, "%d of %s failed: %s", len(names), count(len(checks), "check"), strings.Join(names, ", "))
}

// find finds the hub and the credential to examine, and what else this machine
// knows of that hub.
func (o *doctorOptions) find(s streams) (doctor.Options, error) {
	link, err := o.link.link()
	if err != nil {
		return doctor.Options{}, err
	}
	opt := doctor.Options{Certificate: link.certificate, WebSocket: link.transport == mqttdevice.WebSocket, Logger: o.service.hub.log}
	t, err := o.choose(s, &opt)
	if err != nil {
		return opt, err
	}
	describe(t, &opt)
	switch c := t.connection; {
	case c.DeviceID == "":
		opt.Device = hubrest.Target{DeviceID: o.device, ModuleID: o.module}
	case o.device != "" && o.device != c.DeviceID || o.module != "" && o.module != c.ModuleID:
		return opt, usagef("the connection string is that of device %q; leave out --device, or name the same", c.DeviceID)
	}
	return opt, addKnowledge(s, o.service.hub.data, &opt)
}

// describe fills in which hub t is.
func describe(t target, opt *doctor.Options) {
	opt.Connection, opt.MQTTSAddr, opt.HTTPSAddr = t.connection, t.mqttsAddr, t.httpsAddr
	if t.tls != nil {
		opt.Roots = t.tls.RootCAs
	}
}

// choose finds the hub: unlike other commands, doctor takes a device's
// connection string as well as a service's.
func (o *doctorOptions) choose(s streams, opt *doctor.Options) (target, error) {
	hub := &o.service.hub
	if o.service.hubName != "" {
		t, credential, err := o.service.entraTarget()
		opt.Source, opt.Credential = "--hub-name", credential
		return t, err
	}
	variables := slices.Concat(deviceVariables, serviceVariables)
	if o.device != "" {
		variables = serviceVariables
	}
	c, source, err := hub.givenBy(s, variables)
	switch {
	case err != nil:
		return target{}, err
	case source == "":
		dir, err := dataFolder(hub.data)
		if err != nil {
			return target{}, err
		}
		opt.Source = "the local hub's data folder " + dir
		return hub.localHub("")
	}
	opt.Source = source
	return hub.target(c)
}

// addKnowledge adds what this machine knows of the hub if it is its own, and
// the credential for its registry that the environment has.
func addKnowledge(s streams, data string, opt *doctor.Options) error {
	info, err := readRunningHub(data)
	host, _ := splitPort(cmp.Or(opt.Connection.GatewayHostName, opt.Connection.HostName))
	if err == nil && namesThisMachine(host, info) && opt.Credential == nil {
		opt.Policies = policyKeys(info)
		if opt.HubCA, err = readCA(info.CAFile); err != nil {
			return err
		}
		if opt.Registry, err = policyConnection(info, ownerPolicy, ""); err != nil {
			return err
		}
		return nil
	}
	if opt.Connection.DeviceID == "" {
		return nil
	}
	environment := hubOptions{data: data}
	service, found, err := environment.given(s, serviceVariables)
	if other, _ := splitPort(service.HostName); err == nil && found && service.DeviceID == "" && strings.EqualFold(other, host) {
		opt.Registry = service
	}
	return nil // what is wrong with a variable that was not asked for is not the question
}
