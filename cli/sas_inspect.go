package cli

import (
	"io"
	"net/url"
	"time"

	urfave "github.com/urfave/cli/v2"
)

func sasInspectCommand(s streams) *urfave.Command {
	var o outputOptions
	return leaf(&urfave.Command{
		Name:      "inspect",
		Usage:     "show what a token says, without checking its signature",
		ArgsUsage: "TOKEN",
		Description: "TOKEN may be - for standard input or @FILE. For example:\n" +
			"   iotdm sas token | iotdm sas inspect -",
		Flags: o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			return inspectToken(s, o, ctx.Args().First(), time.Now())
		},
	})
}

func inspectToken(s streams, o outputOptions, arg string, now time.Time) error {
	token, err := tokenArgument(s, arg)
	if err != nil {
		return err
	}
	resource, err := url.PathUnescape(token.Resource)
	if err != nil {
		resource = token.Resource
	}
	v := struct {
		Resource string    `json:"resource"`
		Policy   string    `json:"policy"`
		Expiry   time.Time `json:"expiry"`
		Expired  bool      `json:"expired"`
	}{resource, token.Policy, token.Expiry.UTC(), token.Expired(now)}
	return o.print(s, result{value: v, text: func(w io.Writer) error {
		return writeFields(w, "resource", resource, "signed with", describeSigner(token), "expires", describeExpiry(token, now))
	}})
}
