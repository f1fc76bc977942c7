package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

// keyRenewals give an identity new keys; they go by the values of --key.
var keyRenewals = map[string]func(*hubrest.SymmetricKey){
	"primary":   func(k *hubrest.SymmetricKey) { k.Renew(hubrest.PrimaryKey) },
	"secondary": func(k *hubrest.SymmetricKey) { k.Renew(hubrest.SecondaryKey) },
	"both":      func(k *hubrest.SymmetricKey) { k.Renew(hubrest.BothKeys) },
	"swap":      (*hubrest.SymmetricKey).Swap,
}

const renewKeyHelp = "A connection that was made with a key that is gone ends. To renew without a gap: renew the\n" +
	"secondary key, give it to the device, swap. For example:\n"

// A renewal is the options of a command that renews the keys of its subject.
type renewal struct {
	target.Subject
	key string
}

// Flags adds --key.
func (r *renewal) Flags() []urfave.Flag {
	return append(r.Subject.Flags(),
		&urfave.StringFlag{Name: "key", Destination: &r.key, Usage: "`WHICH`: primary, secondary, both, or swap (no new one)"})
}

// Check refuses other keys too.
func (r *renewal) Check() error {
	if err := r.Subject.Check(); err != nil {
		return err
	}
	if keyRenewals[r.key] == nil {
		return fail.Usagef("--key %q is none of primary, secondary, both, swap", r.key)
	}
	return nil
}

// apply renews the keys of the subject, if it has any.
func (r *renewal) apply(a *hubrest.Authentication) error {
	if a.Type != hubrest.AuthSAS {
		return fail.Errorf(fail.Failed, "%s has no keys to renew; it authenticates by %s", target.Noun(r.About()), a.Type)
	}
	keyRenewals[r.key](&a.SymmetricKey)
	return nil
}

func deviceRenewKeyCommand(s output.Streams) *urfave.Command {
	var o deviceOptions
	r := renewal{Subject: &o}
	return target.OneCall(s, &urfave.Command{
		Name:        "renew-key",
		ArgsUsage:   "[DEVICE]",
		Usage:       "give a device new keys",
		Description: renewKeyHelp + "   iotdm service device renew-key --device device-1 --key secondary",
	}, &r, func(ctx context.Context, client *hubrest.Client) (any, error) {
		d, err := client.Device(ctx, o.device)
		if err != nil {
			return nil, err
		}
		if err := r.apply(&d.Authentication); err != nil {
			return nil, err
		}
		return client.UpdateDevice(ctx, d)
	})
}

func moduleRenewKeyCommand(s output.Streams) *urfave.Command {
	var o moduleOptions
	r := renewal{Subject: &o}
	return target.OneCall(s, &urfave.Command{
		Name:        "renew-key",
		ArgsUsage:   "[DEVICE] [MODULE]",
		Usage:       "give a module new keys",
		Description: renewKeyHelp + "   iotdm service module renew-key --device device-1 --module camera --key secondary",
	}, &r, func(ctx context.Context, client *hubrest.Client) (any, error) {
		m, err := client.Module(ctx, o.About())
		if err != nil {
			return nil, err
		}
		if err := r.apply(&m.Authentication); err != nil {
			return nil, err
		}
		return client.UpdateModule(ctx, m)
	})
}
