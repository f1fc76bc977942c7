package hub

import "encoding/json"

// A twinInput is what a caller may write of a twin. Clients send whole twins
// back; what is not here is read-only and ignored, and null is the same as
// absent, which the Java SDK relies on.
type twinInput struct {
	Tags       json.RawMessage `json:"tags"`
	Properties struct {
		Desired json.RawMessage `json:"desired"`
	} `json:"properties"`
}

func (in twinInput) change(by string) TwinChange {
	return TwinChange{Tags: present(in.Tags), Desired: present(in.Properties.Desired), By: by}
}

func (s *Server) restGetTwin(r *restRequest) (reply, error) {
	v, err := s.Twin(r.id)
	return reply{body: v}, err
}

func (s *Server) restPatchTwin(r *restRequest) (reply, error) {
	var in twinInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	v, err := s.PatchTwin(r.id, in.change(r.caller.title()), r.ifMatch())
	return reply{body: v}, err
}

func (s *Server) restReplaceTwin(r *restRequest) (reply, error) {
	var in twinInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	v, err := s.ReplaceTwin(r.id, in.change(r.caller.title()), r.ifMatch())
	return reply{body: v}, err
}
