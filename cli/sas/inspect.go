package sas

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/sas"
)

func inspectCommand(s output.Streams) *urfave.Command {
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
