package rest

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/hub"
)

// maxMethodBody leaves room around a payload of the largest size.
const maxMethodBody = hub.MaxMethodPayload + 16<<10

func (d *Door) invokeMethod(r *request) (reply, error) {
	var in struct {
		Name            string          `json:"methodName"`
		Payload         json.RawMessage `json:"payload"`
		ResponseTimeout *int64          `json:"responseTimeoutInSeconds"`
		ConnectTimeout  *int64          `json:"connectTimeoutInSeconds"`
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
	// Not through marshal: the payload is the device's text, byte for byte.
	body := make([]byte, 0, len(result.Payload)+40)
	body = append(body, `{"status":`...)
	body = strconv.AppendInt(body, int64(result.Status), 10)
	body = append(body, `,"payload":`...)
	body = append(body, result.Payload...)
	return reply{body: append(body, '}')}, nil
}

// responseTimeout is seconds for a response timeout: absent is the hub's own, and
// 0 as wrong as any that is too short.
func responseTimeout(n *int64) time.Duration {
	if n != nil && *n == 0 {
		return -1
	}
	return seconds(n, 0)
}

// seconds converts a JSON number of seconds. What no duration can hold is as
// wrong as any negative number.
func seconds(n *int64, absent time.Duration) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	switch {
	case n == nil:
		return absent
	case *n < 0 || *n > most:
		return -1
	default:
		return time.Duration(*n) * time.Second
	}
}
