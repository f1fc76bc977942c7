// Package cli is the command line of iotdm: a device, a service client and a
// hub behind one program.
//
// Every command is three parts in one file: its flags, which fill a struct of
// options; one check of that struct; and one function that does the work and
// knows nothing of flags. The files lie in a package for each role: device,
// service, hub, sas and doctor, which never see each other.
//
// They stand on a frame of packages, below internal: how a command line is read
// (command), which hub it means (target, localhub), how results are printed
// (output) and how a command fails (fail). Here is what is of no role: the tree of
// commands, help, completion, the version and the demo.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/console"
	"github.com/iotdm/iotdm/cli/device"
	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/cli/hub"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/sas"
	"github.com/iotdm/iotdm/cli/service"
)

// Main runs the command line args, of which the first is the program's own
// name, and returns the exit status: 0 done, 1 failed, 2 wrong usage, 3 not
// found or not online, 4 not authorized, 5 timed out, 130 interrupted. Results go
// to out and everything else to errOut. An interrupt or SIGTERM ends the command
// cleanly; a second one ends the process.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	s := output.NewStreams(in, out, errOut)
	app := newApp(s)
	if complete(ctx, s, app.Commands, args) {
		return 0
	}
	page := helpPage{out: s.Out, width: output.TerminalWidth(s.Out)}
	if page.width > 0 {
		app.Writer = &page
	}
	err := app.RunContext(ctx, command.Arrange(app.Commands, completionArguments(args)))
	if _, explained := errors.AsType[*fail.Error](err); err != nil && ctx.Err() != nil && !explained {
		err = fail.Errorf(fail.Interrupted, "interrupted")
	}
	return report(s, fail.First(err, page.print()))
}

func newApp(s output.Streams) *urfave.App {
	commands := []*urfave.Command{
		demoCommand(s),
		hub.Commands(s),
		console.Command(s),
		device.Commands(s),
		service.Commands(s),
		sas.Commands(s),
		doctor.Command(s),
		completionCommand(s),
		versionCommand(s),
		helpCommand(s),
	}
	var wantVersion bool
	return &urfave.App{
		Name:                 "iotdm",
		HelpName:             "iotdm",
		Usage:                "manage devices through IoT Hub: a device, a service client and a hub",
		UsageText:            "iotdm COMMAND [flags]",
		Description:          "Start with \"iotdm demo\": it shows a device, a service and a hub at work.",
		HideVersion:          true,
		HideHelpCommand:      true, // arrange turns it into --help
		EnableBashCompletion: true,
		Reader:               s.In,
		Writer:               s.Out,
		ErrWriter:            s.ErrOut,
		Commands:             commands,
		Flags:                []urfave.Flag{versionFlag(&wantVersion), urfave.HelpFlag}, // urfave adds that only where there is no command "help"
		Action: func(ctx *urfave.Context) error {
			if wantVersion && !ctx.Args().Present() {
				return versionResult().Text(s.Out)
			}
			return command.HelpOrUnknown(commands)(ctx)
		},
		OnUsageError:   command.UsageError,
		ExitErrHandler: func(*urfave.Context, error) {}, // Main alone decides the exit status
	}
}
