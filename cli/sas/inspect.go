package sas

import (
	"io"
	"net/url"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/sas"
)

func sasInspectCommand(s output.Streams) *urfave.Command {
	var o output.Options
	return command.Leaf(&urfave.Command{
		Name:      "inspect",
		Usage:     "show what a token says, without checking its signature",
		ArgsUsage: "TOKEN",
		Description: "TOKEN may be - for standard input or @FILE. For example:\n" +
			"   iotdm sas token | iotdm sas inspect -",
		Flags: o.Flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			return inspectToken(s, o, ctx.Args().First(), time.Now())
		},
	})
}

func inspectToken(s output.Streams, o output.Options, arg string, now time.Time) error {
	text, err := tokenText(s, arg)
	if err != nil {
		return err
	}
	token, err := sas.ParseToken(text)
	checks := doctor.ExamineToken(text, doctor.Claims{AnyOwner: true, Now: now})
	if err != nil {
		return fail.Usagef("%v; %s", err, checks[0].Remedy)
	}
	var notes []string
	for _, c := range checks {
		if c.Verdict == doctor.Warning {
			notes = append(notes, c.Detail+"; "+c.Remedy)
		}
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
		Notes    []string  `json:"notes,omitempty"` // what some hubs may not like
	}{resource, token.Policy, token.Expiry.UTC(), token.Expired(now), notes}
	return o.Print(s, output.Result{Value: v, Text: func(w io.Writer) error {
		fields := []string{"resource", resource, "signed with", describeSigner(token), "expires", describeExpiry(token, now)}
		for _, note := range notes {
			fields = append(fields, "note", note)
		}
		return writeFields(w, fields...)
	}})
}
