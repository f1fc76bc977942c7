// Package command is how a command line is read: groups and leaves of the tree
// of commands, which stands on urfave/cli, flags that several commands have, and
// the values of flags, be they on the command line or in a file.
//
// Where urfave/cli does something else than users expect it is mended here:
// arguments.go puts flags before arguments and knows the spellings of az,
// usage.go words its errors, and checkArguments refuses what it would drop.
package command

import (
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/internal/phrase"
)

// Group makes a command that only has subcommands.
func Group(name, usage string, subs ...*urfave.Command) *urfave.Command {
	return &urfave.Command{
		Name:            name,
		Usage:           usage,
		HideHelpCommand: true,
		Subcommands:     subs,
		Action:          HelpOrUnknown(subs),
		OnUsageError:    UsageError,
	}
}

// Leaf finishes a command that does something. Its ArgsUsage are the words that
// its help has for arguments: "NAME" is one, "[NAME]" one or none, "[NAME...]"
// any number. What a flag names too, such as DEVICE, is put into that flag, of
// several the first.
func Leaf(c *urfave.Command) *urfave.Command {
	c.HideHelpCommand = true
	c.OnUsageError = UsageError
	if c.Name == "get" {
		c.Aliases = append(c.Aliases, "show") // as az says
	}
	run := c.Action
	var most *limit
	c.Flags, most = limitOf(c.Flags)
	c.Action = func(ctx *urfave.Context) error {
		if err := fail.First(checkArguments(ctx), argumentsToFlags(ctx)); err != nil {
			return err
		}
		if most != nil {
			return most.run(ctx, run)
		}
		return run(ctx)
	}
	return c
}

// checkArguments refuses arguments a command has no use for, which urfave/cli
// would drop in silence.
func checkArguments(ctx *urfave.Context) error {
	c, n := ctx.Command, ctx.NArg()
	words := strings.Fields(c.ArgsUsage)
	switch {
	case n > len(words) && !strings.Contains(c.ArgsUsage, "..."):
		extra := ctx.Args().Get(len(words))
		if hasFlag(c, "device") && !ctx.IsSet("device") && len(words) == 0 {
			return fail.Usagef("unexpected argument %q; name a device with --device %s", extra, extra)
		}
		return fail.Usagef("unexpected argument %q; see \"%s --help\"", extra, c.HelpName)
	case n < len(words) && !strings.HasPrefix(words[n], "["):
		return fail.Usagef("%s is missing; see \"%s --help\"", words[n], c.HelpName)
	}
	return nil
}

// HelpOrUnknown is the action of a command that only has subcommands: without
// arguments it shows its help, and anything else is a name it doesn't know.
func HelpOrUnknown(subs []*urfave.Command) urfave.ActionFunc {
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
		return fail.Usagef("unknown command %q%s; see \"%s --help\"", name, phrase.DidYouMean(name, names), ctx.Command.HelpName)
	}
}

func hasFlag(c *urfave.Command, name string) bool { return FlagNamed(c, name) != nil }

// FlagNamed returns the flag of c that has a name, be it an alias; nil if there
// is none.
func FlagNamed(c *urfave.Command, name string) urfave.Flag {
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}
