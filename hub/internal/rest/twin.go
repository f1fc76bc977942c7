package rest

import (
	"encoding/json"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// A twinInput is what a caller may write of a twin. Clients send whole twins
// back; what is not here is read-only and ignored. Null is the same as absent,
// which the Java SDK relies on, except for the desired properties.
type twinInput struct {
	Tags       json.RawMessage `json:"tags"`
	Properties struct {
		Desired json.RawMessage `json:"desired"`
	} `json:"properties"`
}

func (in twinInput) change(by string) hub.TwinChange {
	return hub.TwinChange{
		Tags: words.Present(in.Tags), Desired: words.Present(in.Properties.Desired), By: by,
		ClearDesired: string(in.Properties.Desired) == "null",
	}
}

// decodeTwin reads a change of a twin. One of which the hub knows nothing would
// be a mistake that looks like a success, and as a replacement empty the twin:
// that it is refused is assumed.
func (r *request) decodeTwin() (hub.TwinChange, error) {
	body, err := r.read(maxRESTBody)
	if err != nil {
		return hub.TwinChange{}, err
	}
	var in twinInput
	if err := decodeJSON(body, &in); err != nil {
		return hub.TwinChange{}, err
	}
	if onlyUnknown(body) {
		return hub.TwinChange{}, hub.ErrArgumentInvalid.With("the twin has neither tags nor properties; only those can be changed")
	}
	return in.change(r.caller.Title()), nil
}

// twinMembers are the members of a twin's document, in lower case, and those
// that SDKs send with it because they have one type for twins and identities.
var twinMembers = map[string]bool{
	"deviceid": true, "moduleid": true, "etag": true, "deviceetag": true, "version": true, "modelid": true,
	"status": true, "statusreason": true, "statusupdatetime": true, "statusupdatedtime": true,
	"connectionstate": true, "connectionstateupdatedtime": true, "lastactivitytime": true,
	"cloudtodevicemessagecount": true, "authenticationtype": true, "authentication": true, "x509thumbprint": true,
	"capabilities": true, "configurations": true, "devicescope": true, "parentscopes": true,
	"generationid": true, "managedby": true,
	"tags": true, "properties": true,
}

// onlyUnknown reports whether an object has members, and none of a twin's.
func onlyUnknown(object []byte) bool {
	any := false
	for c := jsontext.Walk(object); c.Member(); any = true {
		if twinMembers[strings.ToLower(string(jsontext.Unquote(c.Key())))] {
			return false
		}
	}
	return any
}

func (d *Door) getTwin(r *request) (reply, error) {
	v, err := d.hub.Twin(r.id)
	return reply{body: v}, err
}

func (d *Door) patchTwin(r *request) (reply, error) {
	change, err := r.decodeTwin()
	if err != nil {
		return reply{}, err
	}
	v, err := d.hub.PatchTwin(r.id, change, r.ifMatch())
	return reply{body: v}, err
}

func (d *Door) replaceTwin(r *request) (reply, error) {
	change, err := r.decodeTwin()
	if err != nil {
		return reply{}, err
	}
	v, err := d.hub.ReplaceTwin(r.id, change, r.ifMatch())
	return reply{body: v}, err
}
