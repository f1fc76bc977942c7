package query_test

import (
	"fmt"

	"github.com/iotdm/iotdm/hub/query"
)

func Example() {
	twins := []query.Text{
		query.Text(`{"deviceId":"d1","tags":{"building":43},"properties":{"reported":{"rebootTime":"2026-01-01T08:00:00Z"}}}`),
		query.Text(`{"deviceId":"d2","tags":{"building":9},"properties":{"reported":{"rebootTime":"2026-01-02T08:00:00Z"}}}`),
		query.Text(`{"deviceId":"d3","properties":{"reported":{}}}`),
	}
	q, err := query.Parse("SELECT deviceId, properties.reported.rebootTime AS rebooted FROM devices WHERE tags.building > 1")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, twin := range twins {
		if !q.Match(twin) {
			continue
		}
		row, err := q.Project(nil, twin)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", row)
	}
	// Output:
	// {"deviceId":"d1","rebooted":"2026-01-01T08:00:00Z"}
	// {"deviceId":"d2","rebooted":"2026-01-02T08:00:00Z"}
}

func ExampleParse_mistake() {
	_, err := query.Parse("SELECT * FROM devices WHERE deviceId == 'd1'")
	fmt.Println(err)
	// Output:
	// SQL query parse failed due to following errors: Line 1:37 unexpected '==', equality is '='
}

func ExampleQuery_Ranges() {
	q, err := query.ParseCondition("STARTSWITH(deviceId, 'truck-') AND tags.region = 'EU'")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(q.Ranges(query.DeviceID))
	// Output:
	// [{truck- truck.}]
}
