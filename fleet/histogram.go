package fleet

import (
	"math/bits"
	"time"
)

// subBuckets is into how many buckets a power of two is split: a quantile is at most 1/subBuckets above
// what it should be.
const subBuckets = 16

// A histogram counts durations in buckets that grow with what they hold. Its zero value is empty.
type histogram struct {
	buckets [64 * subBuckets]uint64
	n       uint64
	max     time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucket(d)]++
	h.n++
	h.max = max(h.max, d)
}

// bucket is the one for d: exact below subBuckets microseconds, then by the first bits of the number.
func bucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - bits.Len64(subBuckets)
	return shift*subBuckets + int(us>>shift)
}

// upper is the largest duration in a bucket.
func upper(bucket int) time.Duration {
	if bucket < subBuckets {
		return time.Duration(bucket) * time.Microsecond
	}
	shift := bucket/subBuckets - 1
	return time.Duration(((bucket%subBuckets+subBuckets+1)<<shift)-1) * time.Microsecond
}

// quantile returns the duration that the share q of them does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := uint64(q*float64(h.n)), uint64(0)
	for i, n := range h.buckets {
		if seen += n; seen > rank {
			return min(upper(i), h.max)
		}
	}
	return h.max
}

// Latency is how long something took, in milliseconds. The quantiles are up to 7 % too high.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (h *histogram) latency() Latency {
	ms := func(q float64) float64 { return milliseconds(h.quantile(q)) }
	return Latency{ms(0.5), ms(0.9), ms(0.99), milliseconds(h.max)}
}

// milliseconds leaves out the digits that mean nothing.
func milliseconds(d time.Duration) float64 { return float64(d.Round(10*time.Microsecond)) / 1e6 }
