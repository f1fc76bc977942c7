package dps

import (
	"github.com/iotdm/iotdm/hub/internal/httprequest"
)

// What a hub under test does to requests, and takes down of them.

// meet does to the request what faults want, those on rest and those on a device that
// connects.
func (x *exchange) meet(m routeMatch, segments []string) error {
	err := httprequest.Meet(x.r.Context(), x.door.hub.RequestFault(x.about, segments))
	if err != nil || m.registration == "" {
		return err
	}
	return httprequest.Meet(x.r.Context(), x.door.hub.ConnectionFault(x.about))
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
