"""Configures devices with azure-iot-hub, and has azure-iot-device see it.

Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
for devices.
"""

import os

from azure.iot.device import IoTHubDeviceClient
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager
from azure.iot.hub.models import Configuration, ConfigurationContent, ConfigurationMetrics, ConfigurationQueriesTestInput, Twin
from msrest.exceptions import HttpOperationError

from checks import Inbox, check, check_that, eventually, raises

connection_string = os.environ["IOTHUB_CONNECTION_STRING"]
service = IoTHubRegistryManager(connection_string)
manager = IoTHubConfigurationManager(connection_string)
host = os.environ["HUB_HOST"]


def status(e):
    return e.response.status_code, e.response.headers.get("iothub-errorcode")


if __name__ == "__main__":
    device = service.create_device_with_sas("py-live", "", "", "enabled")
    service.create_device_with_sas("py-other", "", "", "enabled")
    key = device.authentication.symmetric_key.primary_key
    client = IoTHubDeviceClient.create_from_connection_string(f"HostName={host};DeviceId=py-live;SharedAccessKey={key}")
    patches = Inbox()
    client.on_twin_desired_properties_patch_received = patches.put
    client.connect()
    check("the SDK begins with what there is", patches.next("the twin"), {"$version": 1})

    wanted = Configuration(
        id="py-chiller", schema_version="1.0", labels={"for": "test"}, priority=10, target_condition="tags.environment='test'",
        content=ConfigurationContent(device_content={"properties.desired.chiller": {"temperature": 38}}),
        metrics=ConfigurationMetrics(queries={"waiting": "SELECT deviceId FROM devices WHERE configurations.[[py-chiller]].status='Applied' AND NOT IS_DEFINED(properties.reported.chiller)"}),
    )
    created = manager.create_configuration(wanted)
    check("created", (created.id, created.etag, created.priority, created.labels), ("py-chiller", "MQ==", 10, {"for": "test"}))
    e = raises("created twice", HttpOperationError, manager.create_configuration, wanted)
    check("  answer", status(e), (409, "ConfigurationAlreadyExists"))

    service.update_twin("py-live", Twin(tags={"environment": "test"}), "*")
    check("the device hears of it", patches.next("the patch"), {"chiller": {"temperature": 38}, "$version": 2})
    twin = service.protocol.devices.get_twin("py-live", raw=True).response.json()  # the SDK's Twin leaves them out
    check("the twin shows it", twin["configurations"], {"py-chiller": {"status": "Applied"}})
    got = manager.get_configuration("py-chiller")
    check("system metrics", got.system_metrics.results, {"targetedCount": 1, "appliedCount": 1})
    check("custom metrics", got.metrics.results, {"waiting": 1})
    client.patch_twin_reported_properties({"chiller": {"temperature": 38}})
    check("custom metrics after a report", manager.get_configuration("py-chiller").metrics.results, {"waiting": 0})
    check("list", [c.id for c in manager.get_configurations(max_count=10)], ["py-chiller"])

    got.target_condition = "tags.environment='none'"
    updated = manager.update_configuration(got, got.etag)
    check("updated", (updated.etag, updated.target_condition), ("Mg==", "tags.environment='none'"))
    check("the device hears of its end", patches.next("the patch"), {"chiller": None, "$version": 3})
    e = raises("updated with a stale etag", HttpOperationError, manager.update_configuration, got, '"MQ=="')
    check("  answer", status(e), (412, "PreconditionFailed"))

    tested = manager.test_configuration_queries(ConfigurationQueriesTestInput(target_condition="tags.a =", custom_metric_queries={"m": "SELECT deviceId FROM devices"}))
    check_that("tested", "SQL query parse failed" in tested.target_condition_error and tested.custom_metric_query_errors == {}, tested)

    # IoT Edge: a base deployment, a layer above it, and content for one device alone.
    def agent(run):
        return {"schemaVersion": "1.1", "modules": {name: {"type": "docker", "settings": {"image": "mcr/" + name}} for name in run}}

    def modules():
        return [m.module_id for m in service.get_modules("py-edge")]

    service.create_device_with_sas("py-edge", "", "", "enabled", iot_edge=True)
    base = {"$edgeAgent": {"properties.desired": agent(["filter"])}, "$edgeHub": {"properties.desired": {"routes": {}}}, "filter": {"properties.desired": {"level": 1}}}
    manager.apply_configuration_on_edge_device("py-edge", ConfigurationContent(modules_content=base))
    check("content for one edge device", modules(), ["$edgeAgent", "$edgeHub", "filter"])
    check("  its module twin", service.get_module_twin("py-edge", "filter").properties.desired["level"], 1)
    check("  who manages it", service.get_module("py-edge", "filter").managed_by, "IotEdge")
    e = raises("content for a device that is not edge", HttpOperationError, manager.apply_configuration_on_edge_device, "py-live", ConfigurationContent(modules_content=base))
    check("  answer", status(e), (400, "InvalidConfigurationContent"))
    base["$edgeAgent"] = {"properties.desired": agent(["camera"])}
    del base["filter"]
    deployment = Configuration(id="py-base", priority=5, target_condition="*", content=ConfigurationContent(modules_content=base))
    created = manager.create_configuration(deployment)
    check("deployment", created.content.modules_content, base)
    layer = {"$edgeAgent": {"properties.desired.modules.audio": {"type": "docker"}}, "audio": {"properties.desired.volume": 3}}
    manager.create_configuration(Configuration(id="py-layer", priority=6, target_condition="deviceId = 'py-edge'", content=ConfigurationContent(modules_content=layer)))
    eventually("its modules", modules, ["$edgeAgent", "$edgeHub", "audio", "camera"])
    results = lambda: manager.get_configuration("py-layer").system_metrics.results
    eventually("its metrics", results, {"targetedCount": 1, "appliedCount": 1, "reportedSuccessfulCount": 0, "reportedFailedCount": 0})
    twin = service.protocol.modules.get_twin("py-edge", "$edgeAgent", raw=True).response.json()
    check("its statuses", twin["configurations"], {"py-base": {"status": "Applied"}, "py-layer": {"status": "Applied"}})
    check("its writer in the metadata", twin["properties"]["desired"]["$metadata"]["modules"]["audio"]["type"]["$lastUpdatedBy"], "py-layer")
    check("the twin of a layer's module", service.get_module_twin("py-edge", "audio").properties.desired["volume"], 3)

    manager.delete_configuration("py-chiller")
    e = raises("deleted", HttpOperationError, manager.get_configuration, "py-chiller")
    check("  answer", status(e), (404, "ConfigurationNotFound"))
    client.shutdown()
    print("all checks passed", flush=True)
