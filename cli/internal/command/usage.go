package command

import (
	"fmt"
	"regexp"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/internal/phrase"
)

// UsageError words what package flag and urfave/cli have to say about a wrong
// flag. Their errors are only text; a script pins every shape taken apart here.
func UsageError(ctx *urfave.Context, err error, _ bool) error {
	text, help := err.Error(), fmt.Sprintf("see \"%s --help\"", ctx.Command.HelpName)
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		var names []string
		for _, f := range ctx.Command.Flags {
			for _, n := range f.Names() {
				names = append(names, dashed(n))
			}
		}
		return fail.Usagef("unknown flag %s%s; %s", dashed(name), phrase.DidYouMean(dashed(name), names), help)
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return fail.Usagef("%s needs a value; %s", dashed(strings.TrimLeft(name, "-")), help)
	}
	if value, rest, ok := cutAround(text, "invalid value ", " for flag -"); ok {
		name, why, _ := strings.Cut(rest, ": ")
		return fail.Usagef("%s %s %s", dashed(name), value, plainParseError(why))
	}
	if value, rest, ok := cutAround(text, "invalid boolean value ", " for -"); ok {
		name, _, _ := strings.Cut(rest, ": ")
		return fail.Usagef("%s %s is neither true nor false", dashed(name), value)
	}
	if m := badVariable.FindStringSubmatch(text); m != nil {
		return fail.Usagef("%s=%s %s", m[2], m[1], plainParseError(m[3]))
	}
	if names, ok := strings.CutPrefix(text, "Cannot use two forms of the same flag: "); ok {
		return fail.Usagef("give only one of %s; %s", dashedAll(names), help)
	}
	return fail.Usagef("%s; %s", text, help)
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
