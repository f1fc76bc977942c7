"""Drives a hub with azure-iot-hub as back ends do.

Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
for devices.
"""

import os
import time

from azure.core.exceptions import AzureError
from azure.iot.device import IoTHubDeviceClient
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import (
    AuthenticationMechanism, CloudToDeviceMethod, ExportImportDevice, QuerySpecification, SymmetricKey, Twin, TwinProperties,
)
from msrest.exceptions import HttpOperationError

from checks import check, check_that, raises

service = IoTHubRegistryManager(os.environ["IOTHUB_CONNECTION_STRING"])
host = os.environ["HUB_HOST"]


def status(e):
    return e.response.status_code, e.response.headers.get("iothub-errorcode")


def registry():
    device = service.create_device_with_sas("py-1", "", "", "enabled")
    check("created", (device.device_id, device.status, device.connection_state, device.authentication.type), ("py-1", "enabled", "Disconnected", "sas"))
    check_that("keys made", len(device.authentication.symmetric_key.primary_key) == 44)
    e = raises("created twice", HttpOperationError, service.create_device_with_sas, "py-1", "", "", "enabled")
    check("  answer", status(e), (409, "DeviceAlreadyExists"))
    e = raises("get of none", HttpOperationError, service.get_device, "py-none")
    check("  answer", status(e), (404, "DeviceNotFound"))

    key = device.authentication.symmetric_key
    updated = service.update_device_with_sas("py-1", device.etag, key.primary_key, key.secondary_key, "disabled", status_reason="spring cleaning")
    check("updated", (updated.status, updated.status_reason, updated.etag != device.etag), ("disabled", "spring cleaning", True))
    e = raises("updated with a stale etag", HttpOperationError, service.update_device_with_sas, "py-1", device.etag, key.primary_key, key.secondary_key, "enabled")
    check("  answer", status(e), (412, "PreconditionFailed"))

    service.create_device_with_certificate_authority("py-ca", "enabled")
    check("ca device", service.get_device("py-ca").authentication.type, "certificateAuthority")
    service.create_device_with_x509("py-x509", "A" * 40, "B" * 64, "enabled")
    check("x509 device", service.get_device("py-x509").authentication.x509_thumbprint.primary_thumbprint, "A" * 40)
    check("list", sorted(d.device_id for d in service.get_devices()), ["py-1", "py-ca", "py-x509"])
    statistics = service.get_device_registry_statistics()
    check("statistics", (statistics.total_device_count, statistics.enabled_device_count, statistics.disabled_device_count), (3, 2, 1))
    check("service statistics", service.get_service_statistics().connected_device_count, 0)

    e = raises("delete with a stale etag", HttpOperationError, service.delete_device, "py-1", device.etag)
    check("  answer", status(e), (412, "PreconditionFailed"))
    service.delete_device("py-1")
    e = raises("deleted", HttpOperationError, service.get_device, "py-1")
    check("  answer", status(e), (404, "DeviceNotFound"))


def modules():
    service.create_device_with_sas("py-m", "", "", "enabled")
    module = service.create_module_with_sas("py-m", "mod", "somebody", "", "")
    check("module created", (module.device_id, module.module_id, module.managed_by), ("py-m", "mod", "somebody"))
    check("modules", [m.module_id for m in service.get_modules("py-m")], ["mod"])
    e = raises("module of none", HttpOperationError, service.get_module, "py-m", "none")
    check("  answer", status(e), (404, "ModuleNotFound"))
    twin = service.update_module_twin("py-m", "mod", Twin(properties=TwinProperties(desired={"x": 1})), "*")
    check("module twin", twin.properties.desired["x"], 1)
    service.delete_module("py-m", "mod")
    check("no modules", service.get_modules("py-m"), [])


