package rest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/twin"
)

// classicEnvelope is the error body of the registry, of twins, queries, jobs
// and configurations. The Node SDK finds the name between ":" and ";", and
// only when a text follows.
func classicEnvelope(e *hub.Error, id words.RequestID, now time.Time) []byte {
	return words.MustMarshal(struct {
		Message          string
		ExceptionMessage string
	}{
		"ErrorCode:" + e.Name + ";" + e.Text,
		"Tracking ID:" + id.TrackingID(now),
	})
}

// nestedEnvelope is the error body of direct methods: JSON as text in JSON.
func nestedEnvelope(e *hub.Error, id words.RequestID, now time.Time) []byte {
	var info json.RawMessage
	switch {
	case e.Is(hub.ErrDeviceNotOnline):
		info = fmt.Appendf(nil, `{"timeout":%q}`, clock(e.Timeout))
	case e.Is(hub.ErrGatewayTimeout):
		info = json.RawMessage(`{}`)
	}
	text := words.MustMarshal(struct {
		Code       int             `json:"errorCode"`
		TrackingID string          `json:"trackingId"`
		Message    string          `json:"message"`
		Info       json.RawMessage `json:"info"`
		Time       string          `json:"timestampUtc"`
	}{e.Code, id.TrackingID(now), e.Text, info, twin.FormatTime(now)})
	return words.MustMarshal(struct {
		Message          string
		ExceptionMessage string
	}{Message: string(text)})
}

// clock prints a duration as hh:mm:ss.
func clock(d time.Duration) string {
	s := int(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}
