package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/sas"
)

func sasCommands(s streams) *urfave.Command {
	return group("sas", "make and check shared access signatures",
		sasTokenCommand(s), sasVerifyCommand(s), sasInspectCommand(s))
}

// signerOptions say whose key signs or checks a token.
type signerOptions struct {
	hub            hubOptions
	device, module string
	policy         string
}

func (o *signerOptions) flags() []urfave.Flag {
	return concat([]urfave.Flag{
		deviceFlag(&o.device, "use the key of the device `ID`"),
		moduleFlag(&o.module, "use the key of the module `ID` of the device"),
		policyFlag(&o.policy, "use the key of the policy `NAME` of the local hub (default: iothubowner)"),
		limitFlag(),
	}, o.hub.flags())
}

func (o *signerOptions) check() error {
	switch {
	case o.module != "" && o.device == "":
		return missingDevice
	case o.device != "" && o.policy != "":
		return usagef("--policy and --device name two different keys; give one")
	}
	return nil
}

// connection finds the signer and its key.
func (o *signerOptions) connection(ctx context.Context, s streams) (sas.ConnectionString, error) {
	t, err := o.find(ctx, s)
	if err == nil && t.connection.SharedAccessKey == "" {
		err = usagef("the connection string has no SharedAccessKey")
	}
	return t.connection, err
}

func (o *signerOptions) find(ctx context.Context, s streams) (target, error) {
	if o.device != "" {
		return o.hub.device(ctx, s, deviceChoice{device: o.device, module: o.module})
	}
	c, found, err := o.hub.given(s, serviceVariables) // a device's connection string is as good here
	if err == nil && found && o.policy != "" && !strings.EqualFold(o.policy, c.SharedAccessKeyName) {
		err = usagef("--policy goes with the local hub; the connection string has a key of its own")
	}
	if err != nil {
		return target{}, err
	}
	if found {
		return o.hub.target(c)
	}
	return o.hub.localHub(o.policy)
}

// tokenText returns the token given as argument, which may be "-" or "@FILE".
func tokenText(s streams, arg string) (string, error) {
	text, err := readValue(s, "TOKEN", arg)
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
