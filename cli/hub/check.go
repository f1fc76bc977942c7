package hub

import (
	"errors"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/node"
)

type hubCheckOptions struct {
	data, save string
	output     output.Options
}

func hubCheckCommand(s output.Streams) *urfave.Command {
	var o hubCheckOptions
	return command.Leaf(&urfave.Command{
		Name:  "check",
		Usage: "check that all of a stopped hub can be read, and save what can",
		Description: "Reads the hub's whole data folder and changes nothing there. Exits with 1 if something is damaged.\n" +
			"With --save all that can be read goes to a new folder, with which \"iotdm hub run --data FOLDER\" starts\n" +
			"a hub that lacks the rest. For example:\n" +
			"   iotdm hub check\n" +
			"   iotdm hub check --data /var/lib/iotdm --save /var/lib/iotdm-saved",
		Flags: command.Concat([]urfave.Flag{
			localhub.Flag(&o.data),
			&urfave.StringFlag{Name: "save", Destination: &o.save, Usage: "write all that can be read to the new `FOLDER`"},
		}, o.output.Flags()),
		Action: func(*urfave.Context) error {
			if err := o.output.Check(); err != nil {
				return err
			}
			return checkHub(s, o)
		},
	})
}

// A checkResult is a data folder and what of it can be read.
type checkResult struct {
	Data    string      `json:"data"`
	Damaged bool        `json:"damaged"`
	Parts   []checkPart `json:"parts"`
	Saved   string      `json:"saved,omitempty"`
}

type checkPart struct {
	Name   string   `json:"name"`
	Found  string   `json:"found,omitempty"`
	Damage []string `json:"damage,omitempty"`
	Note   string   `json:"note,omitempty"`
}

func checkHub(s output.Streams, o hubCheckOptions) error {
	dir, err := localhub.Folder(o.data)
	if err != nil {
		return err
	}
	report, err := node.Check(dir, o.save)
	switch {
	case errors.Is(err, node.ErrNeverRun):
		return fail.Errorf(fail.NotFound, "%v; there is nothing to check", err)
	case err != nil:
		return fail.Errorf(fail.Failed, "%v", err)
	}
	result := checkResult{Data: dir, Damaged: report.Damaged(), Saved: report.Saved}
	for _, p := range report.Parts {
		result.Parts = append(result.Parts, checkPart(p))
	}
	if err := o.output.Print(s, output.Result{Value: result, Text: result.print}); err != nil {
		return err
	}
	saved := ""
	if result.Saved != "" {
		saved = fmt.Sprintf("; what can be read is saved, start it with \"iotdm hub run --data %s\"", command.ShellQuote(result.Saved))
	}
	switch {
	case result.Damaged && saved == "":
		return fail.Errorf(fail.Failed, "the hub in %s is damaged; save what can be read with --save FOLDER, or restore a copy", dir)
	case result.Damaged:
		return fail.Errorf(fail.Failed, "the hub in %s is damaged%s", dir, saved)
	case saved != "":
		s.Note("Nothing is damaged%s", saved)
	}
	return nil
}

func (r checkResult) print(w io.Writer) error {
	for _, p := range r.Parts {
		state := "good"
		if len(p.Damage) > 0 {
			state = "damaged"
		}
		line := fmt.Sprintf("%-16s %s", p.Name, state)
		for _, text := range []string{p.Found, p.Note} {
			if text != "" {
				line += "; " + text
			}
		}
		if _, err := fmt.Fprintln(w, output.OneLine(line)); err != nil {
			return err
		}
		for _, text := range p.Damage {
			if _, err := fmt.Fprintln(w, "  "+output.OneLine(text)); err != nil {
				return err
			}
		}
	}
	return nil
}
