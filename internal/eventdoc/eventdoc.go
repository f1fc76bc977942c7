// Package eventdoc prints events as "az iot hub monitor-events" does.
package eventdoc

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hubamqp"
)

// A Doc is an event as "az iot hub monitor-events" prints it.
type Doc struct {
	Event Body `json:"event"`
}

// A Body is what a [Doc] holds.
type Body struct {
	Origin      string         `json:"origin"`
	Module      string         `json:"module"`
	Interface   string         `json:"interface"`
	Component   string         `json:"component"`
	Properties  Properties     `json:"properties,omitzero"`
	Annotations map[string]any `json:"annotations,omitzero"`
	Payload     any            `json:"payload"`
	Encoding    string         `json:"payloadEncoding,omitempty"`
}

// Properties are those that IoT Hub knows, and those of the application.
type Properties struct {
	System      map[string]string `json:"system,omitzero"`
	Application map[string]any    `json:"application,omitzero"`
}

// IsZero reports whether there is nothing to print.
func (p Properties) IsZero() bool { return p.System == nil && p.Application == nil }

// New has all of e. A payload is JSON if its content type says so, text if
// it is, and otherwise in base64, with "payloadEncoding" beside it.
func New(e hubamqp.Event, contentType string) Doc {
	var doc Doc
	d := &doc.Event
	d.Origin, d.Module = e.DeviceID, e.ModuleID
	d.Interface, _ = e.Annotations["dt-dataschema"].(string)
	d.Component, _ = e.Annotations["dt-subject"].(string)
	d.Properties.System = map[string]string{}
	for name, value := range map[string]string{
		"message_id": e.MessageID, "correlation_id": e.CorrelationID, "user_id": e.UserID, "to": e.To,
		"content_type": e.ContentType, "content_encoding": e.ContentEncoding,
	} {
		if value != "" {
			d.Properties.System[name] = value
		}
	}
	d.Properties.Application = plainValues(e.Properties)
	d.Annotations = plainValues(e.Annotations)
	d.Annotations["x-opt-partition-id"] = e.Partition
	if contentType == "" {
		contentType = e.ContentType
	}
	media, _, _ := mime.ParseMediaType(contentType)
	switch {
	case media == "application/json" && json.Valid(e.Body):
		d.Payload = json.RawMessage(e.Body)
	case utf8.Valid(e.Body):
		d.Payload = string(e.Body)
	default:
		d.Payload, d.Encoding = base64.StdEncoding.EncodeToString(e.Body), "base64"
	}
	return doc
}

// plainValues are values of AMQP as JSON has them: a time is in milliseconds.
func plainValues(m map[string]any) map[string]any {
	plain := make(map[string]any, len(m))
	for name, value := range m {
		switch v := value.(type) {
		case nil, string, bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, int, uint, float32, float64:
			plain[name] = v
		case time.Time:
			plain[name] = v.UnixMilli()
		case []byte:
			plain[name] = string(v)
		default:
			plain[name] = fmt.Sprint(v)
		}
	}
	return plain
}
