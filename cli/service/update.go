package service

import (
	"context"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// updateMethod is the direct method of the tutorial about firmware updates.
const updateMethod = "firmwareUpdate"

type updateOptions struct {
	taskOptions
	call    methodOptions
	request agent.UpdateRequest
}

func updateCommand(s output.Streams) *urfave.Command {
	o := updateOptions{call: methodOptions{method: updateMethod}}
	o.wait = command.Seconds(30 * time.Minute)
	return command.Leaf(&urfave.Command{
		Name:      "update",
		ArgsUsage: "[DEVICE]",
		Usage:     "update the software of devices, and wait for what comes of it",
		Description: "Calls the direct method " + updateMethod + ", on which a device downloads the package over https, checks its\n" +
			"SHA-256, and installs it with the command that it was given: see --update-command of \"iotdm device run\".\n" +
			"Then waits until it reports that it is updated, was so already, failed (in which phase, and why), or rolled\n" +
			"back. For example:\n" +
			"   iotdm service update --device device-1 --uri https://example.com/app-2.0.bin --version 2.0 \\\n" +
			"      --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n" +
			"   iotdm service update --where \"tags.site = 'north'\" --batch-size 50 --limit-failures 3 --version 2.0 \\\n" +
			"      --uri https://example.com/app-2.0.bin --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n\n" +
			"With --where it says first how many devices that are, and asks; a script says --yes. Ctrl-C cancels the\n" +
			"job: devices that were called go on, the others are left alone.",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "uri", Destination: &o.request.URL, Usage: "where the package is: an https `URL`, @FILE or - (it may hold a signature)"},
			&urfave.StringFlag{Name: "sha256", Destination: &o.request.SHA256, Usage: "the package's SHA-256 in `HEX`, as sha256sum prints it"},
			&urfave.StringFlag{Name: "version", Destination: &o.request.Version, Usage: "the `VERSION` that the package is"},
		}, o.taskFlags("update"), o.call.timeFlags(), o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			return updateFromService(ctx.Context, s, o)
		},
	})
}

// Check refuses options that make no sense together.
func (o *updateOptions) Check() error {
	for _, flag := range []struct{ name, value, example string }{
		{"--version", o.request.Version, "--version 2.0"},
		{"--uri", o.request.URL, "--uri https://example.com/app-2.0.bin"},
		{"--sha256", o.request.SHA256, "--sha256 $(sha256sum app-2.0.bin | cut -c 1-64)"},
	} {
		if flag.value == "" {
			return fail.Usagef("%s is missing, for example %s", flag.name, flag.example)
		}
	}
	return fail.First(o.taskOptions.Check(), o.call.check())
}

// namesOfFlags puts our flags for the fields of a request.
var namesOfFlags = strings.NewReplacer("fwVersion", "--version", "fwPackageURI", "--uri", "fwPackageCheckValue", "--sha256")

func updateFromService(ctx context.Context, s output.Streams, o updateOptions) (err error) {
	if o.request.URL, err = command.ReadValue(s, "--uri", o.request.URL); err != nil {
		return err
	}
	o.request.SHA256 = strings.ToLower(o.request.SHA256)
	if err := o.request.Check(); err != nil {
		return fail.Usagef("%s", namesOfFlags.Replace(err.Error()))
	}
	call, err := o.call.call(s)
	if err != nil {
		return err
	}
	call.Payload = o.request
	return o.run(ctx, s, updateTask(o.request.Version), call, nil)
}
