"""Drives a hub with azure-iot-device as devices do, and watches it with azure-iot-hub.

Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
for devices; X509_CERT, X509_KEY and X509_THUMBPRINT of a self-signed certificate; WEBSOCKETS=1
where the hub has port 443.
"""

import base64
import hashlib
import hmac
import os
import threading
import time
import urllib.parse

import requests
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse, X509, exceptions
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from checks import Inbox, WAIT, check, check_that, raises

service = IoTHubRegistryManager(os.environ["IOTHUB_CONNECTION_STRING"])
host = os.environ["HUB_HOST"]


def create(device_id):
    device = service.create_device_with_sas(device_id, "", "", "enabled")
    return device, f"HostName={host};DeviceId={device_id};SharedAccessKey={device.authentication.symmetric_key.primary_key}"


def patch_desired(device_id, desired):
    return service.update_twin(device_id, Twin(properties=TwinProperties(desired=desired)), "*")


def reported(device_id):
    properties = service.get_twin(device_id).properties.reported
    return {k: v for k, v in properties.items() if not k.startswith("$")}


def await_twin(device_id, what, holds):
    deadline = time.monotonic() + WAIT
    while not holds(service.get_twin(device_id)):
        if time.monotonic() > deadline:
            check_that(f"{device_id} {what}", False)
        time.sleep(0.05)


def invoke(device_id, name, **kwargs):
    return service.invoke_device_method(device_id, CloudToDeviceMethod(method_name=name, **kwargs))


def send(device_id, body, headers):
    """Sends a cloud-to-device message over REST, since the SDK does so over AMQP only."""
    owner = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].split(";"))
    to_sign = urllib.parse.quote(owner["HostName"], safe="") + "\n" + str(int(time.time()) + 600)
    signature = base64.b64encode(hmac.new(base64.b64decode(owner["SharedAccessKey"]), to_sign.encode(), hashlib.sha256).digest())
    sr, se = to_sign.split("\n")
    token = f"SharedAccessSignature sr={sr}&sig={urllib.parse.quote(signature, safe='')}&se={se}&skn={owner['SharedAccessKeyName']}"
    url = f"https://{owner['HostName']}/devices/{device_id}/messages/deviceBound?api-version=2021-04-12"
    return requests.post(url, data=body, headers={"Authorization": token, **headers}, timeout=WAIT).status_code


def whole_life(transport, **options):
    device_id = f"python-{transport}"
    _, connection_string = create(device_id)
    client = IoTHubDeviceClient.create_from_connection_string(connection_string, **options)
    client.connect()
    check(f"{transport}: connection state", service.get_twin(device_id).connection_state, "Connected")

    twin = client.get_twin()
    check(f"{transport}: new twin", twin, {"desired": {"$version": 1}, "reported": {"$version": 1}})

    client.patch_twin_reported_properties({"a": 1, "gone": True, "nested": {"text": "grüß", "list": [1, 2]}})
    client.patch_twin_reported_properties({"gone": None})
    check(f"{transport}: reported with a deletion", reported(device_id), {"a": 1, "nested": {"text": "grüß", "list": [1, 2]}})
    raises(f"{transport}: a reported patch that breaks the rules", exceptions.ClientError,
           client.patch_twin_reported_properties, {"a.b": 1})

    patches = Inbox()
    client.on_twin_desired_properties_patch_received = patches.put
    client.get_twin()
    patch_desired(device_id, {"interval": 5, "mode": None})
    check(f"{transport}: desired patch", patches.next("desired patch"), {"interval": 5, "mode": None, "$version": 2})

    def answer(request):
        status = {"object": 200, "fail": 418}.get(request.name, 200)
        client.send_method_response(MethodResponse.create_from_method_request(request, status, {"got": request.payload}))

    client.on_method_request_received = answer
    for name, payload in (("object", {"delay": 5}), ("text", "grüß"), ("number", 7), ("array", [1, None])):
        result = invoke(device_id, name, payload=payload)
        check(f"{transport}: method with {name}", (result.status, result.payload), (200, {"got": payload}))
    check(f"{transport}: method status is the device's", invoke(device_id, "fail", payload={}).status, 418)

    client.send_message("without properties")
    message = Message(b'{"temperature": 21}', content_type="application/json", content_encoding="utf-8")
    message.custom_properties["level"] = "a b/c&d=e"
    client.send_message(message)
    print(f"ok {transport}: telemetry acknowledged", flush=True)

    messages = Inbox()
    client.on_message_received = messages.put
    check(f"{transport}: cloud-to-device message sent", send(device_id, "grüß".encode(), {"IoTHub-MessageId": "m-1", "iothub-app-color": "a b/c&d=e"}), 204)
    message = messages.next("cloud-to-device message")
    check(f"{transport}: cloud-to-device message", (message.data.decode(), message.message_id, message.custom_properties["color"]), ("grüß", "m-1", "a b/c&d=e"))

    await_twin(device_id, "has completed the message", lambda twin: twin.cloud_to_device_message_count == 0)

    client.disconnect()
    await_twin(device_id, "is disconnected", lambda twin: twin.connection_state == "Disconnected")
    check(f"{transport}: cloud-to-device message while away", send(device_id, b"later", {}), 204)
    check(f"{transport}: it waits", service.get_twin(device_id).cloud_to_device_message_count, 1)
    patch_desired(device_id, {"interval": 9})
    client.connect()
    check(f"{transport}: it comes after the reconnect", messages.next("message while away").data, b"later")
    away = patches.next("change while away")
    check(f"{transport}: change while away", (away["interval"], away["$version"]), (9, 3))
    client.patch_twin_reported_properties({"after": "reconnect"})
    check(f"{transport}: subscriptions outlive the connection", reported(device_id)["after"], "reconnect")
    check(f"{transport}: methods outlive the connection", invoke(device_id, "object", payload={}).status, 200)
    client.shutdown()


