package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

type deviceImportOptions struct {
	serviceOptions
	file       string // "-" is standard input
	format     string // "ndjson", "csv", or "" for what it looks like
	mode       string
	dryRun     bool
	failedOnly bool
	parallel   int
	fromLine   int
}

func deviceImportCommand(s streams) *urfave.Command {
	var o deviceImportOptions
	return leaf(&urfave.Command{
		Name:      "import",
		Usage:     "create, update or delete many devices and modules from a file",
		ArgsUsage: "FILE",
		Description: "FILE, or - for standard input, has a line of JSON for each device, as\n" +
			"\"iotdm service device export\" and the export jobs of IoT Hub write it, or is\n" +
			"CSV whose first line names the columns: id, moduleId, status, primaryKey,\n" +
			"tags.site, desired.interval ... No storage account is needed. Each line gets\n" +
			"a line of report. For example:\n" +
			"   iotdm service device import devices.csv --dry-run\n" +
			"   iotdm service device import devices.ndjson --mode create --failed-only\n\n" +
			"Modes: create, update, createOrUpdate, delete, updateTwin, and with\n" +
			"IfMatchETag behind them all but create. An update replaces the whole identity,\n" +
			"so that what a line leaves out, such as disabled, is reset; updateTwin only\n" +
			"merges tags and desired properties. A line may have an importMode of its own.\n" +
			"Exits with 1 when a line failed.",
		Flags: concat([]urfave.Flag{
			&urfave.StringFlag{Name: "mode", Destination: &o.mode, Value: string(hubrest.ImportCreateOrUpdate), Usage: "what to do, as an `IMPORTMODE` of IoT Hub"},
			&urfave.BoolFlag{Name: "dry-run", Destination: &o.dryRun, DisableDefaultText: true, Usage: "only say what would be done"},
			&urfave.BoolFlag{Name: "failed-only", Destination: &o.failedOnly, DisableDefaultText: true, Usage: "report only the lines that failed"},
			&urfave.IntFlag{Name: "from-line", Destination: &o.fromLine, Value: 1, Usage: "begin at line `N` of the file"},
			&urfave.IntFlag{Name: "parallel", Destination: &o.parallel, Value: 4, Usage: "have up to `N` requests under way, 1 to 64"},
			bulkFormatFlag(&o.format),
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			o.file = ctx.Args().First()
			if err := o.check(); err != nil {
				return err
			}
			return importDevices(ctx.Context, s, o)
		},
	})
}

func bulkFormatFlag(format *string) urfave.Flag {
	return &urfave.StringFlag{Name: "format", Destination: format, Usage: "the `FORMAT` of the file: ndjson or csv (default: by its name or content)"}
}

func checkBulkFormat(format string) error {
	if format != "" && format != "ndjson" && format != "csv" {
		return usagef("--format %q is neither ndjson nor csv", format)
	}
	return nil
}

func (o *deviceImportOptions) check() error {
	mode, known := importModeNamed(o.mode)
	if !known {
		return usagef("--mode %q is none of create, update, createOrUpdate, delete, updateTwin, or one of these with IfMatchETag", o.mode)
	}
	o.mode = string(mode)
	switch {
	case o.parallel < 1 || o.parallel > 64:
		return usagef("--parallel %d is not within 1 to 64", o.parallel)
	case o.fromLine < 1:
		return usagef("--from-line %d is not the number of a line", o.fromLine)
	case o.output.format == "yaml":
		return usagef("the report has no --output yaml; use json, which is a line of JSON for each line, table or tsv")
	}
	return firstError(checkBulkFormat(o.format), o.output.check())
}

// name is the file as messages name it.
func (o *deviceImportOptions) name() string {
	if o.file == "-" {
		return "standard input"
	}
	return o.file
}

func importDevices(ctx context.Context, s streams, o deviceImportOptions) error {
	in := s.in
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return usagef("%v", plainPathError(err))
		}
		defer f.Close()
		in = f
	}
	lines, err := newBulkReader(in, o.format)
	if err != nil {
		return usagef("%s %v", o.name(), plainPathError(err))
	}
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	progress := newTally(s)
	im := &bulkImport{client: client, mode: hubrest.ImportMode(o.mode), dryRun: o.dryRun, parallel: o.parallel, fromLine: o.fromLine, lines: lines}
	im.throttle = newThrottle(progress)
	headed := false
	im.report = func(r lineResult) error {
		defer func() { progress.show(im.Succeeded+im.Failed, o.summary(im)) }()
		if o.failedOnly && !r.Failed() {
			return nil
		}
		progress.clear()
		err := o.printLine(s, r, !headed)
		headed = true
		return err
	}
	err = im.run(ctx)
	progress.clear()
	return o.conclude(ctx, s, t, im, err)
}

var lineColumns = []column{
	{"LINE", "line"}, {"DEVICE", "id"}, {"MODULE", "moduleId"}, {"MODE", "importMode"}, {"RESULT", "result"}, {"CODE", "errorCode"}, {"REASON", "reason"},
}

// printLine prints a line of the report. The columns for people are as wide as
// most ids, for nobody knows those to come.
func (o *deviceImportOptions) printLine(s streams, r lineResult, first bool) error {
	return o.output.printLine(s, result{value: r, columns: lineColumns, text: func(w io.Writer) error {
		if first {
			if _, err := fmt.Fprintln(w, "LINE    DEVICE                    RESULT              REASON"); err != nil {
				return err
			}
		}
		text := fmt.Sprintf("%-6d  %-24s  %-18s  %s", r.Line, hubrest.Target{DeviceID: r.ID, ModuleID: r.ModuleID}, r.Result, r.reason())
		_, err := fmt.Fprintln(w, strings.TrimRight(printable(text), " "))
		return err
	}})
}

func (o *deviceImportOptions) summary(im *bulkImport) string {
	verb := "done"
	if o.dryRun {
		verb = "would be done"
	}
	return fmt.Sprintf("%d %s, %d failed", im.Succeeded, verb, im.Failed)
}

// conclude words what came of all.
func (o *deviceImportOptions) conclude(ctx context.Context, s streams, t target, im *bulkImport, err error) error {
	resume := fmt.Sprintf("%s; go on with --from-line %d", o.summary(im), im.resume())
	switch {
	case ctx.Err() != nil:
		return failf(statusFailed, "interrupted: %s", resume)
	case err != nil && im.broken != nil && errors.Is(err, im.broken):
		return failf(statusFailed, "%s %v: %s", o.name(), plainPathError(err), resume)
	case err != nil:
		explained := t.explain(ctx, err, noIdentity)
		status := statusFailed
		if f, ok := errors.AsType[*failure](explained); ok {
			status = f.status
		}
		return failf(status, "%v: %s", explained, resume)
	case im.Failed > 0 && o.dryRun:
		return failf(statusFailed, "%d of %s would fail", im.Failed, count(im.Failed+im.Succeeded, "line"))
	case im.Failed == 1 && im.Succeeded == 0:
		return failf(statusFailed, "the only line failed")
	case im.Failed > 0 && im.Succeeded == 0:
		return failf(statusFailed, "all %d lines failed", im.Failed)
	case im.Failed > 0:
		return failf(statusFailed, "%d of %d lines failed; the others are done", im.Failed, im.Failed+im.Succeeded)
	}
	if o.dryRun {
		s.note("%s would be done", count(im.Succeeded, "line"))
	} else {
		s.note("%s done", count(im.Succeeded, "line"))
	}
	return nil
}
