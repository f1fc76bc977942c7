package hub

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// A requestID names one request: in the x-ms-request-id header, in the
// tracking id of an error, and in the hub's log.
type requestID [16]byte

func newRequestID() (id requestID) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40 // a random UUID
	id[8] = id[8]&0x3f | 0x80
	return id
}

// String returns the id as a GUID.
func (id requestID) String() string {
	h := id.compact()
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// compact returns the id as it stands in a tracking id: without dashes.
func (id requestID) compact() string { return hex.EncodeToString(id[:]) }

// trackingID returns the id in the form of the service's error bodies.
func (id requestID) trackingID(now time.Time) string {
	return id.compact() + "-G:0-TimeStamp:" + now.UTC().Format("01/02/2006 15:04:05")
}

// refusalOf returns the service's error for any error of the hub.
func refusalOf(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrFull):
		return ErrServiceUnavailable.with("the hub's disk is full")
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled):
		return ErrServiceUnavailable.with("the hub is closing")
	default:
		return ErrServer
	}
}

// classicEnvelope is the error body of the registry, of twins, queries, jobs
// and configurations. The Node SDK finds the name between ":" and ";", and
// only when a text follows.
func classicEnvelope(e *Error, id requestID, now time.Time) []byte {
	return mustMarshal(struct {
		Message          string
		ExceptionMessage string
	}{
		"ErrorCode:" + e.Name + ";" + e.Text,
		"Tracking ID:" + id.trackingID(now),
	})
}

// nestedEnvelope is the error body of direct methods: JSON as text in JSON.
func nestedEnvelope(e *Error, id requestID, now time.Time) []byte {
	var info json.RawMessage
	switch {
	case e.Is(ErrDeviceNotOnline):
		info = fmt.Appendf(nil, `{"timeout":%q}`, clock(e.Timeout))
	case e.Is(ErrGatewayTimeout):
		info = json.RawMessage(`{}`)
	}
	text := mustMarshal(struct {
		Code       int             `json:"errorCode"`
		TrackingID string          `json:"trackingId"`
		Message    string          `json:"message"`
		Info       json.RawMessage `json:"info"`
		Time       string          `json:"timestampUtc"`
	}{e.Code, id.trackingID(now), e.Text, info, twin.FormatTime(now)})
	return mustMarshal(struct {
		Message          string
		ExceptionMessage string
	}{Message: string(text)})
}

// clock prints a duration as hh:mm:ss.
func clock(d time.Duration) string {
	s := int(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// mustMarshal prints what cannot fail to print: structs of strings and numbers.
func mustMarshal(v any) []byte {
	b, err := marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
