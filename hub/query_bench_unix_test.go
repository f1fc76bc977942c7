//go:build unix

package hub

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// fleetTwin is the twin of a device that reports 1 KB of properties, which with
// their metadata are 3 KB in the store.
func fleetTwin(id ID, i int, now time.Time) (Twin, error) {
	t := newTwin(id, now)
	t.Tags = fmt.Appendf(nil, `{"n":%d,"even":%v,"location":{"region":"EU","plant":"plant-%d"},"environment":"prod"}`, i, i%2 == 0, i%40)
	patch := fmt.Appendf(nil, `{"firmware":"1.17.%d","battery":%d,"rebootTime":"2026-03-%02dT08:%02d:00Z","network":{"type":"cellular","rssi":-%d,"ip":"10.%d.%d.7"}`,
		i%5, i%101, 1+i%28, i%60, 50+i%60, i/256%256, i%256)
	for c := 'a'; c <= 'x'; c++ {
		patch = fmt.Appendf(patch, `,"setting_%c":"value %x"`, c, uint32(i)*2654435761*uint32(c))
	}
	patch = append(patch, '}')
	var err error
	t.Reported, err = t.Reported.Patch(twin.Reported, patch, now)
	return t, err
}

// newFleet returns a server with n devices "d000000", "d000001"... of which 100
// are connected.
func newFleet(b *testing.B, n int) *Server {
	b.Helper()
	s, end := open(b, b.TempDir(), nil)
	b.Cleanup(end)
	const batch = 1000
	for first := 0; first < n; first += batch {
		err := s.store.Update("", func(tx *store.Tx) error {
			for i := first; i < min(first+batch, n); i++ {
				id := ID{Device: fmt.Sprintf("d%06d", i)}
				spec := IdentitySpec{Status: StatusEnabled}
				if i%4 == 0 {
					spec.Status = StatusDisabled
				}
				identity := Identity{ID: id, Version: 1, GenerationID: "638500000000000000"}
				identity.apply(spec)
				tx.Set(id.identityKey(), identity.encode())
				t, err := fleetTwin(id, i, time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC).AddDate(map[bool]int{true: 1}[i%(n/100) == 0], 0, 0))
				if err != nil {
					return err
				}
				t.store(tx, id)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 100 {
		id := ID{Device: fmt.Sprintf("d%06d", i*n/100)}
		s.links.byID[id] = &quietLink{id: id}
	}
	return s
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// queryClasses are queries that take different ways to their rows. Counting
// needs all rows that match; a page ends a scan early.
var queryClasses = []struct{ name, text string }{
	{"by id", "SELECT * FROM devices WHERE deviceId = 'd000042'"},
	{"by 10 ids", "SELECT * FROM devices WHERE deviceId IN ['d000001','d000102','d000203','d000304','d000405','d000506','d000607','d000708','d000809','d000910']"},
	{"by prefix", "SELECT * FROM devices WHERE STARTSWITH(deviceId, 'd00004')"},
	{"connected, 100 of them", "SELECT COUNT() FROM devices WHERE connectionState = 'Connected' AND tags.even = true"},
	{"updated lately, 100 of them", "SELECT COUNT() FROM devices WHERE properties.reported.$metadata.$lastUpdated > '2027-01-02'"},
	{"first page of all", "SELECT * FROM devices"},
	{"first page of a projection", "SELECT deviceId, tags.n, properties.reported.battery FROM devices"},
	{"page of 100 in a thousandth", "SELECT deviceId FROM devices WHERE tags.n % 1000 = 7"},
	{"count all", "SELECT COUNT() FROM devices"},
	{"count by status", "SELECT COUNT() FROM devices WHERE status = 'disabled'"},
	{"count by tag", "SELECT COUNT() FROM devices WHERE tags.even = true"},
	{"count by reported", "SELECT COUNT() FROM devices WHERE properties.reported.battery < 20"},
	{"count by status and reported", "SELECT COUNT() FROM devices WHERE status = 'disabled' AND properties.reported.battery < 20"},
	{"count by connection state", "SELECT COUNT() FROM devices WHERE connectionState != 'Connected'"},
	{"count by last activity", "SELECT COUNT() FROM devices WHERE lastActivityTime < '2020'"},
	{"group by reported", "SELECT properties.reported.battery, COUNT(), AVG(tags.n) FROM devices GROUP BY properties.reported.battery"},
	{"group by device", "SELECT deviceId, COUNT() FROM devices GROUP BY deviceId"},
	{"nothing found", "SELECT * FROM devices WHERE properties.reported.nope = 'x'"},
}

// BenchmarkQuery also says what processor time a query takes, on all cores.
// IOTDM_BENCHMARK_TWINS=1000000 is for when there is time for it.
func BenchmarkQuery(b *testing.B) {
	sizes := []int{1000, 100_000}
	if n, err := strconv.Atoi(os.Getenv("IOTDM_BENCHMARK_TWINS")); err == nil {
		sizes = []int{n}
	}
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newFleet(b, n)
			for _, c := range queryClasses {
				b.Run(c.name, func(b *testing.B) {
					b.ReportAllocs()
					before := processorTime()
					for b.Loop() {
						if _, err := s.Query(b.Context(), c.text, 0, ""); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
				})
			}
		})
	}
}

// BenchmarkIn asks twins for a number that is one of many, as one list and, for
// comparison, as a chain of OR, which cannot be hashed.
func BenchmarkIn(b *testing.B) {
	s := newFleet(b, 20_000)
	values := func(n int, format, between string) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(format, 100_000+i))
		}
		return strings.Join(list, between)
	}
	for _, c := range []struct{ name, condition string }{
		{"1 value", "tags.n = 1"},
		{"450 values by OR", values(450, "tags.n=%d", " OR ")},
		{"450 values", "tags.n IN [" + values(450, "%d", ",") + "]"},
		{"1100 values", "tags.n IN [" + values(1100, "%d", ",") + "]"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Query(b.Context(), "SELECT COUNT() FROM devices WHERE "+c.condition, 0, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
