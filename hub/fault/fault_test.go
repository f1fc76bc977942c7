package fault_test

import (
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/fault"
	"github.com/iotdm/iotdm/hub/query"
)

var begin = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)

func newFaults(t *testing.T, list ...fault.Fault) (*fault.Faults, *time.Time) {
	t.Helper()
	now := begin
	f := fault.New(func() time.Time { return now })
	for _, add := range list {
		if _, err := f.Add(add); err != nil {
			t.Fatal(err)
		}
	}
	return f, &now
}

func TestACountIsExactAcrossGoroutines(t *testing.T) {
	f, _ := newFaults(t, fault.Fault{On: fault.Telemetry, Drop: true, Count: 100}, fault.Fault{On: fault.Telemetry, Status: 429, Count: 50})
	var drops, refusals atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 10 {
				switch s, ok := f.Strike(fault.Telemetry, &fault.Target{Device: "d1"}); {
				case ok && s.Drop:
					drops.Add(1)
				case ok:
					refusals.Add(1)
				}
			}
		})
	}
	all.Wait()
	if drops.Load() != 100 || refusals.Load() != 50 {
		t.Errorf("struck %d and %d times, want 100 and 50", drops.Load(), refusals.Load())
	}
	for _, a := range f.List() {
		if left, bounded := a.Left(); !a.Ended || left != 0 || !bounded || a.Struck != a.Count {
			t.Errorf("%+v has not ended with its count", a)
		}
	}
}

