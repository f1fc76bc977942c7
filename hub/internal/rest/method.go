package rest

import (
	"encoding/json"
	"strconv"

	"github.com/iotdm/iotdm/hub"
)

// maxMethodBody leaves room around a payload of the largest size.
const maxMethodBody = hub.MaxMethodPayload + 16<<10

func (d *Door) invokeMethod(r *request) (reply, error) {
	var in struct {
		Name            string          `json:"methodName"`
		Payload         json.RawMessage `json:"payload"` // "null" if it is null, nothing if it is absent
		ResponseTimeout *number         `json:"responseTimeoutInSeconds"`
		ConnectTimeout  *number         `json:"connectTimeoutInSeconds"`
	}
	if err := r.decodeUpTo(maxMethodBody, &in); err != nil {
		return reply{}, err
	}
	result, err := d.hub.InvokeMethod(r.Context(), r.id, hub.MethodCall{
		Name:            in.Name,
		Payload:         in.Payload,
		ResponseTimeout: responseTimeout(in.ResponseTimeout),
		ConnectTimeout:  seconds(in.ConnectTimeout, 0),
	})
	if err != nil {
		return reply{}, err
	}
	// Not through marshal: the payload is what the device sent, byte for byte,
	// even if it is not JSON and breaks this answer, as it does on the service.
	body := make([]byte, 0, len(result.Payload)+40)
	body = append(body, `{"status":`...)
	body = strconv.AppendInt(body, int64(result.Status), 10)
	body = append(body, `,"payload":`...)
	body = append(body, result.Payload...)
	return reply{body: append(body, '}')}, nil
}
