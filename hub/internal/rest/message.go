package rest

import (
	"net/http"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
)

// sendMessage takes a cloud-to-device message. The service's SDKs send them
// over AMQP; Azure IoT Explorer sends them this way. What travels as headers is
// by analogy with the devices' own HTTPS API.
func (d *Door) sendMessage(r *request) (reply, error) {
	body, err := r.read(hub.MaxDeviceMessage)
	if err != nil {
		return reply{}, err
	}
	m := hub.Message{
		MessageID: r.Header.Get("IoTHub-MessageId"), CorrelationID: r.Header.Get("IoTHub-CorrelationId"), UserID: r.Header.Get("IoTHub-UserId"),
		ContentType:     firstOf(r.Header, "iothub-contenttype", "Content-Type"),
		ContentEncoding: firstOf(r.Header, "iothub-contentencoding", "Content-Encoding"),
		Ack:             hub.Ack(strings.ToLower(r.Header.Get("IoTHub-Ack"))),
		Body:            body,
	}
	if m.Expires, err = parseExpiry(r.Header.Get("IoTHub-Expiry")); err != nil {
		return reply{}, err
	}
	for name, values := range r.Header {
		if name, ok := applicationProperty(name); ok {
			m.Properties = append(m.Properties, hub.Property{Name: name, Value: values[len(values)-1]})
		}
	}
	sortProperties(m.Properties)
	return reply{}, d.hub.SendMessage(r.id.Device, m)
}

func firstOf(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// parseExpiry reads a time as SDKs write it: RFC 3339, or the same without a
// zone, which is UTC.
func parseExpiry(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, hub.ErrArgumentInvalid.With("iothub-expiry must be a time such as 2026-01-02T03:04:05Z")
}

func (d *Door) purgeMessages(r *request) (reply, error) {
	n, err := d.hub.PurgeMessages(r.id.Device)
	return reply{body: struct {
		Purged   int     `json:"totalMessagesPurged"`
		DeviceID string  `json:"deviceId"`
		ModuleID *string `json:"moduleId"`
	}{n, r.id.Device, nil}}, err
}

func (d *Door) receiveFeedback(*request) (reply, error) {
	batch, ok, err := d.hub.ReceiveFeedback()
	if !ok || err != nil {
		return reply{}, err
	}
	return reply{body: batch.Records, etag: batch.LockToken}, nil
}

func (d *Door) completeFeedback(r *request) (reply, error) {
	return reply{}, d.hub.CompleteFeedback(r.name)
}

func (d *Door) abandonFeedback(r *request) (reply, error) {
	return reply{}, d.hub.AbandonFeedback(r.name)
}
