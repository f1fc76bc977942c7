package twin_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/twin"
)

// A hub applies what a device reports.
func ExampleSection_Patch() {
	created := time.Date(2024, 5, 1, 10, 0, 0, 0, time.UTC)
	s := twin.New(created)
	s, err := s.Patch(twin.Reported, []byte(`{"battery":60,"wifi":{"ssid":"plant"}}`), created.Add(time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err = s.Patch(twin.Reported, []byte(`{"battery":55,"wifi":null}`), created.Add(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(s.Device()))
	fmt.Println(string(s.Service()))

	_, err = s.Patch(twin.Reported, []byte(`{"wifi":{"ssid.name":"plant"}}`), created.Add(time.Hour))
	var refused *twin.Error
	fmt.Println(errors.As(err, &refused), refused.Path)
	// Output:
	// {"battery":55,"$version":3}
	// {"battery":55,"$metadata":{"$lastUpdated":"2024-05-01T10:01:00Z","battery":{"$lastUpdated":"2024-05-01T10:01:00Z"}},"$version":3}
	// true wifi.ssid.name
}

// A device keeps its copy of the desired properties with what the hub notifies.
func ExampleMerge() {
	desired, err := twin.Merge([]byte(`{"interval":5,"mode":"eco","$version":4}`), []byte(`{"interval":10,"mode":null,"$version":5}`))
	fmt.Println(string(desired), err)
	// Output: {"interval":10,"$version":5} <nil>
}

// A program that watches a twin shows what changed.
func ExampleDiff() {
	for _, c := range twin.Diff([]byte(`{"a":{"b":1},"$version":4}`), []byte(`{"a":{"b":2},"c":true,"$version":5}`)) {
		fmt.Printf("%s: %s -> %s\n", c.Path, c.Old, c.New)
	}
	// Output:
	// a.b: 1 -> 2
	// c:  -> true
}
