"""A thermostat: the device program under test."""

import json
import queue

from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse


class Thermostat:
    """Keeps a target, which a direct method or a desired property sets, and takes warnings."""

    def __init__(self, connection_string):
        self.warnings = queue.Queue()
        self.client = IoTHubDeviceClient.create_from_connection_string(connection_string)
        self.client.on_method_request_received = self.on_method
        self.client.on_twin_desired_properties_patch_received = lambda patch: self.set_target(patch["target"])
        self.client.on_message_received = lambda message: self.warnings.put(message.data.decode())
        self.client.connect()

    def on_method(self, request):
        if request.name == "setTarget":
            self.set_target(request.payload["target"])
            status = 200
        else:
            status = 404
        self.client.send_method_response(MethodResponse.create_from_method_request(request, status, {}))

    def set_target(self, target):
        self.client.patch_twin_reported_properties({"target": target})

    def measure(self, temperature):
        self.client.send_message(Message(json.dumps({"temperature": temperature}), "utf-8", "application/json"))

    def close(self):
        self.client.shutdown()
