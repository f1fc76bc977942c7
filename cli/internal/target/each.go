package target

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// An Errand is a call that is made for each of several names.
type Errand = ErrandWith[*hubrest.Client]

// An ErrandWith is an errand that is run with a client of some kind.
type ErrandWith[C closer] struct {
	Columns []output.Column // of the table of what the calls return; nil if they return nothing
	Call    func(ctx context.Context, client C, name string) (any, error)
	Explain func(ctx context.Context, t Target, err error, name string) error // words an error of Call
}

// A closer is a client of some kind.
type closer interface{ Close() }

// An opening is how a command comes by its client.
type opening[C closer] func(output.Streams) (Target, C, error)

// Each runs an errand for the arguments of ctx, or for what the flag in their place
// says. What one call returns is printed as it is; of several it is an array, which is
// printed as it comes, or a table. When one of several fails, the user is told, the
// others are done, and the exit status is that of the worst.
func (o *Service) Each(ctx *urfave.Context, s output.Streams, e Errand) error {
	return runEach(ctx, s, &o.Output, o.Open, e)
}

func runEach[C closer](ctx *urfave.Context, s output.Streams, out *output.Options, open opening[C], e ErrandWith[C]) error {
	n := ctx.NArg()
	if n > 1 && ctx.IsSet("etag") {
		return fail.Usagef("--etag is that of one; give one argument")
	}
	t, client, err := open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if n < 2 {
		for name := range command.Each(ctx) {
			v, err := e.Call(ctx.Context, client, name)
			if err != nil {
				return e.Explain(ctx.Context, t, err, name)
			}
			return printAny(s, out, v)
		}
	}
	failed, status := 0, 0
	results := func(yield func(json.RawMessage, error) bool) {
		for name := range command.Each(ctx) {
			v, err := e.Call(ctx.Context, client, name)
			if r, ok := v.(output.Result); ok {
				v = r.Value
			}
			var doc json.RawMessage
			if err == nil && v != nil {
				doc, err = jsontext.Marshal(v)
			}
			switch {
			case err != nil && (ctx.Err() != nil || !isOfOne(err)):
				yield(nil, e.Explain(ctx.Context, t, err, name))
				return
			case err != nil:
				err = e.Explain(ctx.Context, t, err, name)
				failed, status = failed+1, max(status, fail.ExitStatus(err))
				s.Note("iotdm: %v", err)
			case doc != nil && !yield(doc, nil):
				return
			}
		}
	}
	if err := printEach(s, *out, results, e.Columns); err != nil {
		return err
	}
	if failed > 0 {
		return fail.Errorf(status, "%d of %d failed", failed, n)
	}
	return nil
}

func printEach(s output.Streams, opt output.Options, results func(func(json.RawMessage, error) bool), columns []output.Column) error {
	if columns == nil {
		for _, err := range results {
			if err != nil {
				return err
			}
		}
		return nil
	}
	if opt.ForPeople() { // as for one
		opt.Format = "json"
	}
	return opt.PrintRows(s, results, func([]json.RawMessage) []output.Column { return columns })
}

// isOfOne reports whether an error may be of the one that was asked about, and not of
// the way to the hub or of who asks.
func isOfOne(err error) bool {
	if answer, ok := errors.AsType[*hubrest.Error](err); ok {
		return answer.Status != http.StatusUnauthorized
	}
	_, ok := errors.AsType[*fail.Error](err)
	return ok
}

// EachCall is OneCall for a command about one or several identities, which are its
// arguments or in the flag in their place. The table of several has columns; nil is
// for calls that return nothing.
func EachCall(s output.Streams, c *urfave.Command, o Subject, columns []output.Column, call Call, more ...urfave.Flag) *urfave.Command {
	c.Flags = command.Concat(o.Flags(), more)
	c.Action = func(ctx *urfave.Context) error {
		if err := o.Check(); err != nil {
			return err
		}
		return o.Each(ctx, s, Errand{
			Columns: columns,
			Call:    func(ctx context.Context, client *hubrest.Client, _ string) (any, error) { return call(ctx, client) },
			Explain: func(ctx context.Context, t Target, err error, _ string) error { return t.Explain(ctx, err, o.About()) },
		})
	}
	return command.Leaf(c)
}
