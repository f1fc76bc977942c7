//go:build unix

package node_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
)

// BenchmarkJob calls a direct method on 10,000 connected devices: with 64
// callers that keep nothing, and by a job that has every outcome on disk.
func BenchmarkJob(b *testing.B) {
	const devices = 10_000
	h := hubtest.New(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())}))
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
	count := 0
	run := func(b *testing.B, spec jobs.Spec) {
		for b.Loop() {
			count++
			spec.ID = fmt.Sprint("job-", count)
			wiretest.CreateJob(b, h.Node, spec)
			if job, err := h.Jobs.Wait(b.Context(), spec.ID); err != nil || job.Statistics.Succeeded != devices {
				b.Fatalf("job %+v %+v: %v", job, job.Statistics, err)
			}
		}
		perSecond(b)
	}
	b.Run("method job", func(b *testing.B) { run(b, jobs.Spec{Type: jobs.Method, Condition: "*", Method: &call}) })
	b.Run("twin job", func(b *testing.B) {
		run(b, jobs.Spec{Type: jobs.Twin, Condition: "*", Twin: &hub.TwinChange{Tags: []byte(`{"ring":"2"}`)}})
	})
}
