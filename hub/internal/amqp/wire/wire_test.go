package wire_test

import (
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

var (
	equateNaNs       = cmpopts.EquateNaNs()
	ignoreUnexported = cmpopts.IgnoreUnexported(amqp.Message{})
	sortMaps         = cmpopts.SortSlices(func(a, b wire.Entry) bool { return fmt.Sprint(a.Key) < fmt.Sprint(b.Key) })
)

var uuid = wire.UUID{0: 0x01, 15: 0xff}

// unhex reads hexadecimal digits, among which there may be spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// allocatedBy returns how many bytes f allocates. Tests that use it don't run
// beside others.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
