package cli

import (
	"context"

	"github.com/iotdm/iotdm/hubrest"
)

// A registryCall does something to an identity, and returns what to print.
type registryCall func(ctx context.Context, client *hubrest.Client) (any, error)

// call finds the hub, makes the call about the identity on, and prints what it
// returns unless that is nil.
func (o *serviceOptions) call(ctx context.Context, s streams, on hubrest.Target, call registryCall) error {
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	v, err := call(ctx, client)
	if err != nil {
		return t.explain(ctx, err, on)
	}
	if v == nil {
		return nil
	}
	return o.output.print(s, result{value: v})
}
