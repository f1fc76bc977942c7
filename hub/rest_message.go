package hub

import (
	"net/http"
	"strings"
	"time"
)

// restSendMessage takes a cloud-to-device message. The service's SDKs send them
// over AMQP; Azure IoT Explorer sends them this way. What travels as headers is
// by analogy with the devices' own HTTPS API.
func (s *Server) restSendMessage(r *restRequest) (reply, error) {
	body, err := r.read(maxDeviceMessage)
	if err != nil {
		return reply{}, err
	}
	m := Message{
		MessageID: r.Header.Get("IoTHub-MessageId"), CorrelationID: r.Header.Get("IoTHub-CorrelationId"), UserID: r.Header.Get("IoTHub-UserId"),
		ContentType:     firstOf(r.Header, "iothub-contenttype", "Content-Type"),
		ContentEncoding: firstOf(r.Header, "iothub-contentencoding", "Content-Encoding"),
		Ack:             Ack(strings.ToLower(r.Header.Get("IoTHub-Ack"))),
		Body:            body,
	}
	if m.Expires, err = parseExpiry(r.Header.Get("IoTHub-Expiry")); err != nil {
		return reply{}, err
	}
	for name, values := range r.Header {
		if name, ok := applicationProperty(name); ok {
			m.Properties = append(m.Properties, Property{Name: name, Value: values[len(values)-1]})
		}
	}
	sortProperties(m.Properties)
	return reply{}, s.SendMessage(r.id.Device, m)
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
	return time.Time{}, ErrArgumentInvalid.with("iothub-expiry must be a time such as 2026-01-02T03:04:05Z")
}

func (s *Server) restPurgeMessages(r *restRequest) (reply, error) {
	n, err := s.PurgeMessages(r.id.Device)
	return reply{body: struct {
		Purged   int     `json:"totalMessagesPurged"`
		DeviceID string  `json:"deviceId"`
		ModuleID *string `json:"moduleId"`
	}{n, r.id.Device, nil}}, err
}

func (s *Server) restReceiveFeedback(*restRequest) (reply, error) {
	batch, ok, err := s.ReceiveFeedback()
	if !ok || err != nil {
		return reply{}, err
	}
	return reply{body: batch.Records, etag: batch.LockToken}, nil
}

func (s *Server) restCompleteFeedback(r *restRequest) (reply, error) {
	return reply{}, s.CompleteFeedback(r.name)
}

func (s *Server) restAbandonFeedback(r *restRequest) (reply, error) {
	return reply{}, s.AbandonFeedback(r.name)
}
