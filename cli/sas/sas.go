// Package sas has the commands of "iotdm sas": to make, read and check shared
// access signatures.
package sas

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/sas"
)

// Commands returns the group "sas".
func Commands(s output.Streams) *urfave.Command {
	return command.Group("sas", "make and check shared access signatures",
		sasTokenCommand(s), sasVerifyCommand(s), sasInspectCommand(s))
}

// signerOptions say whose key signs or checks a token.
type signerOptions struct {
	hub            target.Options
	device, module string
	policy         string
}

func (o *signerOptions) flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		command.DeviceFlag(&o.device, "use the key of the device `ID`"),
		command.ModuleFlag(&o.module, "use the key of the module `ID` of the device"),
		command.PolicyFlag(&o.policy, "use the key of the policy `NAME` of the local hub (default: iothubowner)"),
		command.LimitFlag(),
	}, o.hub.Flags())
}

func (o *signerOptions) check() error {
	switch {
	case o.module != "" && o.device == "":
		return command.MissingDevice
	case o.device != "" && o.policy != "":
		return fail.Usagef("--policy and --device name two different keys; give one")
	}
	return nil
}

// connection finds the signer and its key.
func (o *signerOptions) connection(ctx context.Context, s output.Streams) (sas.ConnectionString, error) {
	t, err := o.find(ctx, s)
	if err == nil && t.Connection.SharedAccessKey == "" {
		err = fail.Usagef("the connection string has no SharedAccessKey")
	}
	return t.Connection, err
}

func (o *signerOptions) find(ctx context.Context, s output.Streams) (target.Target, error) {
	if o.device != "" {
		return o.hub.Device(ctx, s, target.Choice{Device: o.device, Module: o.module})
	}
	c, found, err := o.hub.Given(s, target.ServiceVariables) // a device's connection string is as good here
	if err == nil && found && o.policy != "" && !strings.EqualFold(o.policy, c.SharedAccessKeyName) {
		err = fail.Usagef("--policy goes with the local hub; the connection string has a key of its own")
	}
	if err != nil {
		return target.Target{}, err
	}
	if found {
		return o.hub.Target(c)
	}
	return o.hub.LocalHub(o.policy)
}

// tokenText returns the token given as argument, which may be "-" or "@FILE".
func tokenText(s output.Streams, arg string) (string, error) {
	text, err := command.ReadValue(s, "TOKEN", arg)
	return strings.TrimPrefix(text, "Authorization: "), err
}

// describeExpiry says when t ends, seen from now.
func describeExpiry(t sas.Token, now time.Time) string {
	left := t.Expiry.Sub(now).Round(time.Second)
	at := t.Expiry.UTC().Format(time.RFC3339)
	switch {
	case t.Expired(now):
		return fmt.Sprintf("%s, %v ago", at, -left)
	case left < 0:
		return fmt.Sprintf("%s, %v ago; hubs allow clocks to be %v off", at, -left, sas.Skew)
	case left > 365*24*time.Hour:
		return fmt.Sprintf("%s, in %d days", at, left/(24*time.Hour))
	}
	return fmt.Sprintf("%s, in %v", at, left)
}

// describeSigner says whose key t claims to be signed with.
func describeSigner(t sas.Token) string {
	if t.Policy == "" {
		return "the key of a device or module"
	}
	return fmt.Sprintf("the key of policy %q", t.Policy)
}

// writeFields writes names and values, in turn, in two columns.
func writeFields(w io.Writer, fields ...string) error {
	for i := 0; i < len(fields); i += 2 {
		if _, err := fmt.Fprintf(w, "%-12s %s\n", fields[i], fields[i+1]); err != nil {
			return err
		}
	}
	return nil
}
