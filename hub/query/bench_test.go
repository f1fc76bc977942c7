package query_test

import (
	"testing"

	"github.com/iotdm/iotdm/hub/query"
)

// A stored twin as a hub has it: in parts. Reported properties are 1 KB.
type stored struct {
	id                      []byte
	tags, desired, reported []byte
}

var connected = query.String("Connected")

func (s *stored) Field(f query.Field) query.Value {
	switch f {
	case query.DeviceID:
		return query.String(s.id)
	case query.ConnectionState:
		return connected
	case query.Tags:
		return query.JSON(s.tags)
	case query.DesiredProperties:
		return query.JSON(s.desired)
	case query.ReportedProperties:
		return query.JSON(s.reported)
	}
	return query.Value{}
}

func newStored() *stored {
	reported := []byte(`{"firmware":"1.17.3","connectivity":{"type":"cellular","rssi":-87}`)
	for c := byte('a'); c <= 'z'; c++ {
		reported = append(append(reported, `,"setting_`...), c)
		reported = append(reported, `":"a value of some length"`...)
	}
	reported = append(reported, `,"battery":87.5,"scopes":["a","b","c"],"text":"caf\u00e9"}`...)
	return &stored{
		id:       []byte("device-0000042"),
		tags:     []byte(`{"location":{"region":"US","plant":"Redmond43","floor":1},"environment":"prod"}`),
		desired:  []byte(`{"telemetryConfig":{"configId":"c1","sendFrequencyInSecs":300}}`),
		reported: reported,
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, c := range []struct{ name, condition string }{
		{"id", "deviceId = 'device-0000043'"},
		{"id in 10", "deviceId IN ['1','2','3','4','5','6','7','8','9','10']"},
		{"connection state", "connectionState = 'Disconnected'"},
		{"tag", "tags.location.region = 'EU'"},
		{"tag compared as number", "tags.location.floor > 3"},
		{"first of 1 KB reported", "properties.reported.firmware != '1.17.3'"},
		{"last of 1 KB reported", "properties.reported.battery < 20"},
		{"missing in 1 KB reported", "is_defined(properties.reported.nope)"},
		{"escaped text", "properties.reported.text = 'tea'"},
		{"array contains", "array_contains(properties.reported.scopes, 'z')"},
		{"tag and reported", "tags.environment = 'prod' AND properties.reported.battery < 20"},
		{"arithmetic", "tags.location.floor * 2 + 1 = 7"},
		{"two sections", "properties.desired.telemetryConfig.configId = properties.reported.connectivity.type"},
	} {
		b.Run(c.name, func(b *testing.B) {
			q, err := query.ParseCondition(c.condition)
			if err != nil {
				b.Fatal(err)
			}
			doc := newStored()
			b.ReportAllocs()
			for b.Loop() {
				if q.Match(doc) {
					b.Fatal("it matches")
				}
			}
		})
	}
}

func BenchmarkProject(b *testing.B) {
	q, err := query.Parse("SELECT deviceId, tags.environment AS env, properties.reported.battery FROM devices")
	if err != nil {
		b.Fatal(err)
	}
	doc, row := newStored(), []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		if row, err = q.Project(row[:0], doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGroup(b *testing.B) {
	q, err := query.Parse("SELECT tags.environment, COUNT(), AVG(tags.location.floor) FROM devices GROUP BY tags.environment")
	if err != nil {
		b.Fatal(err)
	}
	doc, groups := newStored(), q.NewGroups("", 100)
	b.ReportAllocs()
	for b.Loop() {
		groups.Add(doc)
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := query.Parse("SELECT * FROM devices WHERE tags.location.region = 'US' AND properties.reported.battery IN [1, 2, 3]"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMatchingAllocatesNothing(t *testing.T) {
	q, err := query.ParseCondition("tags.location.floor * 2 + 1 = 7 OR STARTSWITH(deviceId, 'x') OR properties.reported.battery IN [1, 'a', -87] " +
		"OR NOT connectionState = 'Connected' OR ARRAY_CONTAINS(properties.reported.scopes, 'z') OR IS_NULL(tags.environment)")
	if err != nil {
		t.Fatal(err)
	}
	doc := newStored()
	if n := testing.AllocsPerRun(100, func() { q.Match(doc) }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}
