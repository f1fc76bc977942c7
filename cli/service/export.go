package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
)

// exportTo has write write to a file, which is replaced when all of it is there, or
// to standard output if it is "" or "-". Write returns what it has written, for
// people.
func exportTo(ctx context.Context, s output.Streams, t target.Target, name string, secret bool, write func(io.Writer, *output.Tally) (string, error)) error {
	out, toFile := s.Out, name != "" && name != "-"
	var file *os.File
	if toFile {
		var err error
		if file, err = createBeside(name, secret); err != nil {
			return fail.Errorf(fail.Failed, "%v", fail.PlainPathError(err))
		}
		defer func() {
			file.Close()
			os.Remove(file.Name()) // when it is renamed it is gone
		}()
		out = file
	}
	progress := output.NewTally(s)
	written, err := write(out, progress)
	progress.Clear()
	switch {
	case ctx.Err() != nil && toFile:
		return fail.Errorf(fail.Interrupted, "interrupted after %s; %s is as it was", written, name)
	case ctx.Err() != nil:
		return fail.Errorf(fail.Interrupted, "interrupted after %s", written)
	case err != nil:
		return t.Explain(ctx, err, target.NoIdentity)
	}
	if !toFile {
		s.Note("Exported %s", written)
		return nil
	}
	if err := fail.First(file.Sync(), file.Close()); err != nil { // not all of it is on disk
		return fail.Errorf(fail.Failed, "%v", fail.PlainPathError(err))
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return fail.Errorf(fail.Failed, "%v", fail.PlainPathError(err))
	}
	s.Note("Exported %s to %s", written, name)
	return nil
}

// createBeside creates a file with a name of its own in the folder of name, to
// be renamed to it.
func createBeside(name string, secret bool) (*os.File, error) {
	mode := os.FileMode(0o666)
	if secret {
		mode = 0o600
	}
	for n := 0; ; n++ {
		f, err := os.OpenFile(fmt.Sprintf("%s.%d-%d.tmp", name, os.Getpid(), n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if !errors.Is(err, os.ErrExist) {
			return f, err
		}
	}
}
