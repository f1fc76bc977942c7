package target

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// A Call makes a request to a hub and returns what to print: nothing if that is
// nil, an [output.Result] as it is, all else as the value of one.
type Call func(ctx context.Context, client *hubrest.Client) (any, error)

// Call finds the hub, makes the call about the identity on, and prints what it
// returns.
func (o *Service) Call(ctx context.Context, s output.Streams, on hubrest.Target, call Call) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	v, err := call(ctx, client)
	if err != nil {
		return t.Explain(ctx, err, on)
	}
	return printAny(s, &o.Output, v)
}

// printAny prints what a call returns.
func printAny(s output.Streams, opt *output.Options, v any) error {
	switch v := v.(type) {
	case nil:
		return nil
	case output.Result:
		return opt.Print(s, v)
	}
	return opt.Print(s, output.Result{Value: v})
}

// A Subject is the options of a command that makes one call: a [Service] if the
// call is about the hub as a whole, else what embeds one.
type Subject interface {
	Flags() []urfave.Flag
	Check() error
	About() hubrest.Target // the identity that errors are about; NoIdentity for none
	Call(context.Context, output.Streams, hubrest.Target, Call) error
	Each(*urfave.Context, output.Streams, Errand) error
}

// OneCall finishes a command that makes one call and prints what it returns. It
// has the flags of o, and more.
func OneCall(s output.Streams, c *urfave.Command, o Subject, call Call, more ...urfave.Flag) *urfave.Command {
	c.Flags = command.Concat(o.Flags(), more)
	c.Action = func(ctx *urfave.Context) error {
		if err := o.Check(); err != nil {
			return err
		}
		return o.Call(ctx.Context, s, o.About(), call)
	}
	return command.Leaf(c)
}
