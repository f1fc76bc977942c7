package jobs

import (
	"context"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/query"
)

// targets calls fn with the ids of the devices that satisfy a job's
// condition, in their order. A condition that cannot be parsed is a
// *query.Error.
func (s *Scheduler) targets(ctx context.Context, condition string, fn func(device string) error) error {
	q, err := query.ParseCondition(condition)
	if err != nil {
		return err
	}
	return s.hub.Matching(ctx, q, func(id hub.ID) error { return fn(id.Device) })
}
