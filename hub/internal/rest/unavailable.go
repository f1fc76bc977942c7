package rest

import (
	"encoding/json"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// unavailable answers an operation of the service that this hub does not
// have: the service's own error for that, with what is missing.
func unavailable(what string) func(*Door, *request) (reply, error) {
	err := hub.ErrNotAvailable.With("%s not available on this hub", what)
	return func(*Door, *request) (reply, error) { return reply{}, err }
}

// Import and export jobs read and write blob storage, which the hub has not.
// So there never is such a job, and every attempt to make one fails as it does
// in the service when the storage cannot be reached.

func (d *Door) listImportJobs(*request) (reply, error) {
	return reply{body: json.RawMessage("[]")}, nil
}

func (d *Door) createImportJob(*request) (reply, error) { return reply{}, hub.ErrNoBlobStorage }

func (d *Door) getImportJob(r *request) (reply, error) {
	return reply{}, hub.ErrJobNotFound.With("%s", words.Clip(r.name))
}
