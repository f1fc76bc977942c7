package cli

import urfave "github.com/urfave/cli/v2"

// Flags that several commands have.

func deviceFlag(device *string, usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "device", Aliases: []string{"d"}, Destination: device, Usage: usage}
}

func moduleFlag(module *string, usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "module", Aliases: []string{"m"}, Destination: module, Usage: usage}
}

func policyFlag(policy *string, usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "policy", Destination: policy, Usage: usage}
}

var missingDevice = usagef("--device is missing; name the device, for example --device device-1")

// requireDevice refuses a command without a device. urfave/cli's own check
// would accept "--device=" and print the help.
func requireDevice(device string) error {
	if device == "" {
		return missingDevice
	}
	return nil
}

// concat joins the flags a command shares with others to its own.
func concat(flags ...[]urfave.Flag) []urfave.Flag {
	var all []urfave.Flag
	for _, f := range flags {
		all = append(all, f...)
	}
	return all
}

func etagFlag(etag *string) urfave.Flag {
	return &urfave.StringFlag{Name: "etag", Destination: etag, Usage: "only if this is still the `ETAG` of what is there"}
}
