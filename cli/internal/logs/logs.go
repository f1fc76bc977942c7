// Package logs writes the logs of commands that run until they are stopped: to
// standard error, as text or JSON, with times where nobody else adds them.
package logs

import (
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/lmittmann/tint"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// Options say how a log is written. The zero value is text.
type Options struct{ format string }

// Flag returns the flag that fills o. env are variables that may say it, too.
func (o *Options) Flag(env ...string) urfave.Flag {
	return command.Choice{Values: []string{"text", "json"}, StringFlag: &urfave.StringFlag{
		Name: "log-format", Destination: &o.format, EnvVars: append(env, "IOTDM_LOG_FORMAT"), DefaultText: "text",
		Usage: "write the log, on standard error, as `FORMAT`: text or json"}}
}

// Check refuses a format that there is not.
func (o *Options) Check() error {
	switch o.format {
	case "", "text", "json":
		return nil
	}
	return fail.Usagef("--log-format %q is neither text nor json", o.format)
}

// JSON reports whether every line of the log is an object.
func (o *Options) JSON() bool { return o.format == "json" }

// Handler returns a handler that writes every record from a level on. Text is,
// on a terminal, a short line with the time of day, which people who watch know
// the day of; for the journal, a priority and no time, which the journal adds;
// and elsewhere logfmt.
func (o *Options) Handler(s output.Streams, level slog.Level) slog.Handler {
	switch {
	case o.JSON():
		return slog.NewJSONHandler(s.ErrOut, &slog.HandlerOptions{Level: level})
	case output.IsTerminal(s.ErrOut):
		return tint.NewTextHandler(s.ErrOut, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: true})
	case toJournal(s.ErrOut):
		return tint.NewTextHandler(s.ErrOut, &tint.Options{Level: level, NoColor: true, ReplaceAttr: priorityForTime})
	}
	return slog.NewTextHandler(s.ErrOut, &slog.HandlerOptions{Level: level})
}

// Streams returns the streams of a command that logs so: in JSON, what it says
// besides is a record too, so that all of standard error is.
func (o *Options) Streams(s output.Streams) output.Streams {
	if o.JSON() {
		s.ErrOut = notes{slog.New(o.Handler(s, slog.LevelInfo))}
	}
	return s
}

// notes makes records of lines, each of which is one write.
type notes struct{ log *slog.Logger }

func (n notes) Write(line []byte) (int, error) {
	n.log.Info(strings.TrimRight(string(line), "\n"))
	return len(line), nil
}

// Line returns a function that writes a line in words, with what Handler would
// put in front of it.
func Line(s output.Streams) func(slog.Level, string) {
	switch {
	case output.IsTerminal(s.ErrOut):
		return func(_ slog.Level, text string) { s.Note("%s %s", time.Now().Format(time.TimeOnly), text) }
	case toJournal(s.ErrOut):
		return func(l slog.Level, text string) { s.Note("%s%s", priority(l), text) }
	}
	return func(_ slog.Level, text string) { s.Note("%s %s", time.Now().UTC().Format(time.RFC3339), text) }
}

// toJournal reports whether systemd has connected w, which is standard error, to
// its journal.
func toJournal(w io.Writer) bool {
	is, err := journal.StderrIsJournalStream()
	return is && err == nil && output.IsStderr(w)
}

// priorityForTime drops the time and writes the level as sd-daemon(3) has it.
func priorityForTime(groups []string, a slog.Attr) slog.Attr {
	switch {
	case len(groups) > 0:
	case a.Key == slog.TimeKey:
		return slog.Attr{}
	case a.Key == slog.LevelKey:
		level, _ := a.Value.Any().(slog.Level)
		return slog.String(slog.LevelKey, priority(level))
	}
	return a
}

func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}
