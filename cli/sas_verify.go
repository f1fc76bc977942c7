package cli

import (
	"context"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/sas"
)

type sasVerifyOptions struct {
	signer   signerOptions
	output   outputOptions
	key      string
	resource string
	token    string // the argument
}

func sasVerifyCommand(s streams) *urfave.Command {
	var o sasVerifyOptions
	return leaf(&urfave.Command{
		Name:      "verify",
		Usage:     "check a token: who signed it, for what, until when",
		ArgsUsage: "TOKEN",
		Description: "Checks with --key, or with the key of the connection string, local hub or device. TOKEN may be -\n" +
			"for standard input or @FILE. For example:\n" +
			"   iotdm sas verify --device device-1 \"$TOKEN\"\n" +
			"   iotdm sas verify --key @key.txt --resource myhub.azure-devices.net -\n\n" +
			"Exits with 4 when a hub would refuse the token.",
		Flags: concat([]urfave.Flag{
			&urfave.StringFlag{Name: "key", Destination: &o.key, Usage: "the `KEY` in base64, or @FILE"},
			&urfave.StringFlag{Name: "resource", Destination: &o.resource, Usage: "what the token has to be good for, such as HOST/devices/ID"},
		}, o.signer.flags(), o.output.flags()),
		Action: func(ctx *urfave.Context) error {
			o.token = ctx.Args().First()
			if err := firstError(o.signer.check(), o.output.check()); err != nil {
				return err
			}
			return verifyToken(ctx.Context, s, o, time.Now())
		},
	})
}

func verifyToken(ctx context.Context, s streams, o sasVerifyOptions, now time.Time) error {
	token, err := tokenArgument(s, o.token)
	if err != nil {
		return err
	}
	key, resource, err := o.keyAndResource(ctx, s)
	if err != nil {
		return err
	}
	v := struct {
		Signed  bool `json:"signed"`
		Covers  bool `json:"covers"`
		Expired bool `json:"expired"`
		Valid   bool `json:"valid"`
	}{
		Signed:  token.SignedBy(key),
		Covers:  resource == "" || token.Covers(resource),
		Expired: token.Expired(now),
	}
	v.Valid = v.Signed && v.Covers && !v.Expired
	err = o.output.print(s, result{value: v, text: func(w io.Writer) error {
		return writeFields(w,
			"signature", choose(v.Signed, "good", "not made with this key"),
			"resource", token.Resource+choose(v.Covers, "", ", which does not cover "+resource),
			"expires", describeExpiry(token, now))
	}})
	if err == nil && !v.Valid {
		err = failf(statusUnauthorized, "a hub would refuse this token")
	}
	return err
}

// keyAndResource returns what to check with; the resource may be empty.
func (o *sasVerifyOptions) keyAndResource(ctx context.Context, s streams) (sas.Key, string, error) {
	if o.key != "" {
		text, err := readValue(s, "--key", o.key)
		if err != nil {
			return "", "", err
		}
		if err := sas.Key(text).Validate(); err != nil {
			return "", "", usagef("--key is %v", err)
		}
		return sas.Key(text), o.resource, nil
	}
	signer, err := o.signer.connection(ctx, s)
	if err != nil {
		return "", "", err
	}
	if o.resource != "" {
		return signer.SharedAccessKey, o.resource, nil
	}
	return signer.SharedAccessKey, signer.Audience(), nil
}

func choose(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
