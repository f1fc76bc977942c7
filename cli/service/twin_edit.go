package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/twinedit"
	"github.com/iotdm/iotdm/twin"
)

type twinEditOptions struct {
	target.Service
	on     identityOptions
	asJSON bool
}

func twinEditCommand(s output.Streams) *urfave.Command {
	var o twinEditOptions
	return command.Leaf(&urfave.Command{
		Name:      "edit",
		ArgsUsage: "[DEVICE]",
		Usage:     "edit tags and desired properties in your editor",
		Description: "Opens $VISUAL or $EDITOR. What you save is compared with what was there, and\n" +
			"the difference is sent as a patch. When somebody else writes in between, both\n" +
			"changes are merged, and what you both have changed comes back to your editor.\n" +
			"For example:\n" +
			"   EDITOR=nano iotdm service twin edit --device device-1",
		Flags: command.Concat(o.on.flags(), []urfave.Flag{
			&urfave.BoolFlag{Name: "json", Destination: &o.asJSON, DisableDefaultText: true, Usage: "edit JSON instead of YAML"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.on.check(), o.Output.Check()); err != nil {
				return err
			}
			return editTwin(ctx.Context, s, o)
		},
	})
}

// A twinEdit is one use of the command.
type twinEdit struct {
	output.Streams
	o      twinEditOptions
	target target.Target
	client *hubrest.Client
	editor *editor

	now  hubrest.Twin      // as the hub had it when it was last read
	base twinedit.Document // what the user's changes are changes of
}

func editTwin(ctx context.Context, s output.Streams, o twinEditOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	e := &twinEdit{Streams: s, o: o, target: t, client: client}
	if e.now, err = client.Twin(ctx, o.on.target()); err != nil {
		return t.Explain(ctx, err, o.on.target())
	}
	e.base = twinedit.Of(e.now)
	pattern := "iotdm-twin-*.yaml"
	if o.asJSON {
		pattern = "iotdm-twin-*.json"
	}
	if e.editor, err = newEditor(s, pattern); err != nil {
		return err
	}
	saved, err := e.run(ctx)
	if err == nil {
		e.editor.close()
		return nil
	}
	if saved == nil { // nothing of the user's would be lost
		e.editor.close()
		return err
	}
	status := fail.Failed
	if f, ok := errors.AsType[*fail.Error](err); ok {
		status = f.Status
	}
	if werr := os.WriteFile(e.editor.file, saved, 0o600); werr != nil {
		return fail.Errorf(status, "%v", errors.Join(err, fail.PlainPathError(werr)))
	}
	return fail.Errorf(status, "%v; your text is in %s", err, e.editor.file)
}

// head is what the document begins with.
func (e *twinEdit) head() []string {
	return []string{
		fmt.Sprintf("The twin of %s on %s, version %d.", target.Noun(e.o.on.target()), e.target.Host(), e.now.Version),
		"Change tags and desired properties; remove a line to remove a property.",
		"All else of a twin is its device's or its hub's to write. To change",
		"nothing, leave the text as it is, or empty.",
		"",
	}
}

// maxRounds ends the dance with an editor that is a program and not a person.
const maxRounds = 50

// run returns nil when the hub has the changes, or there are none, and
// otherwise what the user has saved.
func (e *twinEdit) run(ctx context.Context) (saved []byte, err error) {
	text, err := writeTwinDocument(e.base, e.o.asJSON, e.head())
	if err != nil {
		return nil, err
	}
	original := text
	for round := 1; ; round++ {
		before := text
		text, err = e.editor.edit(before)
		if err != nil {
			if left, rerr := os.ReadFile(e.editor.file); rerr == nil && !bytes.Equal(left, original) {
				return left, err
			}
			return nil, err
		}
		if len(withoutComments(text, e.o.asJSON)) == 0 || bytes.Equal(text, original) {
			e.Note("Nothing changed")
			return nil, nil
		}
		text = e.withoutComplaint(text)
		// A complaint will be a line on top of the text.
		mine, complaint := parseTwinDocument(append([]byte("\n"), text...), e.o.asJSON)
		if complaint == nil {
			done, conflicts, err := e.submit(ctx, &mine)
			switch refusal, refused := asAnswer(err); {
			case done:
				return nil, err
			case refused && refusal.Status == 400, refused && refusal.Code == 403100:
				complaint = errors.New(refusal.Message) // of what the user wrote
			case err != nil:
				return text, e.target.Explain(ctx, err, e.o.on.target())
			}
			if len(conflicts) > 0 {
				if text, err = writeTwinDocument(mine, e.o.asJSON, append(e.conflictLines(conflicts), e.head()...)); err != nil {
					return text, err
				}
				original = nil // saving it as it is decides for mine
				continue
			}
		}
		if bytes.Equal(text, e.withoutComplaint(before)) || round == maxRounds {
			return e.complain(text, complaint), fail.Errorf(fail.Failed, "%v", complaint)
		}
		text = e.complain(text, complaint)
	}
}

// complain puts an error on top of the text.
func (e *twinEdit) complain(text []byte, complaint error) []byte {
	line := strings.Join(strings.FieldsFunc(complaint.Error(), output.IsLineBreak), "; ")
	return append([]byte(e.complaintMark()+line+"\n"), text...)
}

func (e *twinEdit) complaintMark() string { return commentMark(e.o.asJSON) + " ERROR: " }

// withoutComplaint takes the last error away.
func (e *twinEdit) withoutComplaint(text []byte) []byte {
	if bytes.HasPrefix(text, []byte(e.complaintMark())) {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text
}

func (e *twinEdit) conflictLines(conflicts []twin.Conflict) []string {
	lines := []string{"CONFLICT: somebody else has changed what you have changed. Below is yours;", "save it to keep it, or change it first:"}
	for _, c := range conflicts {
		lines = append(lines, output.Printable(fmt.Sprintf("  %s: yours %s, theirs %s, before %s", c.Path, orNothing(c.Mine), orNothing(c.Theirs), orNothing(c.Base))))
	}
	return append(lines, "")
}

// submit sends the changes that lead from base to mine. When somebody else has
// written in between it merges theirs into mine and sends that, or returns the
// conflicts, with mine merged as far as possible.
func (e *twinEdit) submit(ctx context.Context, mine *twinedit.Document) (done bool, conflicts []twin.Conflict, err error) {
	// An interrupt during the editing was not for us.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for {
		change, err := twinedit.Patch(e.base, *mine)
		if err != nil {
			return false, nil, err
		}
		change.ETag = e.now.ETag
		if change.Tags == nil && change.Desired == nil {
			e.Note("Nothing changed")
			return true, nil, nil
		}
		changed, err := e.client.PatchTwin(ctx, e.o.on.target(), change)
		if err == nil {
			return true, nil, e.show(*mine, changed)
		}
		if !errors.Is(err, hubrest.ErrPreconditionFailed) {
			return false, nil, err
		}
		if e.now, err = e.client.Twin(ctx, e.o.on.target()); err != nil {
			return false, nil, err
		}
		theirs := twinedit.Of(e.now)
		e.tellTheirs(theirs)
		*mine, conflicts = twinedit.Reconcile(e.base, *mine, theirs)
		e.base = theirs
		if len(conflicts) > 0 {
			return false, conflicts, nil
		}
	}
}

// differences returns what differs between two twins, as lines.
func differences(old, now twinedit.Document) (lines []string) {
	for _, c := range twinedit.Diff(old, now) {
		lines = append(lines, output.Printable(fmt.Sprintf("%s: %s -> %s", c.Path, orNothing(c.Old), orNothing(c.New))))
	}
	return lines
}

func (e *twinEdit) tellTheirs(theirs twinedit.Document) {
	for _, line := range differences(e.base, theirs) {
		e.Note("Meanwhile somebody else has changed %s", line)
	}
}

// show prints what was changed.
func (e *twinEdit) show(mine twinedit.Document, changed hubrest.Twin) error {
	lines := differences(e.base, mine)
	err := e.o.Output.Print(e.Streams, output.Result{Value: changed.Raw, Text: func(w io.Writer) error {
		_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
		return err
	}})
	if err == nil && e.o.Output.ForPeople() {
		e.Note("The twin of %s is now version %d", target.Noun(e.o.on.target()), changed.Version)
	}
	return err
}
