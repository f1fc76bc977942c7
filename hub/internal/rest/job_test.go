package rest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
)

const twinJobBody = `{"jobId":"job-1","type":"scheduleUpdateTwin","updateTwin":{"deviceId":null,"etag":"*","tags":{"ring":"2"},"properties":{"desired":{"rate":10,"old":null},"reported":{}},"version":null},` +
	`"queryCondition":"*","startTime":"2026-03-14T09:26:53.000Z","maxExecutionTimeInSeconds":120}`

func TestJobsOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/dev1", Body: `{}`}).Want(t, 200, "")
	doc := func(end, status, statistics string) string {
		return `{"jobId":"job-1","createdTime":"2026-03-14T09:26:53.5897932Z","startTime":"2026-03-14T09:26:53Z",` + end + `"maxExecutionTimeInSeconds":120,"type":"scheduleUpdateTwin",` +
			`"updateTwin":{"etag":"*","tags":{"ring":"2"},"properties":{"desired":{"rate":10,"old":null}}},"queryCondition":"[*]","status":"` + status + `"` + statistics + `}`
	}
	same := func(a wiretest.Answer, body string) {
		t.Helper()
		if diff := cmp.Diff(strings.Replace(body, "[*]", "*", 1), a.Want(t, 200, "").Body); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
	}
	same(h.Do(wiretest.Call{Method: "PUT", Path: "/jobs/v2/job-1", Body: twinJobBody}), doc("", "queued", ""))
	wiretest.WaitJob(t, h.Node, "job-1")
	done := doc(`"endTime":"2026-03-14T09:26:53.5897932Z",`, "completed", `,"deviceJobStatistics":{"deviceCount":1,"failedCount":0,"succeededCount":1,"runningCount":0,"pendingCount":0}`)
	same(h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/job-1"}), done)
	h.Do(wiretest.Call{Method: "PUT", Path: "/jobs/v2/job-1", Body: twinJobBody}).WantError(t, 409, "JobAlreadyExists", "A job with ID 'job-1' already exists.")
	h.Do(wiretest.Call{Method: "POST", Path: "/jobs/v2/job-1/cancel"}).WantError(t, 405, "OperationNotAllowedInCurrentState", "Job cannot be cancelled in 'Completed' status.")
	h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/job-2"}).WantError(t, 404, "JobNotFound", "job-2")
	h.Do(wiretest.Call{Method: "POST", Path: "/jobs/v2/job-2/cancel", Body: "{}"}).WantError(t, 404, "JobNotFound", "job-2")

	later := strings.NewReplacer("job-1", "job-2", "2026-03-14", "2026-03-15").Replace(twinJobBody)
	if got := h.Do(wiretest.Call{Method: "PUT", Path: "/jobs/v2/job-2", Body: later}).Text(t, "status"); got != "queued" {
		t.Errorf("a new job for later is %s, want queued", got)
	}
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/job-2"}).Text(t, "status"); got != "scheduled" {
		t.Errorf("a job for later is %s, want scheduled", got)
	}
	if got := h.Do(wiretest.Call{Method: "POST", Path: "/jobs/v2/job-2/cancel", Body: `""`}).Want(t, 200, "").Text(t, "status"); got != "cancelled" {
		t.Errorf("a cancelled job is %s", got)
	}
	a := h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/query?jobType=ScheduleUpdateTwin&jobStatus=Completed&api-version=2021-04-12"})
	same(a, "["+done+"]")
	if got := a.Header.Get("x-ms-item-type"); got != "JobResponse" {
		t.Errorf("x-ms-item-type is %q", got)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/query?jobStatus=running&api-version=2021-04-12"}).Want(t, 200, "[]")
	h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/query", Token: h.Token("registryReadWrite")}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/query", Token: h.Token("registryRead")}).WantError(t, 401, "IotHubUnauthorizedAccess", "Unauthorized")
}

