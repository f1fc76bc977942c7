package target

import (
	"context"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// A RegistryCall does something to an identity, and returns what to print.
type RegistryCall func(ctx context.Context, client *hubrest.Client) (any, error)

// Call finds the hub, makes the call about the identity on, and prints what it
// returns unless that is nil.
func (o *Service) Call(ctx context.Context, s output.Streams, on hubrest.Target, call RegistryCall) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	v, err := call(ctx, client)
	if err != nil {
		return t.Explain(ctx, err, on)
	}
	if v == nil {
		return nil
	}
	return o.Output.Print(s, output.Result{Value: v})
}
