package command

import (
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// Flags that several commands have.

// DeviceFlag names a device.
func DeviceFlag(device *string, usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "device", Aliases: []string{"d"}, Destination: device, Usage: usage}
}

// ModuleFlag names a module of the device.
func ModuleFlag(module *string, usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "module", Aliases: []string{"m"}, Destination: module, Usage: usage}
}

// PolicyFlag names a shared access policy.
func PolicyFlag(policy *string, usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "policy", Destination: policy, Usage: usage}
}

// MissingDevice is the error of a command that needs a device and got none.
var MissingDevice = fail.Usagef("--device is missing; name the device, for example --device device-1")

// RequireDevice refuses a command without a device. urfave/cli's own check
// would accept "--device=" and print the help.
func RequireDevice(device string) error {
	if device == "" {
		return MissingDevice
	}
	return nil
}

// A Choice is a flag whose values a shell can complete, where another command has
// a flag of that name with other values.
type Choice struct {
	*urfave.StringFlag
	Values []string
}

// Concat joins the flags a command shares with others to its own.
func Concat(flags ...[]urfave.Flag) []urfave.Flag {
	var all []urfave.Flag
	for _, f := range flags {
		all = append(all, f...)
	}
	return all
}

// RenameFlag gives the flag with a name another one, for a command in which the
// name means something else.
func RenameFlag(flags []urfave.Flag, name, to string) []urfave.Flag {
	for _, f := range flags {
		if f, ok := f.(*urfave.StringFlag); ok && f.Name == name {
			f.Name = to
		}
	}
	return flags
}

// LastFlag begins a stream of events with those that are there.
func LastFlag(last *int) urfave.Flag {
	return &urfave.IntFlag{Name: "last", Aliases: []string{"n"}, Destination: last, DefaultText: "see --follow",
		Usage: "begin with the last `N` that are there"}
}

// CheckLast refuses what is no number of events for LastFlag.
func CheckLast(last int) error {
	const most = 10_000
	if last < 0 || last > most {
		return fail.Usagef("--last %d is not a number from 1 to %d", last, most)
	}
	return nil
}

// ETagFlag makes a change depend on what is there.
func ETagFlag(etag *string) urfave.Flag {
	return &urfave.StringFlag{Name: "etag", Destination: etag, Usage: "only if this is still the `ETAG` of what is there"}
}
