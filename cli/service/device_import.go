package service

import (
	"context"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
)

type deviceImportOptions struct {
	target.Service
	importOptions
}

func deviceImportCommand(s output.Streams) *urfave.Command {
	var o deviceImportOptions
	return command.Leaf(&urfave.Command{
		Name:      "import",
		Usage:     "create, update or delete many devices and modules from a file",
		ArgsUsage: "FILE",
		Description: "FILE, or - for standard input, has a line of JSON for each device, as\n" +
			"\"iotdm service device export\" and the export jobs of IoT Hub write it, or is\n" +
			"CSV whose first line names the columns: id, moduleId, status, primaryKey,\n" +
			"tags.site, desired.interval ... No storage account is needed. Each line gets\n" +
			"a line of report: created, updated and what that changes, unchanged, deleted\n" +
			"or failed. For example:\n" +
			"   iotdm service device import devices.csv --dry-run\n" +
			"   iotdm service device import devices.ndjson --mode create --failed-only\n\n" +
			"What is there may be newer than the file, its keys and desired properties too.\n" +
			"So the file is read twice, and you are asked before anything of it is changed or\n" +
			"deleted; --yes reads it once.\n\n" +
			"Modes: create, update, createOrUpdate, delete, updateTwin, and with\n" +
			"IfMatchETag behind them all but create. An update replaces the whole identity,\n" +
			"so that what a line leaves out, such as disabled, is reset; updateTwin only\n" +
			"merges tags and desired properties. A line may have an importMode of its own.\n" +
			"Exits with 1 when a line failed.",
		Flags: command.Concat(o.flags(), o.Flags()),
		Action: func(ctx *urfave.Context) error {
			o.file = ctx.Args().First()
			if err := o.Check(); err != nil {
				return err
			}
			return importDevices(ctx.Context, s, o)
		},
	})
}

// Check refuses options that make no sense together.
func (o *deviceImportOptions) Check() error {
	mode, known := bulk.ModeNamed(o.mode)
	if !known {
		return fail.Usagef("--mode %q is none of create, update, createOrUpdate, delete, updateTwin, or one of these with IfMatchETag", o.mode)
	}
	o.mode = string(mode)
	return o.importOptions.check(&o.Output)
}

func importDevices(ctx context.Context, s output.Streams, o deviceImportOptions) error {
	in, close, err := o.open(s)
	if err != nil {
		return err
	}
	defer close()
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	return o.importFile(ctx, s, o.Output, t, in, func(in io.Reader, dryRun bool) (*bulkRun, error) {
		lines, err := bulk.NewReader(in, o.format)
		if err != nil {
			return nil, err
		}
		progress := output.NewTally(s)
		im := &bulk.Import{Client: client, Mode: hubrest.ImportMode(o.mode), DryRun: dryRun, Parallel: o.parallel, FromLine: o.fromLine, Lines: lines, Paused: progress.TellPause}
		return &bulkRun{im.Run, im.Resume, &im.Report, &im.Counts, &im.Broken, progress}, nil
	})
}
