package service

import (
	"context"
	"io"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
)

type enrollmentImportOptions struct {
	target.Provisioning
	importOptions
	kind enrollmentKind
}

func enrollmentImportCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	o := &enrollmentImportOptions{kind: k, importOptions: importOptions{subject: k.argument}}
	example := "iotdm service enrollment import enrollments.csv --dry-run"
	columns := "registrationId, deviceId"
	if k.kind == hubrest.Group {
		example, columns = "iotdm service enrollment-group import groups.csv --dry-run", "enrollmentGroupId"
	}
	return command.Leaf(&urfave.Command{
		Name:      "import",
		Usage:     "create, update or delete many " + k.noun + "s from a file",
		ArgsUsage: "FILE",
		Description: "FILE, or - for standard input, has a line of JSON for each as the service's API\n" +
			"has it, or is CSV whose first line names the columns:\n" +
			columns + ", primaryKey, secondaryKey, certificate,\n" +
			"provisioningStatus, reprovisionPolicy, allocationPolicy, iotHubs, tags.site,\n" +
			"desired.interval ... Each line gets a line of report: created, updated and what\n" +
			"that changes, unchanged, deleted or failed. For example:\n" +
			"   " + example + "\n" +
			"   " + k.path("import") + " new.ndjson --mode create --failed-only\n\n" +
			"You are asked before anything is changed or deleted; --yes reads the file once.\n" +
			"Modes: create, update, createOrUpdate, updateIfMatchETag, delete. An update\n" +
			"replaces the whole: what a line leaves out is reset, but for keys. A line may have\n" +
			"an importMode of its own. Exits with 1 when a line failed.",
		Flags: command.Concat(o.importOptions.flags(), o.Flags()),
		Action: func(ctx *urfave.Context) error {
			o.file = ctx.Args().First()
			mode, known := bulk.EnrollmentModeNamed(o.mode)
			if !known {
				return fail.Usagef("--mode %q is none of create, update, createOrUpdate, updateIfMatchETag, delete", o.mode)
			}
			o.mode = string(mode)
			if err := o.importOptions.check(&o.Output); err != nil {
				return err
			}
			return importEnrollments(ctx.Context, s, o)
		},
	})
}

func importEnrollments(ctx context.Context, s output.Streams, o *enrollmentImportOptions) error {
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
		lines, err := bulk.NewEnrollmentReader(in, o.format, o.kind.kind)
		if err != nil {
			return nil, err
		}
		progress := output.NewTally(s)
		im := &bulk.EnrollmentImport{Client: client, Kind: o.kind.kind, Mode: hubrest.ImportMode(o.mode), DryRun: dryRun,
			Parallel: o.parallel, FromLine: o.fromLine, Lines: lines, Paused: progress.TellPause}
		return &bulkRun{im.Run, im.Resume, &im.Report, &im.Counts, &im.Broken, progress}, nil
	})
}

type enrollmentExportOptions struct {
	target.Provisioning
	file   string // "" and "-" are standard output
	format string
	keys   bool
}

func enrollmentExportCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	var o enrollmentExportOptions
	return command.Leaf(&urfave.Command{
		Name:      "export",
		Usage:     "write all " + k.noun + "s to a file",
		ArgsUsage: "[FILE]",
		Description: "Writes a line of JSON for each, or CSV, as \"" + k.path("import") + "\"\n" +
			"reads it. FILE is replaced when all is written; without it the lines go to\n" +
			"standard output. For example:\n" +
			"   " + k.path("export") + " saved.ndjson --keys\n\n" +
			"Only with --keys the file has the keys: that takes one more request for each.\n" +
			"Certificates are never in it, since no service gives them out, but what they say.",
		Flags: command.Concat([]urfave.Flag{
			&urfave.BoolFlag{Name: "keys", Destination: &o.keys, DisableDefaultText: true, Usage: "with the keys; only you may read FILE then"},
			bulkFormatFlag(&o.format),
		}, o.ServiceFlags()),
		Action: func(ctx *urfave.Context) error {
			o.file = ctx.Args().First()
			if err := checkBulkFormat(o.format); err != nil {
				return err
			}
			if o.format == "" && strings.EqualFold(filepath.Ext(o.file), ".csv") {
				o.format = "csv"
			}
			t, client, err := o.Open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			return exportTo(ctx.Context, s, t, o.file, o.keys, func(out io.Writer, progress *output.Tally) (string, error) {
				ex := &bulk.EnrollmentExport{Client: client, Kind: k.kind, Keys: o.keys, Paused: progress.TellPause}
				ex.Wrote = func() { progress.Show(ex.Count, output.Count(ex.Count, k.noun)) }
				err := ex.Run(ctx.Context, out, o.format)
				return output.Count(ex.Count, k.noun), err
			})
		},
	})
}
