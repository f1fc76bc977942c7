import os
import threading
import time

import pytest
import requests
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties
from msrest.exceptions import HttpOperationError

from backend import BackEnd
from thermostat import Thermostat

HOST = os.environ.get("HUB_HOST", "localhost")
OWNER_KEY = "aW90ZG0tdGVzdC1vd25lci1rZXktbm90LXNlY3JldCE="  # both are in seed.yaml
DEVICE_KEY = "aW90ZG0tdGVzdC1kZXZpY2Uta2V5LW5vLXNlY3JldCE="
HUB = f"HostName={HOST};SharedAccessKeyName=iothubowner;SharedAccessKey={OWNER_KEY}"
EVENTS = f"Endpoint=sb://{HOST}/;SharedAccessKeyName=iothubowner;SharedAccessKey={OWNER_KEY};EntityPath=iothub-ehub-iotdm"
DEVICE = f"HostName={HOST};DeviceId=thermostat-1;SharedAccessKey={DEVICE_KEY}"


@pytest.fixture(autouse=True)
def reset():
    """Each test begins with a hub as the seed describes it."""
    control("POST", "reset")


@pytest.fixture
def thermostat():
    thermostat = Thermostat(DEVICE)
    yield thermostat
    thermostat.close()


@pytest.fixture
def service():
    return IoTHubRegistryManager.from_connection_string(HUB)


@pytest.fixture
def back_end():
    back_end = BackEnd(HUB, EVENTS, limit=30)
    thread = threading.Thread(target=back_end.run)
    thread.start()
    yield back_end
    back_end.close()
    thread.join()


def control(method, path, body=None):
    """Tells the hub under test what to do; see docs/TEST-CONTROLS.md."""
    response = requests.request(method, f"https://{HOST}/iotdm/control/{path}", auth=("iothubowner", OWNER_KEY), json=body)
    response.raise_for_status()
    return response


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def reported_target(service):
    return service.get_twin("thermostat-1").properties.reported.get("target")


def test_a_direct_method_sets_the_target(thermostat, service):
    result = service.invoke_device_method("thermostat-1", CloudToDeviceMethod(method_name="setTarget", payload={"target": 21}))
    assert result.status == 200
    assert reported_target(service) == 21


def test_an_unknown_method_is_refused(thermostat, service):
    result = service.invoke_device_method("thermostat-1", CloudToDeviceMethod(method_name="explode", payload=None))
    assert result.status == 404


def test_a_desired_property_sets_the_target(thermostat, service):
    service.update_twin("thermostat-1", Twin(properties=TwinProperties(desired={"target": 22})))
    wait_until(lambda: reported_target(service) == 22)


def test_the_back_end_warns_a_thermostat_that_is_too_hot(thermostat, back_end):
    thermostat.measure(25)
    thermostat.measure(31.5)
    assert thermostat.warnings.get(timeout=10) == "31.5 is too hot"
    assert thermostat.warnings.empty()


def test_a_warning_that_nobody_takes_expires(service):
    service.send_c2d_message("thermostat-1", "31.5 is too hot", {"expiryTimeUtc": int((time.time() + 600) * 1000)})
    assert service.get_device("thermostat-1").cloud_to_device_message_count == 1
    control("POST", "clock", {"advanceSeconds": 1200})
    wait_until(lambda: service.get_device("thermostat-1").cloud_to_device_message_count == 0)


def test_the_service_learns_that_a_thermostat_does_not_answer(thermostat, service):
    control("POST", "faults", {"on": "method", "deviceId": "thermostat-1", "status": 404, "count": 1})
    call = CloudToDeviceMethod(method_name="setTarget", payload={"target": 23})
    with pytest.raises(HttpOperationError) as refused:
        service.invoke_device_method("thermostat-1", call)
    assert refused.value.response.status_code == 404
    assert service.invoke_device_method("thermostat-1", call).status == 200
