package hub

import "encoding/json"

// restUnavailable answers an operation of the service that this hub does not
// have: the service's own error for that, with what is missing.
func restUnavailable(what string) func(*Server, *restRequest) (reply, error) {
	err := ErrNotAvailable.with("%s not available on this hub", what)
	return func(*Server, *restRequest) (reply, error) { return reply{}, err }
}

// Import and export jobs read and write blob storage, which the hub has not.
// So there never is such a job, and every attempt to make one fails as it does
// in the service when the storage cannot be reached.

func (s *Server) restListImportJobs(*restRequest) (reply, error) {
	return reply{body: json.RawMessage("[]")}, nil
}

func (s *Server) restCreateImportJob(*restRequest) (reply, error) { return reply{}, ErrNoBlobStorage }

func (s *Server) restGetImportJob(r *restRequest) (reply, error) {
	return reply{}, ErrJobNotFound.with("%s", clip(r.name))
}
