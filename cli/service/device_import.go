package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/bulk"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

type deviceImportOptions struct {
	target.Service
	file       string // "-" is standard input
	format     string // "ndjson", "csv", or "" for what it looks like
	mode       string
	dryRun     bool
	failedOnly bool
	confirm    command.Confirmation
	parallel   int
	fromLine   int
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
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "mode", Destination: &o.mode, Value: string(hubrest.ImportCreateOrUpdate), Usage: "what to do, as an `IMPORTMODE` of IoT Hub"},
			&urfave.BoolFlag{Name: "dry-run", Destination: &o.dryRun, DisableDefaultText: true, Usage: "only say what would be done"},
			o.confirm.Flag(),
			&urfave.BoolFlag{Name: "failed-only", Destination: &o.failedOnly, DisableDefaultText: true, Usage: "report only the lines that failed"},
			&urfave.IntFlag{Name: "from-line", Destination: &o.fromLine, Value: 1, Usage: "begin at line `N` of the file"},
			&urfave.IntFlag{Name: "parallel", Destination: &o.parallel, Value: 4, Usage: "have up to `N` requests under way, 1 to 64"},
			bulkFormatFlag(&o.format),
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			o.file = ctx.Args().First()
			if err := o.Check(); err != nil {
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
		return fail.Usagef("--format %q is neither ndjson nor csv", format)
	}
	return nil
}

// Check refuses options that make no sense together.
func (o *deviceImportOptions) Check() error {
	mode, known := bulk.ModeNamed(o.mode)
	if !known {
		return fail.Usagef("--mode %q is none of create, update, createOrUpdate, delete, updateTwin, or one of these with IfMatchETag", o.mode)
	}
	o.mode = string(mode)
	switch {
	case o.parallel < 1 || o.parallel > 64:
		return fail.Usagef("--parallel %d is not within 1 to 64", o.parallel)
	case o.fromLine < 1:
		return fail.Usagef("--from-line %d is not the number of a line", o.fromLine)
	case o.Output.Format == "yaml":
		return fail.Usagef("the report has no --output yaml; use json, which is a line of JSON for each line, table or tsv")
	}
	return fail.First(checkBulkFormat(o.format), o.Output.Check())
}

// name is the file as messages name it.
func (o *deviceImportOptions) name() string {
	if o.file == "-" {
		return "standard input"
	}
	return o.file
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
	if file, twice := in.(*os.File); twice && !o.dryRun && !o.confirm.Given() {
		if err := o.ask(ctx, s, t, client, file); err != nil {
			return err
		}
	}
	im, err := o.importer(s, client, in)
	if err != nil {
		return err
	}
	headed := false
	im.Report = func(r bulk.LineResult) error {
		defer func() { im.Progress.Show(im.Counts.Lines(), o.summary(im)) }()
		if o.failedOnly && !r.Failed() {
			return nil
		}
		im.Progress.Clear()
		err := o.printLine(s, r, !headed)
		headed = true
		return err
	}
	err = im.Run(ctx)
	im.Progress.Clear()
	return o.conclude(ctx, s, t, im, err)
}

// open opens the file. What has to be read twice and can't, such as a pipe, is kept
// in a file that only the user can read, and which has no name where a file can do
// without.
func (o *deviceImportOptions) open(s output.Streams) (in io.Reader, close func(), err error) {
	in, close = io.MultiReader(s.In), func() {}
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil {
			return nil, nil, fail.Usagef("%v", fail.PlainPathError(err))
		}
		close = func() { f.Close() }
		if info, err := f.Stat(); err != nil || info.Mode().IsRegular() {
			return f, close, nil
		}
		in = io.MultiReader(f)
	}
	if o.dryRun || o.confirm.Given() {
		return in, close, nil
	}
	defer close()
	f, err := os.CreateTemp("", "iotdm-import-*")
	if err == nil {
		os.Remove(f.Name())
		if _, err = io.Copy(f, in); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	}
	if err != nil {
		return nil, nil, fail.Errorf(fail.Failed, "%s: %v", o.name(), fail.PlainPathError(err))
	}
	return f, func() { f.Close(); os.Remove(f.Name()) }, nil
}

