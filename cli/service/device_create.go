package service

import (
	"context"
	"errors"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

// A deviceFields holds the flags for what a device identity consists of. A flag
// that is not given leaves a field as it is.
type deviceFields struct {
	status, statusReason string
	edge                 bool
	edgeSet, reasonSet   bool // the flag was given, be it to say no
	parent               string
	parentSet            bool
	auth                 authFields
}

func (f *deviceFields) flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		&urfave.StringFlag{Name: "status", Destination: &f.status, Usage: "`STATUS`: enabled or disabled"},
		statusReasonFlag(&f.statusReason),
		&urfave.BoolFlag{Name: "edge-enabled", Destination: &f.edge, DisableDefaultText: true, Usage: "make it an IoT Edge device"},
		&urfave.StringFlag{Name: "parent", Destination: &f.parent, Usage: "the IoT Edge device `ID` that is its gateway; empty: none"},
	}, f.auth.flags())
}

func (f *deviceFields) check(ctx *urfave.Context) error {
	f.edgeSet, f.reasonSet, f.parentSet = ctx.IsSet("edge-enabled"), ctx.IsSet("status-reason"), ctx.IsSet("parent")
	switch f.status {
	case "", string(hubrest.Enabled), string(hubrest.Disabled):
	default:
		return fail.Usagef("--status %q is neither enabled nor disabled", f.status)
	}
	return f.auth.check()
}

// apply puts the fields that were given into d.
func (f *deviceFields) apply(ctx context.Context, s output.Streams, client *hubrest.Client, d *hubrest.Device) error {
	if f.status != "" {
		d.Status = hubrest.Status(f.status)
	}
	if f.reasonSet {
		d.StatusReason = f.statusReason
	}
	if f.edgeSet {
		d.Capabilities.IoTEdge = f.edge
	}
	if f.parentSet {
		scopes, err := parentScopes(ctx, client, f.parent)
		if err != nil {
			return err
		}
		d.ParentScopes = scopes
		if !d.Capabilities.IoTEdge { // an IoT Edge device has a scope of its own
			d.DeviceScope = strings.Join(scopes, "")
		}
	}
	return f.auth.apply(s, &d.Authentication)
}

// parentScopes returns the scopes of the children of an IoT Edge device; those
// of no device are none.
func parentScopes(ctx context.Context, client *hubrest.Client, device string) ([]string, error) {
	if device == "" {
		return nil, nil
	}
	parent, err := client.Device(ctx, device)
	switch {
	case errors.Is(err, hubrest.ErrNotFound):
		return nil, fail.Errorf(fail.NotFound, "the parent %q does not exist", device)
	case err != nil:
		return nil, err
	case !parent.Capabilities.IoTEdge:
		return nil, fail.Errorf(fail.Failed, "%q is not an IoT Edge device, and only these have children; see \"iotdm service device update --edge-enabled\"", device)
	}
	return []string{parent.DeviceScope}, nil
}

type deviceWriteOptions struct {
	deviceOptions
	fields    deviceFields
	etag      string
	ifMissing bool
}

func deviceCreateCommand(s output.Streams) *urfave.Command {
	var o deviceWriteOptions
	return command.Leaf(&urfave.Command{
		Name:      "create",
		ArgsUsage: "[DEVICE]",
		Usage:     "register a device and print its identity, with its keys",
		Description: "For example:\n" +
			"   iotdm service device create --device device-1\n" +
			"   iotdm service device create --device device-2 --primary-thumbprint @device-2.pem\n" +
			"   iotdm service device create --device gateway --edge-enabled\n" +
			"   iotdm service device create --device sensor --parent gateway\n" +
			"   iotdm service device create --device device-1 --if-missing",
		Flags: command.Concat(o.Flags(), o.fields.flags(), []urfave.Flag{ifMissingFlag(&o.ifMissing)}),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.Check(), o.fields.check(ctx), o.fields.auth.checkNew()); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				d := hubrest.Device{DeviceID: o.device}
				if err := o.fields.apply(ctx, s, client, &d); err != nil {
					return nil, err
				}
				created, err := client.CreateDevice(ctx, d)
				if !o.ifMissing {
					return created, err
				}
				return keepExisting(s, target.Noun(o.About()), "change it with \"iotdm service device update\"", d, created, err, func() (hubrest.Device, error) {
					return client.Device(ctx, o.device)
				})
			})
		},
	})
}

func deviceUpdateCommand(s output.Streams) *urfave.Command {
	var o deviceWriteOptions
	return command.Leaf(&urfave.Command{
		Name:      "update",
		ArgsUsage: "[DEVICE]",
		Usage:     "change a device identity; what no flag names stays",
		Description: "For example:\n" +
			"   iotdm service device update --device device-1 --status disabled --status-reason \"in repair\"",
		Flags: command.Concat(o.Flags(), o.fields.flags(), []urfave.Flag{command.ETagFlag(&o.etag)}),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.Check(), o.fields.check(ctx)); err != nil {
				return err
			}
			if o.fields == (deviceFields{}) {
				return fail.Usagef("nothing to change; give --status, --primary-key or another flag, see \"iotdm service device update --help\"")
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				d, err := client.Device(ctx, o.device)
				if err != nil {
					return nil, err
				}
				if err := o.fields.apply(ctx, s, client, &d); err != nil {
					return nil, err
				}
				if o.etag != "" {
					d.ETag = o.etag
				}
				return client.UpdateDevice(ctx, d)
			})
		},
	})
}
