package sas

import (
	"context"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/sas"
)

type tokenOptions struct {
	signer   signerOptions
	output   output.Options
	resource string
	duration command.Seconds
}

func tokenCommand(s output.Streams) *urfave.Command {
	o := tokenOptions{duration: command.Seconds(time.Hour)}
	return command.Leaf(&urfave.Command{
		Name:  "token",
		Usage: "sign a token",
		Description: "For example:\n" +
			"   iotdm sas token --device device-1 --duration 15m\n" +
			"   (printf 'Authorization: '; iotdm sas token) | curl -H @- \"https://HOST/devices?api-version=2021-04-12\"",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "resource", Destination: &o.resource,
				Usage: "`WHAT` the token is good for (default: what the connection string names)"},
			&urfave.GenericFlag{Name: "duration", Value: &o.duration, Usage: "how `LONG` the token is good"},
		}, o.signer.flags(), o.output.Flags()),
		Action: func(ctx *urfave.Context) error {
			if o.duration == 0 {
				return fail.Usagef("--duration must be longer than 0s")
			}
			if err := fail.First(o.signer.check(), o.output.Check()); err != nil {
				return err
			}
			return signToken(ctx.Context, s, o, time.Now())
		},
	})
}

func signToken(ctx context.Context, s output.Streams, o tokenOptions, now time.Time) error {
	signer, err := o.signer.connection(ctx, s)
	if err != nil {
		return err
	}
	resource := o.resource
	if resource == "" {
		resource = signer.Audience()
	}
	expiry := now.Add(time.Duration(o.duration)).Truncate(time.Second)
	token, err := sas.Sign(resource, signer.SharedAccessKeyName, signer.SharedAccessKey, expiry)
	if err != nil {
		return err
	}
	v := struct {
		SAS    string    `json:"sas"`
		Expiry time.Time `json:"expiry"`
	}{token, expiry.UTC()}
	return o.output.Print(s, output.Result{Value: v, Text: func(w io.Writer) error {
		_, err := fmt.Fprintln(w, token)
		return err
	}})
}
