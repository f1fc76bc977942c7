package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

type configurationApplyOptions struct {
	deviceOptions
	content string
}

func configurationApplyCommand(s output.Streams) *urfave.Command {
	var o configurationApplyOptions
	return command.Leaf(&urfave.Command{
		Name:        "apply",
		ArgsUsage:   "[DEVICE]",
		Aliases:     []string{"set-modules"},
		Usage:       "set the modules of one IoT Edge device, once, without a configuration",
		Description: "For example:\n   iotdm service configuration apply --device edge-1 --content @deployment.json",
		Flags:       command.Concat([]urfave.Flag{contentFlag(&o.content)}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			if o.content != "" {
				object, err := command.ReadObject(s, "--content", o.content)
				if err != nil {
					return err
				}
				o.content = string(object)
			}
			content, err := parseContent(o.content)
			if err != nil {
				return err
			}
			if len(content.Modules) == 0 {
				return fail.Usagef("--content for one device must be modulesContent of IoT Edge; set properties of other devices with \"iotdm service twin patch\"")
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				err := client.ApplyConfigurationContent(ctx, o.device, content)
				if err == nil {
					s.Note("Set the modules of device %s", o.device)
				}
				return nil, err
			})
		},
	})
}
