package sas

import (
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/sas"
)

type deriveKeyOptions struct {
	group  string
	id     string
	output output.Options
}

func deriveKeyCommand(s output.Streams) *urfave.Command {
	var o deriveKeyOptions
	return command.Leaf(&urfave.Command{
		Name:      "derive-key",
		Usage:     "make the keys of devices from that of their enrollment group",
		ArgsUsage: "[REGISTRATION...]",
		Description: "A device that registers by the key of an enrollment group has a key of its own,\n" +
			"derived from its registration id; the key of the group stays where devices are\n" +
			"made. Nothing is asked of a service. For example:\n" +
			"   iotdm sas derive-key device-1 --group-key @group.key\n" +
			"   iotdm service enrollment-group keys line-7 --jq .primaryKey | iotdm sas derive-key device-1 device-2 --group-key -",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "group-key", Aliases: []string{"key"}, Destination: &o.group, Usage: "the `KEY` of the group in base64, @FILE or -"},
			&urfave.StringFlag{Name: "registration-id", Aliases: []string{"rid"}, Destination: &o.id, Usage: "the registration `ID`, instead of the argument"},
		}, o.output.Flags()),
		Action: func(ctx *urfave.Context) error {
			switch {
			case o.group == "":
				return fail.Usagef("--group-key is missing; \"iotdm service enrollment-group keys GROUP\" prints that of a group")
			case o.id == "":
				return fail.Usagef("REGISTRATION is missing; give the registration id of a device")
			}
			if err := o.output.Check(); err != nil {
				return err
			}
			ids := ctx.Args().Slice()
			if len(ids) == 0 {
				ids = []string{o.id}
			}
			return deriveKeys(s, o, ids)
		},
	})
}

// A derivedKey is printed in full: it is what the command is for.
type derivedKey struct {
	RegistrationID string  `json:"registrationId"`
	Key            sas.Key `json:"key"`
}

func deriveKeys(s output.Streams, o deriveKeyOptions, ids []string) error {
	group, err := command.ReadValue(s, "--group-key", o.group)
	if err != nil {
		return err
	}
	var keys []derivedKey
	for _, id := range ids {
		if id == "" {
			return fail.Usagef("a registration id is empty")
		}
		key, err := sas.DeriveKey(sas.Key(group), id)
		if err != nil {
			return fail.Usagef("--group-key is %v", err)
		}
		keys = append(keys, derivedKey{id, key})
	}
	if len(keys) == 1 {
		return o.output.Print(s, output.Result{Value: keys[0], Text: func(w io.Writer) error {
			_, err := fmt.Fprintln(w, string(keys[0].Key))
			return err
		}})
	}
	return o.output.Print(s, output.Result{Value: keys, Columns: []output.Column{{"REGISTRATION", "registrationId"}, {"KEY", "key"}}})
}
