package amqp

import (
	"testing"
	"time"
)

// SetPatience sets how long a reader without credit keeps its place, until the
// test ends.
func SetPatience(t testing.TB, d time.Duration) {
	before := patience
	patience = d
	t.Cleanup(func() { patience = before })
}
