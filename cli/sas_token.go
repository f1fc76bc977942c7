package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/sas"
)

type sasTokenOptions struct {
	signer   signerOptions
	output   outputOptions
	resource string
	duration seconds
}

func sasTokenCommand(s streams) *urfave.Command {
	o := sasTokenOptions{duration: seconds(time.Hour)}
	return leaf(&urfave.Command{
		Name:  "token",
		Usage: "sign a token",
		Description: "For example:\n" +
			"   iotdm sas token --device device-1 --duration 15m\n" +
			"   (printf 'Authorization: '; iotdm sas token) | curl -H @- \"https://HOST/devices?api-version=2021-04-12\"",
		Flags: concat([]urfave.Flag{
			&urfave.StringFlag{Name: "resource", Destination: &o.resource,
				Usage: "`WHAT` the token is good for (default: what the connection string names)"},
			&urfave.GenericFlag{Name: "duration", Value: &o.duration, Usage: "how `LONG` the token is good"},
		}, o.signer.flags(), o.output.flags()),
		Action: func(ctx *urfave.Context) error {
			if o.duration == 0 {
				return usagef("--duration must be longer than 0s")
			}
			if err := firstError(o.signer.check(), o.output.check()); err != nil {
				return err
			}
			return signToken(ctx.Context, s, o, time.Now())
		},
	})
}

func signToken(ctx context.Context, s streams, o sasTokenOptions, now time.Time) error {
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
	return o.output.print(s, result{value: v, text: func(w io.Writer) error {
		_, err := fmt.Fprintln(w, token)
		return err
	}})
}
