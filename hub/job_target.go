package hub

import (
	"bytes"
	"context"
	"errors"
	"slices"

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
// order of their ids. It reads only where the query says what ids there are.
func (s *Server) matching(ctx context.Context, q *query.Query, fn func(ID) error) error {
	prefix, ranges := deviceTwinPrefix, q.Ranges(query.DeviceID)
	modules := q.From() == query.Modules
	if modules {
		prefix = moduleTwinPrefix
		// Their keys go by device and "/", which some characters of ids are
		// below, so that a range of devices is not one of keys.
		if slices.ContainsFunc(ranges, func(r query.Range) bool { _, exact := r.Exact(); return !exact }) {
			ranges = []query.Range{{}}
		}
	}
	all := q.ConditionFields() == 0 // "*", or a constant
	for _, r := range ranges {
		start, end := []byte(prefix+r.From), prefixEnd([]byte(prefix))
		switch device, exact := r.Exact(); {
		case exact && modules:
			start = []byte(prefix + device + "/")
			end = prefixEnd(start)
		case r.To != "":
			end = []byte(prefix + r.To)
		}
		if bytes.Compare(start, end) >= 0 {
			continue
		}
		err := s.store.Scan(start, end, func(k, v []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			id := keyID(k)
			var doc query.Text
			if !all {
				i, err := s.readIdentity(id)
				if errors.Is(err, id.notFound()) {
					return nil // deleted meanwhile
				}
				if err != nil {
					return err
				}
				t, err := decodeTwin(v)
				if err != nil {
					return err
				}
				if doc, err = s.view(i, t).MarshalJSON(); err != nil {
					return err
				}
			}
			if !q.Match(doc) {
				return nil
			}
			return fn(id)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