func TestJobListHasPages(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for n := range 5 {
		spec := wiretest.TwinJob(fmt.Sprint("job-", n), "*", `{"a":1}`)
		spec.Start = wiretest.Now.Add(time.Hour)
		wiretest.CreateJob(t, h.Node, spec)
	}
	for name, next := range map[string]func(token string) wiretest.Call{
		"in headers": func(token string) wiretest.Call {
			return wiretest.Call{Method: "GET", Path: "/jobs/v2/query", Header: map[string]string{"x-ms-max-item-count": "2", "x-ms-continuation": token}}
		},
		"in the query string": func(token string) wiretest.Call {
			return wiretest.Call{Method: "GET", Path: "/jobs/v2/query?pageSize=2&continuationToken=" + token + "&api-version=2021-04-12"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var pages []int
			for token := ""; len(pages) == 0 || token != ""; {
				a := h.Do(next(token)).Want(t, 200, "")
				pages = append(pages, strings.Count(a.Body, `"jobId"`))
				token = a.Header.Get("x-ms-continuation")
			}
			if diff := cmp.Diff([]int{2, 2, 1}, pages); diff != "" {
				t.Errorf("jobs per page (-want +got):\n%s", diff)
			}
		})
	}
	for query, text := range map[string]string{
		"pageSize=0": "the page size must be a number from 1", "pageSize=x": "the page size must be a number from 1",
		"continuationToken=*": "the continuation token is not one of this hub",
		"jobType=import":      "jobType 'import' is unknown", "jobStatus=tired": "jobStatus 'tired' is unknown",
	} {
		h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/query?" + query + "&api-version=2021-04-12"}).WantError(t, 400, "ArgumentInvalid", text)
	}
}

func TestATwinJobThatClearsOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	body := `{"type":"scheduleUpdateTwin","updateTwin":{"etag":"*","tags":null,"properties":{"desired":null}},"queryCondition":"*","startTime":"2027-01-01T00:00:00Z"}`
	for _, a := range []wiretest.Answer{
		h.Do(wiretest.Call{Method: "PUT", Path: "/jobs/v2/job-1", Body: body}).Want(t, 200, ""),
		h.Do(wiretest.Call{Method: "GET", Path: "/jobs/v2/job-1"}).Want(t, 200, ""),
	} {
		if want := `"updateTwin":{"etag":"*","properties":{"desired":null}}`; !strings.Contains(a.Body, want) {
			t.Errorf("the job is %s, want it with %s", a.Body, want)
		}
	}
}

func TestMethodJobOverREST(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{Clock: clock.New()})
	wiretest.Respond(t, h.Hub, "dev1", 200, `{"ok":true}`, nil)
	var token string // h.token's is of another time
	for _, p := range h.Policies() {
		if p.Name == "service" {
			token = wiretest.Sign(t, "localhost", "service", p.PrimaryKey, time.Now().Add(time.Hour))
		}
	}
	body := `{"type":"scheduleDeviceMethod","cloudToDeviceMethod":{"methodName":"reboot","payload":"now","timeoutInSeconds":0,"responseTimeoutInSeconds":"7","connectTimeoutInSeconds":"30"},"queryCondition":"*","startTime":"","maxExecutionTimeInSeconds":"300"}`
	a := h.Do(wiretest.Call{Method: "PUT", Path: "/jobs/v2/job-1", Body: body, Token: token}).Want(t, 200, "")
	for path, want := range map[string]string{
		"cloudToDeviceMethod.methodName": "reboot", "cloudToDeviceMethod.payload": "now", "cloudToDeviceMethod.responseTimeoutInSeconds": "7",
		"cloudToDeviceMethod.connectTimeoutInSeconds": "30", "maxExecutionTimeInSeconds": "300", "status": "queued",
	} {
		if got := fmt.Sprint(a.Field(t, path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	wiretest.WaitJob(t, h.Node, "job-1")
	wiretest.WantOutcomes(t, h.Node, "job-1", map[string]string{"dev1": `completed 200 {"ok":true}`})
}

// What is empty is no mistake: the Node SDK's tests send it to the service. What
// SDKs send besides is ignored.
func TestTwinJobsAsSDKsSendThem(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	for n, updateTwin := range []string{
		`{"etag":"*","tags":{},"properties":{"desired":{},"reported":{}}}`,
		`{"etag":"*","properties":{"desired":{}}}`,
		`{"etag":"*","tags":{"a":1},"properties":null}`,
		`{"deviceId":null,"moduleId":null,"etag":"*","version":null,"tags":null,"properties":{"desired":{"a":1,"$version":7},"reported":{}},"capabilities":null,"other":1}`,
	} {
		id := fmt.Sprint("job-", n)
		h.Do(wiretest.Call{Method: "PUT", Path: "/jobs/v2/" + id, Body: `{"type":"scheduleUpdateTwin","updateTwin":` + updateTwin + `,"queryCondition":"*"}`}).Want(t, 200, "")
		if job := wiretest.WaitJob(t, h.Node, id); job.Status != jobs.Completed {
			t.Errorf("%s: the job is %s %s", updateTwin, job.Status, job.FailureReason)
		}
	}
}