def twins():
    service.create_device_with_sas("py-t", "", "", "enabled")
    twin = service.get_twin("py-t")
    check("new twin", (twin.version, twin.etag, twin.properties.desired["$version"]), (2, "AAAAAAAAAAE=", 1))
    twin = service.update_twin("py-t", Twin(tags={"site": "A", "floor": 3}, properties=TwinProperties(desired={"a": {"b": 1}})), twin.etag)
    check("patched", (twin.tags, twin.properties.desired["a"], twin.version), ({"site": "A", "floor": 3}, {"b": 1}, 3))
    e = raises("patched with a stale etag", HttpOperationError, service.update_twin, "py-t", Twin(tags={"site": "B"}), "AAAAAAAAAAE=")
    check("  answer", status(e), (412, "PreconditionFailed"))
    twin = service.update_twin("py-t", Twin(tags={"floor": None}, properties=TwinProperties(desired={"a": {"c": 2}})), "*")
    check("merged", (twin.tags, twin.properties.desired["a"]), ({"site": "A"}, {"b": 1, "c": 2}))
    twin = service.replace_twin("py-t", Twin(tags={"new": True}, properties=TwinProperties(desired={"only": 1})), twin.etag)
    check("replaced", (twin.tags, twin.properties.desired["only"], "a" in twin.properties.desired), ({"new": True}, 1, False))
    twin = service.update_twin("py-t", service.get_twin("py-t"), "*")
    check("sent back whole", twin.tags, {"new": True})
    e = raises("a key with a dot", HttpOperationError, service.update_twin, "py-t", Twin(tags={"a.b": 1}), "*")
    check("  answer", status(e), (400, "ArgumentInvalid"))


def methods():
    device = service.create_device_with_sas("py-method", "", "", "enabled")
    call = CloudToDeviceMethod(method_name="m", payload={}, response_timeout_in_seconds=5)
    e = raises("method on an offline device", HttpOperationError, service.invoke_device_method, "py-method", call)
    check("  answer", status(e), (404, "DeviceNotOnline"))
    check_that("  its body", '\\"errorCode\\":404103' in e.response.text, e.response.text)
    e = raises("method on no device", HttpOperationError, service.invoke_device_method, "py-none", call)
    check("  answer", status(e), (404, "DeviceNotFound"))
    bad = CloudToDeviceMethod(method_name="m", payload={}, response_timeout_in_seconds=4)
    e = raises("method with a bad timeout", HttpOperationError, service.invoke_device_method, "py-method", bad)
    check("  answer", status(e), (400, "ArgumentInvalid"))

    key = device.authentication.symmetric_key.primary_key
    client = IoTHubDeviceClient.create_from_connection_string(f"HostName={host};DeviceId=py-method;SharedAccessKey={key}")
    client.on_method_request_received = lambda request: None
    client.connect()
    began = time.monotonic()
    e = raises("method on a silent device", HttpOperationError, service.invoke_device_method, "py-method", call)
    check("  answer", status(e), (504, "GatewayTimeout"))
    check_that("  after the response timeout", time.monotonic() - began >= 5, time.monotonic() - began)
    client.shutdown()


def bulk():
    entry = lambda i, mode, **kw: ExportImportDevice(id=i, import_mode=mode, status="enabled", authentication=AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey(primary_key="", secondary_key="")), **kw)
    result = service.bulk_create_or_update_devices([entry(f"py-bulk-{i}", "create", tags={"i": i}) for i in range(20)])
    check("bulk create", (result.is_successful, result.errors), (True, []))
    check("bulk tags", service.get_twin("py-bulk-7").tags, {"i": 7})
    result = service.bulk_create_or_update_devices([entry(f"py-bulk-{i}", "delete") for i in range(20)])
    check("bulk delete", result.is_successful, True)


def queries():
    for i in range(5):
        service.create_device_with_sas(f"py-q-{i}", "", "", "enabled")
        service.update_twin(f"py-q-{i}", Twin(tags={"floor": i}), "*")
    found, continuation, pages = [], None, 0
    while pages == 0 or continuation:
        page = service.query_iot_hub(QuerySpecification(query="SELECT * FROM devices WHERE tags.floor >= 1"), continuation, 2)
        found += [twin.device_id for twin in page.items]
        continuation, pages = page.continuation_token, pages + 1
    check("query in pages", (sorted(found), pages), (["py-q-1", "py-q-2", "py-q-3", "py-q-4"], 2))
    page = service.query_iot_hub(QuerySpecification(query="SELECT COUNT() AS n FROM devices WHERE STARTSWITH(deviceId, 'py-q-')"))
    # The SDK makes twins of all rows, and keeps what they are not made of.
    check("count", (page.type, [row.additional_properties for row in page.items]), ("Raw", [{"n": 5}]))
    e = raises("a query that is none", HttpOperationError, service.query_iot_hub, QuerySpecification(query="SELECT FROM"))
    check("  answer", status(e), (400, "ArgumentInvalid"))


if __name__ == "__main__":
    registry()
    modules()
    twins()
    methods()
    bulk()
    queries()
    print("all checks passed", flush=True)
