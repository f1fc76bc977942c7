package command

import (
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// azSpellings are flags as "az iot" and its users write them, beside ours.
// A spelling only counts for a command that has our flag and not theirs.
var azSpellings = map[string]string{
	"login":                   "connection-string",
	"l":                       "connection-string",
	"device-id":               "device",
	"module-id":               "module",
	"method-name":             "method",
	"mn":                      "method",
	"method-payload":          "payload",
	"mp":                      "payload",
	"to":                      "timeout",
	"method-timeout":          "timeout",
	"tc":                      "connect-timeout",
	"method-connect-timeout":  "connect-timeout",
	"policy-name":             "policy",
	"pn":                      "policy",
	"query-command":           "query",
	"du":                      "duration",
	"mid":                     "message-id",
	"cid":                     "correlation-id",
	"uid":                     "user-id",
	"ct":                      "content-type",
	"ce":                      "content-encoding",
	"expiry-time-utc":         "expiry",
	"am":                      "auth-method",
	"pk":                      "primary-key",
	"sk":                      "secondary-key",
	"ptp":                     "primary-thumbprint",
	"stp":                     "secondary-thumbprint",
	"ee":                      "edge-enabled",
	"set-parent-id":           "parent",
	"pd":                      "parent",
	"kt":                      "key",
	"key-type":                "key",
	"sta":                     "status",
	"star":                    "status-reason",
	"k":                       "content",
	"deployment-id":           "config-id",
	"pri":                     "priority",
	"lab":                     "labels",
	"cl":                      "labels",
	"custom-labels":           "labels",
	"t":                       "target-condition",
	"m":                       "metrics",
	"cmq":                     "metrics",
	"custom-metric-queries":   "metrics",
	"q":                       "where",
	"mct":                     "connect-timeout",
	"mrt":                     "timeout",
	"method-response-timeout": "timeout",
	"js":                      "status",
	"jt":                      "type",
	"e":                       "etag",
	"n":                       "hub-name",
	"da":                      "data",
	"proto":                   "transport",
	"at":                      "attestation-type",
	"cp":                      "certificate-path",
	"scp":                     "secondary-certificate-path",
	"rc":                      "remove-certificate",
	"rsc":                     "remove-secondary-certificate",
	"cn":                      "root-ca-name",
	"ca-name":                 "root-ca-name",
	"scn":                     "secondary-root-ca-name",
	"secondary-ca-name":       "secondary-root-ca-name",
	"info":                    "device-information",
	"tags":                    "initial-twin-tags",
	"props":                   "initial-twin-properties",
	"ap":                      "allocation-policy",
	"ih":                      "iot-hubs",
	"hn":                      "iot-hubs",
	"iot-hub-host-name":       "iot-hubs",
	"wh":                      "webhook-url",
	"av":                      "api-version",
	"rp":                      "reprovision-policy",
	"ps":                      "provisioning-status",
	"protocol":                "transport",
}

// azLists are the words of flags that az takes several of in a row.
var azLists = map[string][]string{
	"properties": {"sys", "app", "anno", "all"},
}

// Arrange puts a command line into the order urfave/cli understands, flags
// before arguments, and turns the spellings of "az iot hub" into ours.
// "help" among the names of commands asks for the help of the command they name.
func Arrange(commands []*urfave.Command, args []string) []string {
	if i := slices.Index(args, "help"); i > 0 && areCommands(commands, args[1:i]) {
		if i == 1 && len(args) == 3 && commandNamed(commands, args[2]) == nil {
			return args // a topic
		}
		return Arrange(commands, append(slices.Delete(slices.Clone(args), i, i+1), "--help"))
	}
	command, rest := FindLeaf(commands, args)
	if command == nil || args[len(args)-1] == Completing {
		return args
	}
	arranged := append([]string{}, args[:len(args)-len(rest)]...)
	var positional []string
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			positional = append(positional, rest...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			positional = append(positional, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		ours, known := azSpellings[name]
		f := FlagNamed(command, name)
		if f == nil && known && hasFlag(command, ours) {
			name, f = ours, FlagNamed(command, ours)
			arg = "--" + name
			if hasValue {
				arg += "=" + value
			}
		}
		if name == "edge-enabled" && !hasValue && len(rest) > 0 && (rest[0] == "true" || rest[0] == "false") {
			arg, rest = arg+"="+rest[0], rest[1:] // az has it with a value, too
		}
		arranged = append(arranged, arg)
		if f != nil && TakesValue(f) && !hasValue {
			if len(rest) == 0 {
				return arranged // what it would be followed by is not its value
			}
			arranged = append(arranged, rest[0])
			rest = rest[1:]
			for list := azLists[f.Names()[0]]; len(rest) > 0 && slices.Contains(list, rest[0]); rest = rest[1:] {
				arranged = append(arranged, arg, rest[0])
			}
		}
	}
	if len(positional) > 0 {
		arranged = append(append(arranged, "--"), positional...)
	}
	return arranged
}

// FindLeaf follows the command names at the start of args and returns the
// command they end at and what follows. It returns nil when that is no command
// or one that only has subcommands.
func FindLeaf(commands []*urfave.Command, args []string) (*urfave.Command, []string) {
	var found *urfave.Command
	rest := args[min(1, len(args)):]
	for len(rest) > 0 {
		next := commandNamed(commands, rest[0])
		if next == nil {
			break
		}
		found, commands, rest = next, next.Subcommands, rest[1:]
	}
	if found == nil || len(found.Subcommands) > 0 {
		return nil, nil
	}
	return found, rest
}

// areCommands reports whether names lead to a command that has subcommands.
func areCommands(commands []*urfave.Command, names []string) bool {
	for _, name := range names {
		c := commandNamed(commands, name)
		if c == nil {
			return false
		}
		commands = c.Subcommands
	}
	return len(commands) > 0
}

func commandNamed(commands []*urfave.Command, name string) *urfave.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// Completing is the hidden last argument with which a shell's script asks what
// may come next. The word before it is the one being typed, which may be empty.
const Completing = "--generate-bash-completion"

// OurFlag returns the flag of a command that has a name, in our spelling or that
// of az.
func OurFlag(command *urfave.Command, name string) urfave.Flag {
	if f := FlagNamed(command, name); f != nil {
		return f
	}
	return FlagNamed(command, azSpellings[name])
}

// TakesValue reports whether a value follows the flag.
func TakesValue(f urfave.Flag) bool {
	d, ok := f.(urfave.DocGenerationFlag)
	return ok && d.TakesValue()
}
