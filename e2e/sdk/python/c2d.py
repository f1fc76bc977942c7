"""Drives a hub over AMQP with azure-iot-hub as back ends do: cloud-to-device messages, which a
device receives over MQTT.

Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything, REGISTRY_CONNECTION_STRING
of one that may only read the registry; HUB_HOST, the host name for devices; WEBSOCKETS=1 where the
hub has port 443.
"""

import os
import time

from azure.iot.device import IoTHubDeviceClient
from azure.iot.hub import IoTHubRegistryManager
from uamqp import TransportType, errors

from checks import Inbox, check, check_that, eventually, raises

owner = os.environ["IOTHUB_CONNECTION_STRING"]
host = os.environ["HUB_HOST"]
rest = IoTHubRegistryManager.from_connection_string(owner)


def create(device_id):
    key = rest.create_device_with_sas(device_id, "", "", "enabled").authentication.symmetric_key.primary_key
    return f"HostName={host};DeviceId={device_id};SharedAccessKey={key}"


def waiting(device_id):
    return rest.get_device(device_id).cloud_to_device_message_count


def messages(name, transport):
    device_id = f"python-{name}"
    service = IoTHubRegistryManager.from_connection_string(owner, transport_type=transport)
    device = IoTHubDeviceClient.create_from_connection_string(create(device_id))
    inbox = Inbox()
    device.on_message_received = inbox.put
    device.connect()
    service.send_c2d_message(device_id, "grüß", properties={
        "messageId": "m-1", "correlationId": "c-1", "contentType": "application/json", "contentEncoding": "utf-8",
        "expiryTimeUtc": int((time.time() + 3600) * 1000), "iothub-ack": "full", "color": "a b/c&d=e"})
    m = inbox.next("message")
    check(f"{name}: message", (m.data.decode(), m.message_id, m.correlation_id, m.content_type, m.content_encoding, m.ack, m.custom_properties["color"]),
          ("grüß", "m-1", "c-1", "application/json", "utf-8", "full", "a b/c&d=e"))
    check_that(f"{name}: expiry", m.expiry_time_utc, m.expiry_time_utc)
    for body in ("", "x" * 60_000):
        service.send_c2d_message(device_id, body)
        check_that(f"{name}: message of {len(body)} bytes", inbox.next("message").data == body.encode())
    for n in range(20):
        service.send_c2d_message(device_id, str(n))
    check(f"{name}: order", [inbox.next("message").data.decode() for _ in range(20)], [str(n) for n in range(20)])
    device.shutdown()

    service.send_c2d_message(device_id, "too late", properties={"expiryTimeUtc": int((time.time() + 1) * 1000)})
    eventually(f"{name}: an expired message is gone", lambda: waiting(device_id), 0)
    refusals(name, service, device_id)
    service.amqp_svc_client.disconnect_sync()


def refusals(name, service, device_id):
    raises(f"{name}: unknown device", Exception, service.send_c2d_message, "python-none", "hello")
    for _ in range(50):
        service.send_c2d_message(device_id, "hello")
    check(f"{name}: full queue", waiting(device_id), 50)
    raises(f"{name}: one more", Exception, service.send_c2d_message, device_id, "hello")
    check(f"{name}: nothing more", waiting(device_id), 50)


def strangers(name, transport):
    device_id = f"python-{name}"
    wrong = owner.split("SharedAccessKey=")[0] + "SharedAccessKey=" + "A" * 43 + "="
    service = IoTHubRegistryManager.from_connection_string(wrong, transport_type=transport)
    e = raises(f"{name}: wrong key", errors.TokenAuthFailure, service.send_c2d_message, device_id, "hello")
    check(f"{name}: wrong key: status", e.status_code, 401)
    service = IoTHubRegistryManager.from_connection_string(os.environ["REGISTRY_CONNECTION_STRING"], transport_type=transport)
    e = raises(f"{name}: missing right", errors.LinkDetach, service.send_c2d_message, device_id, "hello")
    check_that(f"{name}: missing right: condition", "unauthorized" in str(e).lower(), str(e))


if __name__ == "__main__":
    transports = {"tcp": TransportType.Amqp}
    if os.environ.get("WEBSOCKETS"):
        transports["websockets"] = TransportType.AmqpOverWebsocket
    for name, transport in transports.items():
        messages(name, transport)
        strangers(name, transport)
    print("all checks passed", flush=True)
