package provisioning

import "context"

// Claim takes a registration's turn among the nodes.
func (s *Service) Claim(ctx context.Context, id string) error { return s.claim(ctx, id) }
