package command

import (
	"iter"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// argumentFlags are the flags that name the same as an argument, by what the help
// calls it.
var argumentFlags = map[string]string{
	"CERTIFICATE":   "name",
	"CONFIGURATION": "config-id",
	"DEVICE":        "device",
	"ENROLLMENT":    "enrollment-id",
	"GROUP":         "group-id",
	"JOB":           "job",
	"METHOD":        "method",
	"MODULE":        "module",
	"REGISTRATION":  "registration-id",
}

// ArgumentWord is what the help of c calls its argument number n, from 0; "" if
// there is none.
func ArgumentWord(c *urfave.Command, n int) string {
	words := strings.Fields(c.ArgsUsage)
	if len(words) == 0 || n >= len(words) && !strings.Contains(c.ArgsUsage, "...") {
		return ""
	}
	return strings.Trim(words[min(n, len(words)-1)], "[].")
}

// argumentsToFlags puts arguments into the flags that name the same.
func argumentsToFlags(ctx *urfave.Context) error {
	for i, word := range strings.Fields(ctx.Command.ArgsUsage) {
		flag := argumentFlags[ArgumentWord(ctx.Command, i)]
		if i >= ctx.NArg() || flag == "" || !hasFlag(ctx.Command, flag) {
			continue
		}
		if ctx.IsSet(flag) {
			return fail.Usagef("give %s as argument or with --%s, not both", strings.Trim(word, "[]."), flag)
		}
		if err := ctx.Set(flag, ctx.Args().Get(i)); err != nil {
			return err
		}
	}
	return nil
}

// Each yields the arguments of a command whose ArgsUsage is "[NAME...]", one after
// another, while the flag that names the same has it. Without arguments it yields
// once what that flag has.
func Each(ctx *urfave.Context) iter.Seq[string] {
	flag := argumentFlags[ArgumentWord(ctx.Command, 0)]
	return func(yield func(string) bool) {
		if ctx.NArg() == 0 {
			yield(ctx.String(flag))
			return
		}
		for _, argument := range ctx.Args().Slice() {
			if ctx.Set(flag, argument) != nil || !yield(argument) { // a text is always taken
				return
			}
		}
	}
}
