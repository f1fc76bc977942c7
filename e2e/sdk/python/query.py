"""Queries twins with azure-iot-hub, while azure-iot-device keeps one of them connected.

Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
for devices.
"""

import os

from azure.iot.device import IoTHubDeviceClient
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties
from msrest.exceptions import HttpOperationError

from checks import check, check_that, raises

service = IoTHubRegistryManager(os.environ["IOTHUB_CONNECTION_STRING"])
host = os.environ["HUB_HOST"]


def pages(text, size=None):
    """Returns the pages of a query as the SDK's samples get them."""
    found, token = [], None
    while True:
        result = service.query_iot_hub(QuerySpecification(query=text), token, size)
        check("item type", result.type, "Twin")
        found.append(result.items)
        token = result.continuation_token
        if not token:
            return found


def rows(text):
    """Returns the rows of a projection, for which the SDK has no class."""
    response = service.protocol.query.get_twins(QuerySpecification(query=text), raw=True).response
    check("item type", response.headers["x-ms-item-type"], "Raw")
    return response.json()


def status(e):
    return e.response.status_code, e.response.headers.get("iothub-errorcode")


if __name__ == "__main__":
    for i in range(25):
        device_id = f"py-{i:02}"
        device = service.create_device_with_sas(device_id, "", "", "enabled")
        twin = Twin(tags={"building": 43, "floor": i % 5}, properties=TwinProperties(desired={"rate": i}))
        service.update_twin(device_id, twin, "*")
    key = device.authentication.symmetric_key.primary_key
    client = IoTHubDeviceClient.create_from_connection_string(f"HostName={host};DeviceId=py-24;SharedAccessKey={key}")
    client.connect()
    client.patch_twin_reported_properties({"rebootTime": "2026-03-14T09:26:53Z", "owner": "Zoë"})

    found = pages("SELECT * FROM devices WHERE tags.building = 43", 10)
    check("pages", [len(page) for page in found], [10, 10, 5])
    check("all devices, once, in order", [twin.device_id for page in found for twin in page], [f"py-{i:02}" for i in range(25)])
    check("twin of a page", (found[2][4].properties.desired["rate"], found[2][4].tags["floor"], found[2][4].connection_state), (24, 4, "Connected"))
    check("a result of exactly one page", [len(page) for page in pages("SELECT * FROM devices", 25)], [25])
    check("TOP", [len(page) for page in pages("SELECT TOP 13 * FROM devices", 10)], [10, 3])
    check("nothing", pages("SELECT * FROM devices WHERE tags.building = 44"), [[]])
    check("modules", pages("SELECT * FROM devices.modules"), [[]])

    check("projection", rows("SELECT deviceId, properties.reported.rebootTime AS rebooted FROM devices WHERE is_defined(properties.reported.rebootTime)"),
          [{"deviceId": "py-24", "rebooted": "2026-03-14T09:26:53Z"}])
    check("text that is not ASCII", rows("SELECT deviceId FROM devices WHERE properties.reported.owner = 'Zoë' AND connectionState = 'Connected'"),
          [{"deviceId": "py-24"}])
    check("count", rows("SELECT COUNT() AS n FROM devices WHERE connectionState = 'Disconnected'"), [{"n": 24}])
    check("groups", rows("SELECT tags.floor AS floor, COUNT() AS n, MAX(properties.desired.rate) AS rate FROM devices GROUP BY tags.floor"),
          [{"floor": i, "n": 5, "rate": 20 + i} for i in range(5)])

    client.shutdown()
    check("connection state is live", rows("SELECT COUNT() AS n FROM devices WHERE connectionState = 'Connected'"), [{"n": 0}])
    e = raises("a mistake", HttpOperationError, pages, "SELECT * FROM devices WHERE deviceId LIKE 'py%'")
    check("status of a mistake", status(e), (400, "ArgumentInvalid"))
    check_that("place of a mistake", "Line 1:37 unexpected 'LIKE'" in e.response.text, e.response.text)
    e = raises("no query", HttpOperationError, pages, "")
    check("status of no query", status(e), (400, "ArgumentNull"))
    token = service.query_iot_hub(QuerySpecification(query="SELECT * FROM devices"), None, 1).continuation_token
    e = raises("a token of another query", HttpOperationError, service.query_iot_hub, QuerySpecification(query="SELECT * FROM devices.modules"), token)
    check("status of a foreign token", status(e), (400, "ArgumentInvalid"))
    print("all checks passed", flush=True)
