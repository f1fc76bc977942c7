package cli

import (
	"fmt"
	"regexp"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// group makes a command that only has subcommands.
func group(name, usage string, subs ...*urfave.Command) *urfave.Command {
	return &urfave.Command{
		Name:            name,
		Usage:           usage,
		HideHelpCommand: true,
		Subcommands:     subs,
		Action:          helpOrUnknown(subs),
		OnUsageError:    usageError,
	}
}

// leaf finishes a command that does something. Its ArgsUsage says whether it
// takes an argument: "" none, "NAME" one, "[NAME]" one or none.
func leaf(c *urfave.Command) *urfave.Command {
	c.HideHelpCommand = true
	c.OnUsageError = usageError
	run := c.Action
	c.Action = func(ctx *urfave.Context) error {
		if err := checkArguments(ctx); err != nil {
			return err
		}
		return run(ctx)
	}
	return c
}

// checkArguments refuses arguments a command has no use for, which urfave/cli
// would drop in silence.
func checkArguments(ctx *urfave.Context) error {
	c, n := ctx.Command, ctx.NArg()
	most := 1
	if c.ArgsUsage == "" {
		most = 0
	}
	switch {
	case n > most:
		extra := ctx.Args().Get(most)
		if hasFlag(c, "device") && !ctx.IsSet("device") {
			return usagef("unexpected argument %q; name a device with --device %s", extra, extra)
		}
		return usagef("unexpected argument %q; see \"%s --help\"", extra, c.HelpName)
	case n == 0 && most == 1 && !strings.HasPrefix(c.ArgsUsage, "["):
		return usagef("%s is missing; see \"%s --help\"", c.ArgsUsage, c.HelpName)
	}
	return nil
}

// helpOrUnknown is the action of a command that only has subcommands: without
// arguments it shows its help, and anything else is a name it doesn't know.
func helpOrUnknown(subs []*urfave.Command) urfave.ActionFunc {
	return func(ctx *urfave.Context) error {
		if !ctx.Args().Present() {
			if ctx.Command.HelpName == "iotdm" {
				return urfave.ShowAppHelp(ctx)
			}
			return urfave.ShowSubcommandHelp(ctx)
		}
		var names []string
		for _, c := range subs {
			names = append(names, c.Names()...)
		}
		name := ctx.Args().First()
		return usagef("unknown command %q%s; see \"%s --help\"", name, didYouMean(name, names), ctx.Command.HelpName)
	}
}

// usageError words what package flag and urfave/cli have to say about a wrong
// flag. Their errors are only text; a script pins every shape taken apart here.
func usageError(ctx *urfave.Context, err error, _ bool) error {
	text, help := err.Error(), fmt.Sprintf("see \"%s --help\"", ctx.Command.HelpName)
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		var names []string
		for _, f := range ctx.Command.Flags {
			for _, n := range f.Names() {
				names = append(names, dashed(n))
			}
		}
		return usagef("unknown flag %s%s; %s", dashed(name), didYouMean(dashed(name), names), help)
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return usagef("%s needs a value; %s", dashed(strings.TrimLeft(name, "-")), help)
	}
	if value, rest, ok := cutAround(text, "invalid value ", " for flag -"); ok {
		name, why, _ := strings.Cut(rest, ": ")
		return usagef("%s %s %s", dashed(name), value, plainParseError(why))
	}
	if value, rest, ok := cutAround(text, "invalid boolean value ", " for -"); ok {
		name, _, _ := strings.Cut(rest, ": ")
		return usagef("%s %s is neither true nor false", dashed(name), value)
	}
	if m := badVariable.FindStringSubmatch(text); m != nil {
		return usagef("%s=%s %s", m[2], m[1], plainParseError(m[3]))
	}
	if names, ok := strings.CutPrefix(text, "Cannot use two forms of the same flag: "); ok {
		return usagef("give only one of %s; %s", dashedAll(names), help)
	}
	return usagef("%s; %s", text, help)
}

// badVariable matches the error for a flag whose environment variable has a
// value it cannot take.
var badVariable = regexp.MustCompile(`^could not parse (".*?") .*environment variable "(.*?)".* for flag [\w-]+: (.*)$`)

// cutAround cuts text, which starts with prefix, around the last sep.
func cutAround(text, prefix, sep string) (before, after string, ok bool) {
	text, ok = strings.CutPrefix(text, prefix)
	i := strings.LastIndex(text, sep)
	if !ok || i < 0 {
		return "", "", false
	}
	return text[:i], text[i+len(sep):], true
}

func plainParseError(why string) string {
	if strings.HasPrefix(why, "strconv.ParseBool") {
		return "is neither true nor false"
	}
	if why == "parse error" || strings.HasPrefix(why, "strconv.") {
		return "is not a number"
	}
	return why
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func dashedAll(names string) string {
	var all []string
	for name := range strings.FieldsSeq(names) {
		all = append(all, dashed(name))
	}
	return strings.Join(all, " and ")
}

func hasFlag(c *urfave.Command, name string) bool { return flagNamed(c, name) != nil }

func flagNamed(c *urfave.Command, name string) urfave.Flag {
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}