// importer returns what imports the lines of in.
func (o *deviceImportOptions) importer(s output.Streams, client *hubrest.Client, in io.Reader) (*bulk.Import, error) {
	lines, err := bulk.NewReader(in, o.format)
	if err != nil {
		return nil, fail.Usagef("%s %v", o.name(), fail.PlainPathError(err))
	}
	return &bulk.Import{Client: client, Mode: hubrest.ImportMode(o.mode), DryRun: o.dryRun, Parallel: o.parallel, FromLine: o.fromLine, Lines: lines, Progress: output.NewTally(s)}, nil
}

// ask finds out what the file would do, and asks the user if that touches what is
// there.
func (o *deviceImportOptions) ask(ctx context.Context, s output.Streams, t target.Target, client *hubrest.Client, file *os.File) error {
	im, err := o.importer(s, client, file)
	if err != nil {
		return err
	}
	im.DryRun = true
	im.Report = func(bulk.LineResult) error {
		im.Progress.Show(im.Counts.Lines(), "looking at what is there: "+output.Count(im.Counts.Lines(), "line"))
		return nil
	}
	err = im.Run(ctx)
	im.Progress.Clear()
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted; nothing was done")
	case err != nil && im.Broken == nil: // of a file that breaks off what can be read is imported
		return t.Explain(ctx, err, target.NoIdentity)
	}
	if question := im.Counts.Question(); question != "" {
		if err := o.confirm.Ask(ctx, s, question); err != nil {
			return err
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fail.Errorf(fail.Failed, "%s: %v", o.name(), fail.PlainPathError(err))
	}
	return nil
}

var lineColumns = []output.Column{
	{"LINE", "line"}, {"DEVICE", "id"}, {"MODULE", "moduleId"}, {"MODE", "importMode"}, {"RESULT", "result"}, {"CODE", "errorCode"}, {"REASON", "reason"}, {"CHANGES", "changes"},
}

// printLine prints a line of the report. The columns for people are as wide as
// most ids, for nobody knows those to come.
func (o *deviceImportOptions) printLine(s output.Streams, r bulk.LineResult, first bool) error {
	return o.Output.PrintLine(s, output.Result{Value: r, Columns: lineColumns, Text: func(w io.Writer) error {
		if first {
			if _, err := fmt.Fprintln(w, "LINE    DEVICE                    RESULT        WHAT"); err != nil {
				return err
			}
		}
		text := fmt.Sprintf("%-6d  %-24s  %-12s  %s", r.Line, hubrest.Target{DeviceID: r.ID, ModuleID: r.ModuleID}, r.Result, r.Why())
		_, err := fmt.Fprintln(w, output.Cut(w, strings.TrimRight(output.OneLine(text), " ")))
		return err
	}})
}

// summary is how far the import is.
func (o *deviceImportOptions) summary(im *bulk.Import) string {
	return output.Choose(o.dryRun, "would be: ", "") + im.Counts.String()
}

// conclude words what came of all.
func (o *deviceImportOptions) conclude(ctx context.Context, s output.Streams, t target.Target, im *bulk.Import, err error) error {
	n := im.Counts
	resume := fmt.Sprintf("%s; go on with --from-line %d", o.summary(im), im.Resume())
	if err == nil {
		s.Note("%s", sentence(o.summary(im)))
	}
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted: %s", resume)
	case err != nil && im.Broken != nil && errors.Is(err, im.Broken):
		return fail.Errorf(fail.Failed, "%s %v: %s", o.name(), fail.PlainPathError(err), resume)
	case err != nil:
		explained := t.Explain(ctx, err, target.NoIdentity)
		status := fail.Failed
		if f, ok := errors.AsType[*fail.Error](explained); ok {
			status = f.Status
		}
		return fail.Errorf(status, "%v: %s", explained, resume)
	case n.Failed > 0 && o.dryRun:
		return fail.Errorf(fail.Failed, "%d of %s would fail", n.Failed, output.Count(n.Lines(), "line"))
	case n.Failed == 1 && n.Lines() == 1:
		return fail.Errorf(fail.Failed, "the only line failed")
	case n.Failed > 0 && n.Done() == 0:
		return fail.Errorf(fail.Failed, "all %d lines failed", n.Failed)
	case n.Failed > 0:
		return fail.Errorf(fail.Failed, "%d of %d lines failed; the others are done", n.Failed, n.Lines())
	}
	return nil
}