def refusals():
    device, connection_string = create("python-refused")
    wrong = connection_string.split("SharedAccessKey=")[0] + "SharedAccessKey=" + "A" * 43 + "="
    client = IoTHubDeviceClient.create_from_connection_string(wrong)
    raises("wrong key", exceptions.CredentialError, client.connect)
    client.shutdown()
    client = IoTHubDeviceClient.create_from_connection_string(connection_string.replace("python-refused", "python-unknown"))
    raises("unknown device", exceptions.CredentialError, client.connect)
    client.shutdown()

    client = IoTHubDeviceClient.create_from_connection_string(connection_string, connection_retry=False)
    lost = Inbox()
    client.on_connection_state_change = lambda: client.connected or lost.put("lost")
    client.connect()
    key = device.authentication.symmetric_key
    service.update_device_with_sas("python-refused", device.etag, key.primary_key, key.secondary_key, "disabled")
    check("a disabled device is dropped", lost.next("drop of a disabled device"), "lost")
    raises("a disabled device is refused", exceptions.CredentialError, client.connect)
    client.shutdown()


def takeover():
    _, connection_string = create("python-takeover")
    first = IoTHubDeviceClient.create_from_connection_string(connection_string, connection_retry=False)
    lost = Inbox()
    first.on_connection_state_change = lambda: first.connected or lost.put("lost")
    first.connect()
    second = IoTHubDeviceClient.create_from_connection_string(connection_string)
    second.connect()
    check("the second connection ends the first", lost.next("takeover"), "lost")
    check("the second connection stays", service.get_twin("python-takeover").connection_state, "Connected")
    second.shutdown()
    first.shutdown()


def renewal():
    """The SDK renews 120 s before a token ends, so one of 122 s is renewed after 2 s."""
    _, connection_string = create("python-renewal")
    client = IoTHubDeviceClient.create_from_connection_string(connection_string, sastoken_ttl=122)
    states = Inbox()
    client.on_connection_state_change = lambda: states.put(client.connected)
    client.on_method_request_received = lambda r: client.send_method_response(MethodResponse.create_from_method_request(r, 200, None))
    client.connect()
    check("renewal: connected, dropped and back", [states.next("renewal") for _ in range(3)], [True, False, True])
    check("renewal: methods without subscribing again", invoke("python-renewal", "m", payload={}).status, 200)
    client.shutdown()


def modules():
    create("python-edge")
    module = service.create_module_with_sas("python-edge", "filter", "", "", "")
    key = module.authentication.symmetric_key.primary_key
    client = IoTHubModuleClient.create_from_connection_string(f"HostName={host};DeviceId=python-edge;ModuleId=filter;SharedAccessKey={key}")
    client.connect()
    client.patch_twin_reported_properties({"module": True})
    check("module: reported", service.get_module_twin("python-edge", "filter").properties.reported["module"], True)
    check("module: the device's twin is its own", reported("python-edge"), {})
    patches = Inbox()
    client.on_twin_desired_properties_patch_received = patches.put
    client.get_twin()
    service.update_module_twin("python-edge", "filter", Twin(properties=TwinProperties(desired={"limit": 3})), "*")
    check("module: desired patch", patches.next("module desired"), {"limit": 3, "$version": 2})
    client.on_method_request_received = lambda r: client.send_method_response(MethodResponse.create_from_method_request(r, 200, r.payload))
    result = service.invoke_device_module_method("python-edge", "filter", CloudToDeviceMethod(method_name="echo", payload={"x": 1}))
    check("module: method", (result.status, result.payload), (200, {"x": 1}))
    client.send_message_to_output("counted", "alerts")
    print("ok module: output acknowledged", flush=True)
    client.shutdown()


def certificates():
    thumbprint = os.environ["X509_THUMBPRINT"]
    service.create_device_with_x509("python-x509", thumbprint, thumbprint, "enabled")
    x509 = X509(os.environ["X509_CERT"], os.environ["X509_KEY"])
    client = IoTHubDeviceClient.create_from_x509_certificate(x509=x509, hostname=host, device_id="python-x509")
    client.connect()
    client.patch_twin_reported_properties({"x509": True})
    check("x509: reported", reported("python-x509"), {"x509": True})
    client.shutdown()
    create("python-sas")
    client = IoTHubDeviceClient.create_from_x509_certificate(x509=x509, hostname=host, device_id="python-sas")
    raises("x509: a certificate for a device with keys", exceptions.CredentialError, client.connect)
    client.shutdown()


if __name__ == "__main__":
    threading.excepthook = lambda args: print("thread:", args.exc_value, flush=True)
    whole_life("tcp")
    if os.environ.get("WEBSOCKETS"):
        whole_life("websockets", websockets=True)
    refusals()
    takeover()
    renewal()
    modules()
    certificates()
    print("all checks passed", flush=True)
