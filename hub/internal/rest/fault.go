package rest

import (
	"strconv"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// maxFault bounds the body of a fault, of which the condition is most.
const maxFault = 64 << 10

// A cleared says how many there were.
type cleared struct {
	Cleared int `json:"cleared"`
}

func (d *Door) listFaults(*request) (reply, error) {
	list := d.hub.Faults()
	if list == nil {
		list = []fault.Active{}
	}
	return reply{body: list}, nil
}

func (d *Door) addFault(r *request) (reply, error) {
	body, err := r.read(maxFault)
	if err != nil {
		return reply{}, err
	}
	f, err := fault.Parse(body)
	if err != nil {
		return reply{}, hub.ErrArgumentInvalid.With("%v", err)
	}
	a, err := d.hub.AddFault(f)
	return reply{body: a}, err
}

func (d *Door) clearFaults(*request) (reply, error) {
	return reply{body: cleared{d.hub.ClearFaults()}}, nil
}

func (d *Door) clearFault(r *request) (reply, error) {
	id, err := strconv.Atoi(r.name)
	if err != nil || !d.hub.ClearFault(id) {
		return reply{}, hub.ErrRouteNotFound.With("there is no fault %s", words.Clip(r.name))
	}
	return reply{body: cleared{1}}, nil
}
