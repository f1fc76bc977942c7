"""Schedules jobs with azure-iot-hub, and has azure-iot-device answer them.

Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
for devices.
"""

import os
import time
from datetime import datetime, timedelta, timezone

from azure.iot.device import IoTHubDeviceClient, MethodResponse
from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, JobRequest, QuerySpecification, Twin, TwinProperties
from msrest.exceptions import HttpOperationError

from checks import WAIT, check, check_that, raises

connection_string = os.environ["IOTHUB_CONNECTION_STRING"]
service = IoTHubRegistryManager(connection_string)
jobs = IoTHubJobManager(connection_string)
host = os.environ["HUB_HOST"]


def status(e):
    return e.response.status_code, e.response.headers.get("iothub-errorcode")


def ended(job_id):
    deadline = time.monotonic() + WAIT
    while True:
        job = jobs.get_scheduled_job(job_id)
        if job.status in ("completed", "failed", "cancelled"):
            return job
        check_that(f"{job_id} ends", time.monotonic() < deadline, job.status)
        time.sleep(0.05)


def counts(job):
    s = job.device_job_statistics
    return s.device_count, s.succeeded_count, s.failed_count, s.running_count, s.pending_count


def outcomes(job_id):
    query = QuerySpecification(query=f"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{job_id}'")
    response = service.protocol.query.get_twins(query, raw=True).response
    check("item type", response.headers["x-ms-item-type"], "DeviceJob")
    return {row["deviceId"]: row for row in response.json()}


if __name__ == "__main__":
    device = service.create_device_with_sas("py-live", "", "", "enabled")
    service.create_device_with_sas("py-offline", "", "", "enabled")
    key = device.authentication.symmetric_key.primary_key
    client = IoTHubDeviceClient.create_from_connection_string(f"HostName={host};DeviceId=py-live;SharedAccessKey={key}")
    client.on_method_request_received = lambda request: client.send_method_response(
        MethodResponse.create_from_method_request(request, 200, {"got": request.payload})
    )
    client.connect()

    call = CloudToDeviceMethod(method_name="reboot", payload={"delay": 5}, response_timeout_in_seconds=30, connect_timeout_in_seconds=0)
    request = JobRequest(job_id="py-method", type="scheduleDeviceMethod", cloud_to_device_method=call, query_condition="*",
                         start_time=datetime.now(timezone.utc).isoformat(), max_execution_time_in_seconds=60)
    created = jobs.create_scheduled_job("py-method", request)
    check("created", (created.job_id, created.type, created.status), ("py-method", "scheduleDeviceMethod", "queued"))
    e = raises("created twice", HttpOperationError, jobs.create_scheduled_job, "py-method", request)
    check("  answer", status(e), (409, "JobAlreadyExists"))
    job = ended("py-method")
    check("method job", (job.status, counts(job)), ("completed", (2, 1, 1, 0, 0)))
    check("its method", (job.cloud_to_device_method.method_name, job.cloud_to_device_method.payload), ("reboot", {"delay": 5}))
    check_that("its times", job.created_time <= job.start_time + timedelta(seconds=5) and job.end_time >= job.created_time, job)
    rows = outcomes("py-method")
    check("the device that answers", (rows["py-live"]["status"], rows["py-live"]["outcome"]), ("completed", {"deviceMethodResponse": {"status": 200, "payload": {"got": {"delay": 5}}}}))
    check("the device that is offline", (rows["py-offline"]["status"], rows["py-offline"]["error"]["code"]), ("failed", "DeviceNotOnline"))

    patch = Twin(etag="*", tags={"ring": "2"}, properties=TwinProperties(desired={"rate": 10}))
    jobs.create_scheduled_job("py-twin", JobRequest(job_id="py-twin", type="scheduleUpdateTwin", update_twin=patch, query_condition="deviceId IN ['py-offline']"))
    job = ended("py-twin")
    check("twin job", (job.status, counts(job), job.query_condition, job.update_twin.etag), ("completed", (1, 1, 0, 0, 0), "deviceId IN ['py-offline']", "*"))
    twin = service.get_twin("py-offline")
    check("its twin", (twin.tags, twin.properties.desired["rate"]), ({"ring": "2"}, 10))
    check("the other twin", service.get_twin("py-live").tags, None)
    bad = JobRequest(job_id="py-bad", type="scheduleUpdateTwin", update_twin=Twin(tags={"a": 1}), query_condition="*")
    e = raises("a twin job without an etag", HttpOperationError, jobs.create_scheduled_job, "py-bad", bad)
    check("  answer", status(e), (400, "ArgumentInvalid"))

    jobs.create_scheduled_job("py-select", JobRequest(job_id="py-select", type="scheduleUpdateTwin", update_twin=patch, query_condition="SELECT * FROM devices"))
    job = ended("py-select")
    check_that("a whole query as condition", job.status == "failed" and job.failure_reason.startswith("SQL query parse failed"), job.failure_reason)

    later = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    jobs.create_scheduled_job("py-later", JobRequest(job_id="py-later", type="scheduleUpdateTwin", update_twin=patch, query_condition="*", start_time=later))
    check("a job for later", jobs.get_scheduled_job("py-later").status, "scheduled")
    check("cancelled", jobs.cancel_scheduled_job("py-later").status, "cancelled")
    e = raises("get of none", HttpOperationError, jobs.get_scheduled_job, "py-none")
    check("  answer", status(e), (404, "JobNotFound"))
    # query_scheduled_jobs expects an object, but the service, and so the hub, answers an array.
    client.shutdown()
    print("all checks passed", flush=True)
