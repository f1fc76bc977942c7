package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// A keyRenewal gives an identity new keys.
type keyRenewal func(*hubrest.SymmetricKey)

var keyRenewals = map[string]keyRenewal{
	"primary":   func(k *hubrest.SymmetricKey) { k.PrimaryKey = sas.NewKey() },
	"secondary": func(k *hubrest.SymmetricKey) { k.SecondaryKey = sas.NewKey() },
	"both":      func(k *hubrest.SymmetricKey) { k.PrimaryKey, k.SecondaryKey = sas.NewKey(), sas.NewKey() },
	"swap":      func(k *hubrest.SymmetricKey) { k.PrimaryKey, k.SecondaryKey = k.SecondaryKey, k.PrimaryKey },
}

const renewKeyHelp = "A connection that was made with a key that is gone ends. To renew without a gap: renew the\n" +
	"secondary key, give it to the device, swap. For example:\n"

func renewalFlag(key *string) urfave.Flag {
	return &urfave.StringFlag{Name: "key", Destination: key, Usage: "`WHICH`: primary, secondary, both, or swap (no new one)"}
}

func keyRenewalNamed(key string) (keyRenewal, error) {
	if renew := keyRenewals[key]; renew != nil {
		return renew, nil
	}
	return nil, fail.Usagef("--key %q is none of primary, secondary, both, swap", key)
}

// apply renews the keys of the identity on, if it has any.
func (renew keyRenewal) apply(a *hubrest.Authentication, on hubrest.Target) error {
	if a.Type != hubrest.AuthSAS {
		return fail.Errorf(fail.Failed, "%s has no keys to renew; it authenticates by %s", target.Noun(on), a.Type)
	}
	renew(&a.SymmetricKey)
	return nil
}

func deviceRenewKeyCommand(s output.Streams) *urfave.Command {
	var o deviceOptions
	var key string
	return command.Leaf(&urfave.Command{
		Name:        "renew-key",
		Usage:       "give a device new keys",
		Description: renewKeyHelp + "   iotdm service device renew-key --device device-1 --key secondary",
		Flags:       command.Concat(o.Flags(), []urfave.Flag{renewalFlag(&key)}),
		Action: func(ctx *urfave.Context) error {
			renew, err := keyRenewalNamed(key)
			if err := fail.First(o.Check(), err); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				d, err := client.Device(ctx, o.device)
				if err != nil {
					return nil, err
				}
				if err := renew.apply(&d.Authentication, o.About()); err != nil {
					return nil, err
				}
				return client.UpdateDevice(ctx, d)
			})
		},
	})
}

func moduleRenewKeyCommand(s output.Streams) *urfave.Command {
	var o moduleOptions
	var key string
	return command.Leaf(&urfave.Command{
		Name:        "renew-key",
		Usage:       "give a module new keys",
		Description: renewKeyHelp + "   iotdm service module renew-key --device device-1 --module camera --key secondary",
		Flags:       command.Concat(o.Flags(), []urfave.Flag{renewalFlag(&key)}),
		Action: func(ctx *urfave.Context) error {
			renew, err := keyRenewalNamed(key)
			if err := fail.First(o.Check(), err); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				m, err := client.Module(ctx, o.About())
				if err != nil {
					return nil, err
				}
				if err := renew.apply(&m.Authentication, o.About()); err != nil {
					return nil, err
				}
				return client.UpdateModule(ctx, m)
			})
		},
	})
}
