package hub

import (
	"encoding/json"
	"net/http"
)

// STOPGAP by the lead: replaced whole by the REST door.

func (s *Server) newHTTPServer() *http.Server { return &http.Server{} }

func marshal(v any) ([]byte, error) { return json.Marshal(v) }