func TestWhomAFaultStrikes(t *testing.T) {
	north := func() (query.Doc, bool) { return query.Text(`{"deviceId":"d1","tags":{"site":"north"}}`), true }
	none := func() (query.Doc, bool) { return nil, false }
	for name, tt := range map[string]struct {
		fault  fault.Fault
		on     fault.Point
		target fault.Target
		want   bool
	}{
		"everyone":                         {fault.Fault{On: fault.Twin, Drop: true}, fault.Twin, fault.Target{Device: "d1"}, true},
		"another point":                    {fault.Fault{On: fault.Twin, Drop: true}, fault.Method, fault.Target{Device: "d1"}, false},
		"the device":                       {fault.Fault{On: fault.Twin, Drop: true, Device: "d1"}, fault.Twin, fault.Target{Device: "d1"}, true},
		"another device":                   {fault.Fault{On: fault.Twin, Drop: true, Device: "d1"}, fault.Twin, fault.Target{Device: "d10"}, false},
		"a module of the device":           {fault.Fault{On: fault.Twin, Drop: true, Device: "d1"}, fault.Twin, fault.Target{Device: "d1", Module: "m"}, true},
		"the module":                       {fault.Fault{On: fault.Twin, Drop: true, Device: "d1/m"}, fault.Twin, fault.Target{Device: "d1", Module: "m"}, true},
		"the device of the module":         {fault.Fault{On: fault.Twin, Drop: true, Device: "d1/m"}, fault.Twin, fault.Target{Device: "d1"}, false},
		"a condition that holds":           {fault.Fault{On: fault.Twin, Drop: true, Where: "tags.site = 'north'"}, fault.Twin, fault.Target{Device: "d1", Twin: north}, true},
		"a condition that does not":        {fault.Fault{On: fault.Twin, Drop: true, Where: "tags.site = 'south'"}, fault.Twin, fault.Target{Device: "d1", Twin: north}, false},
		"a condition on no twin":           {fault.Fault{On: fault.Twin, Drop: true, Where: "*"}, fault.Twin, fault.Target{Device: "d1", Twin: none}, false},
		"the path":                         {fault.Fault{On: fault.REST, Drop: true, Path: "/twins/*/methods"}, fault.REST, fault.Target{Path: []string{"Twins", "d1", "methods"}}, true},
		"below the path":                   {fault.Fault{On: fault.REST, Drop: true, Path: "twins"}, fault.REST, fault.Target{Path: []string{"twins", "d1"}}, true},
		"above the path":                   {fault.Fault{On: fault.REST, Drop: true, Path: "twins/*"}, fault.REST, fault.Target{Path: []string{"twins"}}, false},
		"a message on its way":             {fault.Fault{On: fault.Message, Drop: true}, fault.Message, fault.Target{Device: "d1"}, true},
		"a status is for who sends one":    {fault.Fault{On: fault.Message, Status: 403}, fault.Message, fault.Target{Device: "d1"}, false},
		"and not for who is to receive it": {fault.Fault{On: fault.Message, Status: 403}, fault.Message, fault.Target{Device: "d1", Sending: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := newFaults(t, tt.fault)
			if _, got := f.Strike(tt.on, &tt.target); got != tt.want {
				t.Errorf("strikes: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAFaultEndsByTheClock(t *testing.T) {
	f, now := newFaults(t, fault.Fault{On: fault.REST, Status: 503, For: time.Minute})
	strikes := func() bool { _, ok := f.Strike(fault.REST, new(fault.Target)); return ok }
	*now = begin.Add(time.Minute - 1)
	if !strikes() {
		t.Error("it ends too early")
	}
	*now = begin.Add(time.Minute)
	if strikes() {
		t.Error("it does not end")
	}
	if f.ClearAll() != 1 || len(f.List()) != 0 {
		t.Error("it is not cleared")
	}
}

func TestNoFaults(t *testing.T) {
	var none *fault.Faults
	if _, ok := none.Strike(fault.REST, nil); ok || none.List() != nil || none.ClearAll() != 0 {
		t.Error("nil has faults")
	}
}

func TestWhatIsNoFault(t *testing.T) {
	for text, want := range map[string]string{
		`{"on":"rest"}`: "is one of", `{"on":"disk","drop":true}`: "a fault is on one of", `{"on":"twin","refuse":true}`: "cannot be refuse",
		`{"on":"rest","drop":true,"status":500}`: "is one of", `{"on":"rest","latencySeconds":-1}`: "latency", `{"on":"rest","status":404,"retryAfterSeconds":1}`: "429 and 503",
		`{"on":"rest","drop":true,"count":-1}`: "negative", `{"on":"twin","drop":true,"path":"x"}`: "only a fault on rest", `{"on":"tls","expiredCertificate":true,"deviceId":"d1"}`: "tls",
		`{"on":"twin","drop":true,"where":"tags."}`: "parse", `[]`: "JSON object", `{"on":"rest","drop":true}{}`: "behind it", `{"on":"rest","dorp":true}`: "dorp",
		`{"on":"rest","latencySeconds":"1s"}`: "number of seconds", `{"on":"rest","latencySeconds":1e300}`: "too many",
		`{"on":"twin","drop":true,"deviceId":"d1/m1"}`: "named by moduleId", `{"on":"twin","drop":true,"moduleId":"m1"}`: "needs deviceId",
	} {
		f, err := fault.Parse([]byte(text))
		if err == nil {
			err = f.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want something with %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"on":"telemetry","deviceId":"d1","latencySeconds":1.5,"count":3,"forSeconds":60,"id":7,"struck":2,"left":1}`))
	f.Add([]byte(`{"on":"twin","deviceId":"d1","moduleId":"m1","drop":true}`))
	f.Add([]byte(`{"on":"rest","path":"twins/*","status":429,"retryAfterSeconds":0.25,"where":"tags.a = 1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		one, err := fault.Parse(text)
		if err != nil || one.Validate() != nil {
			return
		}
		list, _ := newFaults(t, one)
		doc, err := json.Marshal(list.List()[0])
		if err != nil {
			t.Fatal(err)
		}
		again, err := fault.Parse(doc)
		if diff := cmp.Diff(one, again); err != nil || diff != "" {
			t.Errorf("Parse(%s): %v (-first +again):\n%s", doc, err, diff)
		}
	})
}

func FuzzOperation(f *testing.F) {
	f.Add("KillTcp", "boom", "2", "5")
	f.Add("InvokeThrottling", "", "NaN", "1e99")
	f.Fuzz(func(t *testing.T, kind, reason, delay, duration string) {
		o, ok := fault.OperationOf(func(name string) string {
			return map[string]string{
				fault.OperationTypeProperty: kind, fault.OperationReasonProperty: reason,
				fault.OperationDelayProperty: delay, fault.OperationDurationProperty: duration,
			}[name]
		})
		if ok && (o.Delay < 0 || o.Delay > time.Hour || o.Duration <= 0 || o.Duration > time.Hour) {
			t.Errorf("delay %v, duration %v", o.Delay, o.Duration)
		}
		if lasting, lasts := o.Fault("d1"); lasts && lasting.Validate() != nil {
			t.Errorf("%+v is no fault", lasting)
		}
	})
}
