"""Provisions devices with azure-iot-device and has them work with the hub that they were assigned to.

Enrollments are made over REST, since Microsoft's package for it is of 2018. With the argument
"assigning" the service takes its time. Environment: what "iotdm hub env" exports;
IOTHUB_CONNECTION_STRING of a policy that may do everything; CERTIFICATES, a folder with those of
the devices below and of those who signed them.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse

import requests
from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient, X509, exceptions
from azure.iot.hub import IoTHubRegistryManager

from checks import WAIT, Inbox, check, check_that, raises

host = os.environ["PROVISIONING_HOST"]
scope = os.environ["PROVISIONING_IDSCOPE"]
certificates = os.environ["CERTIFICATES"]
registry = IoTHubRegistryManager(os.environ["IOTHUB_CONNECTION_STRING"])
owner = dict(part.split("=", 1) for part in os.environ["PROVISIONING_CONNECTION_STRING"].split(";"))
transports = {"mqtt": {}, "mqttws": {"websockets": True}}


def sign(key, text):
    return base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()


def call(method, path, body=None, status=200):
    """Asks the service and returns the body of its answer."""
    resource, expiry = urllib.parse.quote(owner["HostName"], safe=""), int(time.time()) + 600
    signature = urllib.parse.quote(sign(owner["SharedAccessKey"], f"{resource}\n{expiry}"), safe="")
    token = f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={owner['SharedAccessKeyName']}"
    url = f"https://{owner['HostName']}{path}?api-version=2021-10-01"
    headers = {"Authorization": token} | ({"If-Match": body["etag"]} if body and "etag" in body else {})
    response = requests.request(method, url, json=body, headers=headers, timeout=WAIT)
    if response.status_code != status:
        check(f"{method} {path}: {response.text}", response.status_code, status)
    return response.json() if response.content else None


def enroll(registration_id, attestation, **members):
    return call("PUT", f"/enrollments/{registration_id}", {"registrationId": registration_id, "attestation": attestation, **members})


def enroll_group(group_id, attestation, **members):
    return call("PUT", f"/enrollmentGroups/{group_id}", {"enrollmentGroupId": group_id, "attestation": attestation, **members})


def keys(enrollment):
    return enrollment["attestation"]["symmetricKey"]


def twin_with(number):
    return {"tags": {"line": number}, "properties": {"desired": {"interval": number}}}


def pem(name):
    with open(os.path.join(certificates, name + ".pem")) as file:
        return file.read()


def certificate_of(name):
    return X509(os.path.join(certificates, name + ".pem"), os.path.join(certificates, name + ".key"))


def register(registration_id, credential, payload=None, id_scope=scope, **options):
    if isinstance(credential, X509):
        client = ProvisioningDeviceClient.create_from_x509_certificate(
            provisioning_host=host, registration_id=registration_id, id_scope=id_scope, x509=credential, **options)
    else:
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            provisioning_host=host, registration_id=registration_id, id_scope=id_scope, symmetric_key=credential, **options)
    client.provisioning_payload = payload
    return client.register()


def works(what, result, credential, desired, **options):
    """Checks that the device can use its hub, and finds its twin there."""
    hub, device_id = result.registration_state.assigned_hub, result.registration_state.device_id
    if isinstance(credential, X509):
        client = IoTHubDeviceClient.create_from_x509_certificate(x509=credential, hostname=hub, device_id=device_id, **options)
    else:
        client = IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=credential, hostname=hub, device_id=device_id, **options)
    client.connect()
    twin = client.get_twin()["desired"]
    del twin["$version"]
    check(f"{what}: twin", twin, desired)
    client.send_message("hello")
    print(f"ok {what}: telemetry acknowledged", flush=True)
    client.shutdown()


def assigned(what, result, device_id, substatus="initialAssignment"):
    state = result.registration_state
    check(f"{what}: assigned", (result.status, state.assigned_hub, state.device_id, state.sub_status), ("assigned", host, device_id, substatus))


def failed(what, why, registration_id, key, **options):
    """Checks that the service was there and said no, which the SDK tells by the cause alone."""
    check(what, str(raises(what, exceptions.ClientError, register, registration_id, key, **options).__cause__), why)


def individual(transport, options):
    registration_id = f"{transport}-one"
    key = keys(enroll(registration_id, {"type": "symmetricKey"}, deviceId=f"{transport}-device", initialTwin=twin_with(1)))
    for name in ("primaryKey", "secondaryKey"):
        result = register(registration_id, key[name], **options)
        if name == "primaryKey":
            assigned(f"{transport}: primary key", result, f"{transport}-device")
        else:
            check(f"{transport}: secondary key", (result.status, result.registration_state.device_id), ("assigned", f"{transport}-device"))
        works(f"{transport}: {name}", result, key[name], {"interval": 1}, **options)
    device = registry.get_device(f"{transport}-device")
    check(f"{transport}: identity", (device.authentication.type, device.authentication.symmetric_key.primary_key), ("sas", key["primaryKey"]))
    check(f"{transport}: tags", registry.get_twin(f"{transport}-device").tags, {"line": 1})
    state = call("GET", f"/registrations/{registration_id}")
    check(f"{transport}: registration", (state["status"], state["assignedHub"], state["deviceId"]), ("assigned", host, f"{transport}-device"))


def group(transport, options):
    group_key = keys(enroll_group(f"{transport}-fleet", {"type": "symmetricKey"}, initialTwin=twin_with(2)))
    for number, name in enumerate(("primaryKey", "secondaryKey")):
        registration_id = f"{transport}-Member-{number}"
        key = sign(group_key[name], registration_id)
        result = register(registration_id, key, **options)
        assigned(f"{transport}: key of a group, {name}", result, registration_id)
        works(f"{transport}: key of a group, {name}", result, key, {"interval": 2}, **options)
    members = call("POST", f"/registrations/{transport}-fleet/query", {})
    check(f"{transport}: registrations of the group", sorted(m["registrationId"] for m in members), [f"{transport}-Member-0", f"{transport}-Member-1"])


def certified(transport, options):
    enroll("self-signed", {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": pem("self-signed")}}}},
           deviceId=f"{transport}-self-signed", initialTwin=twin_with(3))
    result = register("self-signed", certificate_of("self-signed"), **options)
    check(f"{transport}: certificate", (result.status, result.registration_state.device_id), ("assigned", f"{transport}-self-signed"))
    works(f"{transport}: certificate", result, certificate_of("self-signed"), {"interval": 3}, **options)
    check(f"{transport}: certificate: identity", registry.get_device(f"{transport}-self-signed").authentication.type, "selfSigned")

    enroll_group("line", {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": pem("line")}}}}, initialTwin=twin_with(4))
    enroll_group("factory", {"type": "x509", "x509": {"caReferences": {"primary": "factory"}}}, initialTwin=twin_with(5))
    for name, interval in (("of-line", 4), ("of-factory", 5)):
        result = register(name, certificate_of(name), **options)
        check(f"{transport}: certificate {name}", (result.status, result.registration_state.device_id), ("assigned", name))
        works(f"{transport}: certificate {name}", result, certificate_of(name), {"interval": interval}, **options)
    for path in ("/enrollments/self-signed", "/enrollmentGroups/line", "/enrollmentGroups/factory"):
        call("DELETE", path, status=204)


def refusals(transport, options):
    def refused(what, registration_id, credential, **more):
        raises(f"{transport}: {what}", exceptions.CredentialError, register, registration_id, credential, **more, **options)

    enrollment = enroll("refused", {"type": "symmetricKey"})
    key = keys(enrollment)["primaryKey"]
    refused("wrong key", "refused", sign(key, "wrong"))
    refused("unknown registration id", "nobody", key)
    refused("unknown id scope", "refused", key, id_scope="0neFFFFFFFF")
    refused("certificate instead of a key", "refused", certificate_of("stranger"))
    refused("certificate that nobody knows", "stranger", certificate_of("stranger"))
    refused("common name that is not the registration id", "other", certificate_of("of-line"))
    check_that(f"{transport}: nobody of them has an identity", all(
        d.device_id not in ("refused", "nobody", "stranger", "other") for d in registry.get_devices()))
    call("PUT", "/enrollments/refused", {**enrollment, "provisioningStatus": "disabled"})
    failed(f"{transport}: disabled enrollment", "Query Status Operation encountered an invalid registration status disabled with a status code of 200",
           "refused", key, **options)
    call("DELETE", "/enrollments/refused", status=204)
    refused("deleted enrollment", "refused", key)


def reprovisioning(transport, options):
    registration_id = f"{transport}-again"
    policy = {"updateHubAssignment": True, "migrateDeviceData": True}
    enrollment = enroll(registration_id, {"type": "symmetricKey"}, initialTwin=twin_with(6), reprovisionPolicy=policy)
    key = keys(enrollment)["primaryKey"]
    assigned(f"{transport}: the first time", register(registration_id, key, **options), registration_id)
    registry.update_twin(registration_id, {"properties": {"desired": {"more": True}}}, "*")
    works(f"{transport}: again", register(registration_id, key, **options), key, {"interval": 6, "more": True}, **options)

    policy["migrateDeviceData"] = False
    call("PUT", f"/enrollments/{registration_id}", {**enrollment, "reprovisionPolicy": policy})
    result = register(registration_id, key, **options)
    assigned(f"{transport}: reset", result, registration_id, "deviceDataReset")
    works(f"{transport}: reset", result, key, {"interval": 6}, **options)

    registry.delete_device(registration_id)
    works(f"{transport}: after the device was deleted", register(registration_id, key, **options), key, {"interval": 6}, **options)


def custom_allocation(transport, options):
    asked = Inbox()

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps({"iotHubHostName": asked.queue[-1]["linkedHubs"][0], "initialTwin": twin_with(7), "payload": {"hello": ["device"]}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registration_id = f"{transport}-custom"
        webhook = {"webhookUrl": f"http://127.0.0.1:{server.server_port}/", "apiVersion": "2019-03-31"}
        key = keys(enroll(registration_id, {"type": "symmetricKey"}, allocationPolicy="custom", customAllocationDefinition=webhook))["primaryKey"]
        result = register(registration_id, key, payload={"model": "x"}, **options)
        server.shutdown()
    question = asked.next("question to the webhook")["deviceRuntimeContext"]
    check(f"{transport}: what the webhook is asked", (question["registrationId"], question["payload"]), (registration_id, {"model": "x"}))
    check(f"{transport}: the webhook's payload", json.loads(result.registration_state.response_payload), {"hello": ["device"]})
    works(f"{transport}: the webhook's twin", result, key, {"interval": 7}, **options)

    failed(f"{transport}: webhook that is gone", "Query Status operation returned a failed registration status with a status code of 200",
           registration_id, key, **options)


def assigning(transport, options):
    key = keys(enroll(f"{transport}-later", {"type": "symmetricKey"}))["primaryKey"]
    began = time.monotonic()
    result = register(f"{transport}-later", key, **options)
    assigned(f"{transport}: after assigning", result, f"{transport}-later")
    check_that(f"{transport}: it took its time", time.monotonic() - began >= 1)
    works(f"{transport}: after assigning", result, key, {}, **options)


if __name__ == "__main__":
    threading.excepthook = lambda args: print("thread:", args.exc_value, flush=True)
    for name, settings in transports.items():
        if sys.argv[1:] == ["assigning"]:
            assigning(name, settings)
            continue
        individual(name, settings)
        group(name, settings)
        certified(name, settings)
        reprovisioning(name, settings)
        custom_allocation(name, settings)
        refusals(name, settings)
    print("all checks passed", flush=True)
