package rest

import (
	"encoding/json"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// A twinInput is what a caller may write of a twin. Clients send whole twins
// back; what is not here is read-only and ignored, and null is the same as
// absent, which the Java SDK relies on.
type twinInput struct {
	Tags       json.RawMessage `json:"tags"`
	Properties struct {
		Desired json.RawMessage `json:"desired"`
	} `json:"properties"`
}

func (in twinInput) change(by string) hub.TwinChange {
	return hub.TwinChange{Tags: words.Present(in.Tags), Desired: words.Present(in.Properties.Desired), By: by}
}

func (d *Door) getTwin(r *request) (reply, error) {
	v, err := d.hub.Twin(r.id)
	return reply{body: v}, err
}

func (d *Door) patchTwin(r *request) (reply, error) {
	var in twinInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	v, err := d.hub.PatchTwin(r.id, in.change(r.caller.Title()), r.ifMatch())
	return reply{body: v}, err
}

func (d *Door) replaceTwin(r *request) (reply, error) {
	var in twinInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	v, err := d.hub.ReplaceTwin(r.id, in.change(r.caller.Title()), r.ifMatch())
	return reply{body: v}, err
}
