package hub

import (
	"context"
	"strings"
)

// jobTargets calls fn with the ids of the devices that satisfy a job's
// condition. A condition that cannot be parsed is ErrArgumentInvalid.
func (s *Server) jobTargets(ctx context.Context, condition string, fn func(device string) error) error {
	if strings.TrimSpace(condition) != "*" {
		return ErrArgumentInvalid.with("this hub knows no other condition of jobs than '*'")
	}
	prefix := []byte(deviceTwinPrefix)
	return s.store.Scan(prefix, prefixEnd(prefix), func(k, _ []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(keyID(k).Device)
	})
}
