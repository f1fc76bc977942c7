package hub

import (
	"cmp"
	"context"

	"github.com/iotdm/iotdm/hub/query"
)

// jobTargets calls fn with the ids of the devices that satisfy a job's
// condition, in their order. A condition that cannot be parsed is a
// *query.Error.
func (s *Server) jobTargets(ctx context.Context, condition string, fn func(device string) error) error {
	q, err := query.ParseCondition(condition)
	if err != nil {
		return err
	}
	return s.matching(ctx, q, func(id ID) error { return fn(id.Device) })
}

// matching calls fn with the devices or modules that a query finds, in the
// order of the store.
func (s *Server) matching(ctx context.Context, q *query.Query, fn func(ID) error) error {
	var refused error
	err := s.scan(ctx, q, "", func(sc *scan) error {
		return collect(ctx, sc,
			func() *[]ID { return new([]ID) },
			func(ids *[]ID, r *row) bool { *ids = append(*ids, r.loadID()); return true },
			func(ids *[]ID) bool {
				for _, id := range *ids {
					if refused = fn(id); refused != nil {
						return false
					}
				}
				return true
			})
	})
	return cmp.Or(refused, err)
}
