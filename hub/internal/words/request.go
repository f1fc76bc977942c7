package words

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"
)

// A RequestID names one request: in the x-ms-request-id header, in the tracking
// id of an error, and in the hub's log.
type RequestID [16]byte

// NewRequestID returns a random UUID.
func NewRequestID() (id RequestID) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// String returns the id as a GUID.
func (id RequestID) String() string {
	h := id.Compact()
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Compact returns the id as it stands in a tracking id: without dashes.
func (id RequestID) Compact() string { return hex.EncodeToString(id[:]) }

// TrackingID returns the id in the form of the service's error bodies.
func (id RequestID) TrackingID(now time.Time) string {
	return id.Compact() + "-G:0-TimeStamp:" + now.UTC().Format("01/02/2006 15:04:05")
}

// TwinError is the body of an answer to a device's twin request that is
// refused.
func (id RequestID) TwinError(code int, text string, now time.Time) []byte {
	return MustMarshal(struct {
		ErrorCode    int    `json:"errorCode"`
		TrackingID   string `json:"trackingId"`
		Message      string `json:"message"`
		TimestampUTC string `json:"timestampUtc"`
	}{code, id.TrackingID(now), text, now.UTC().Format("2006-01-02T15:04:05.9999999Z")})
}

// Seconds are those of a duration, with a part of one counted as one, as headers
// such as Retry-After want them.
func Seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// Ticks prints a time in .NET ticks: 100 ns since the year 1.
func Ticks(t time.Time) string {
	const ticksToUnix = 621_355_968_000_000_000
	return strconv.FormatInt(ticksToUnix+t.UnixNano()/100, 10)
}
