package dps

import (
	"github.com/iotdm/iotdm/hub/internal/httprequest"
)

// What a hub under test does to requests, and takes down of them.

// meet does to the request what faults want.
func (x *exchange) meet(segments []string) error {
	return httprequest.Meet(x.r.Context(), x.door.hub.RequestFault(x.about, segments))
}

// record begins to take down the body of a request.
func (x *exchange) record() {
	if x.door.hub.Journal() != nil {
		x.recorded = httprequest.Record(x.r)
	}
}

// note takes down the request and how it was answered; 0 is not at all.
func (x *exchange) note(status int, cause error) {
	if x.recorded != nil {
		httprequest.Note(x.door.hub, x.about, x.r, x.who, status, cause, x.recorded.SecretBody)
	}
}
