//go:build unix

package hub_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// BenchmarkJob calls a direct method on 10,000 connected devices: with 64
// callers that keep nothing, and by a job that has every outcome on disk.
func BenchmarkJob(b *testing.B) {
	const devices = 10_000
	h := hubtest.New(b, hubtest.WithOptions(hub.Options{Data: b.TempDir()}))
	startFleet(b, h, devices, true)
	call := hub.MethodCall{Name: "reboot", ResponseTimeout: 30 * time.Second}
	perSecond := func(b *testing.B) { b.ReportMetric(float64(devices*b.N)/b.Elapsed().Seconds(), "devices/s") }

	b.Run("methods", func(b *testing.B) {
		for b.Loop() {
			var callers sync.WaitGroup
			for n := range 64 {
				callers.Go(func() {
					for i := n; i < devices; i += 64 {
						if _, err := h.InvokeMethod(b.Context(), fleetID(i), call); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
		}
		perSecond(b)
	})
	jobs := 0
	run := func(b *testing.B, spec hub.JobSpec) {
		for b.Loop() {
			jobs++
			spec.ID = fmt.Sprint("job-", jobs)
			createJob(b, h.Server, spec)
			if job, err := h.WaitJob(b.Context(), spec.ID); err != nil || job.Statistics.Succeeded != devices {
				b.Fatalf("job %+v %+v: %v", job, job.Statistics, err)
			}
		}
		perSecond(b)
	}
	b.Run("method job", func(b *testing.B) { run(b, hub.JobSpec{Type: hub.JobMethod, Condition: "*", Method: &call}) })
	b.Run("twin job", func(b *testing.B) {
		run(b, hub.JobSpec{Type: hub.JobTwin, Condition: "*", Twin: &hub.TwinChange{Tags: []byte(`{"ring":"2"}`)}})
	})
}
