package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
	"github.com/iotdm/iotdm/internal/phrase"
)

// importOptions are those of all commands that import a file.
type importOptions struct {
	file       string // "-" is standard input
	format     string // "ndjson", "csv", or "" for what it looks like
	mode       string
	dryRun     bool
	failedOnly bool
	confirm    command.Confirmation
	parallel   int
	fromLine   int
	subject    string // the heading of what lines are about; empty is DEVICE
}

func (o *importOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "mode", Destination: &o.mode, Value: string(hubrest.ImportCreateOrUpdate), Usage: "what to do, as an `IMPORTMODE` of IoT Hub"},
		&urfave.BoolFlag{Name: "dry-run", Destination: &o.dryRun, DisableDefaultText: true, Usage: "only say what would be done"},
		o.confirm.Flag(),
		&urfave.BoolFlag{Name: "failed-only", Destination: &o.failedOnly, DisableDefaultText: true, Usage: "report only the lines that failed"},
		&urfave.IntFlag{Name: "from-line", Destination: &o.fromLine, Value: 1, Usage: "begin at line `N` of the file"},
		&urfave.IntFlag{Name: "parallel", Destination: &o.parallel, Value: 4, Usage: "have up to `N` requests under way, 1 to 64"},
		bulkFormatFlag(&o.format),
	}
}

// check refuses options that make no sense together.
func (o *importOptions) check(out *output.Options) error {
	switch {
	case o.parallel < 1 || o.parallel > 64:
		return fail.Usagef("--parallel %d is not within 1 to 64", o.parallel)
	case o.fromLine < 1:
		return fail.Usagef("--from-line %d is not the number of a line", o.fromLine)
	case out.Format == "yaml":
		return fail.Usagef("the report has no --output yaml; use json, which is a line of JSON for each line, table or tsv")
	}
	return fail.First(checkBulkFormat(o.format), out.Check())
}

// A bulkRun is an import of one file, of whatever it has in it.
type bulkRun struct {
	run      func(context.Context) error
	resume   func() int
	report   *func(bulk.LineResult) error
	counts   *bulk.Counts
	broken   *error // why the file could not be read to its end
	progress *output.Tally
}

// importFile imports what in has, once the user has agreed to what it changes. The
// run for it is made by newRun.
func (o *importOptions) importFile(ctx context.Context, s output.Streams, out output.Options, t target.Target, in io.Reader, newRun func(in io.Reader, dryRun bool) (*bulkRun, error)) error {
	begin := func(dryRun bool) (*bulkRun, error) {
		im, err := newRun(in, dryRun)
		if err != nil {
			return nil, fail.Usagef("%s %v", o.name(), fail.PlainPathError(err))
		}
		return im, nil
	}
	if file, twice := in.(*os.File); twice && !o.dryRun && !o.confirm.Given() {
		im, err := begin(true)
		if err != nil {
			return err
		}
		if err := o.ask(ctx, s, t, im); err != nil {
			return err
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fail.Errorf(fail.Failed, "%s: %v", o.name(), fail.PlainPathError(err))
		}
	}
	im, err := begin(o.dryRun)
	if err != nil {
		return err
	}
	headed := false
	*im.report = func(r bulk.LineResult) error {
		defer func() { im.progress.Show(im.counts.Lines(), o.summary(im)) }()
		if o.failedOnly && !r.Failed() {
			return nil
		}
		im.progress.Clear()
		err := o.printLine(s, out, r, !headed)
		headed = true
		return err
	}
	err = im.run(ctx)
	im.progress.Clear()
	return o.conclude(ctx, s, t, im, err)
}

// ask finds out what the file would do, and asks the user if that touches what is
// there.
func (o *importOptions) ask(ctx context.Context, s output.Streams, t target.Target, im *bulkRun) error {
	*im.report = func(bulk.LineResult) error {
		im.progress.Show(im.counts.Lines(), "looking at what is there: "+output.Count(im.counts.Lines(), "line"))
		return nil
	}
	err := im.run(ctx)
	im.progress.Clear()
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted; nothing was done")
	case err != nil && *im.broken == nil: // of a file that breaks off what can be read is imported
		return t.Explain(ctx, err, target.NoIdentity)
	}
	if question := im.counts.Question(); question != "" {
		return o.confirm.Ask(ctx, s, question)
	}
	return nil
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

// name is the file as messages name it.
func (o *importOptions) name() string {
	if o.file == "-" {
		return "standard input"
	}
	return o.file
}

// open opens the file. What has to be read twice and can't, such as a pipe, is kept
// in a file that only the user can read, and which has no name where a file can do
// without.
func (o *importOptions) open(s output.Streams) (in io.Reader, close func(), err error) {
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

var lineColumns = []output.Column{
	{"LINE", "line"}, {"DEVICE", "id"}, {"MODULE", "moduleId"}, {"MODE", "importMode"}, {"RESULT", "result"}, {"CODE", "errorCode"}, {"REASON", "reason"}, {"CHANGES", "changes"},
}

// printLine prints a line of the report. The columns for people are as wide as
// most ids, for nobody knows those to come.
func (o *importOptions) printLine(s output.Streams, out output.Options, r bulk.LineResult, first bool) error {
	return out.PrintLine(s, output.Result{Value: r, Columns: lineColumns, Text: func(w io.Writer) error {
		if first {
			if _, err := fmt.Fprintf(w, "LINE    %-24s  RESULT        WHAT\n", cmp.Or(o.subject, "DEVICE")); err != nil {
				return err
			}
		}
		text := fmt.Sprintf("%-6d  %-24s  %-12s  %s", r.Line, hubrest.Target{DeviceID: r.ID, ModuleID: r.ModuleID}, r.Result, r.Why())
		_, err := fmt.Fprintln(w, output.Cut(w, strings.TrimRight(output.OneLine(text), " ")))
		return err
	}})
}

// summary is how far the import is.
func (o *importOptions) summary(im *bulkRun) string {
	return phrase.Choose(o.dryRun, "would be: ", "") + im.counts.String()
}

// conclude words what came of all.
func (o *importOptions) conclude(ctx context.Context, s output.Streams, t target.Target, im *bulkRun, err error) error {
	n := im.counts
	resume := fmt.Sprintf("%s; go on with --from-line %d", o.summary(im), im.resume())
	if err == nil {
		s.Note("%s", sentence(o.summary(im)))
	}
	switch {
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted: %s", resume)
	case err != nil && *im.broken != nil && errors.Is(err, *im.broken):
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
