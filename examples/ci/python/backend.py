"""A back end under test: it warns thermostats that are too hot."""

import os

from azure.eventhub import EventHubConsumerClient
from azure.iot.hub import IoTHubRegistryManager


class BackEnd:
    """Reads the telemetry of all devices, and sends a message to those that are too hot."""

    def __init__(self, hub, events, limit):
        self.service = IoTHubRegistryManager.from_connection_string(hub)
        self.events = EventHubConsumerClient.from_connection_string(
            events, "$Default", connection_verify=os.environ.get("SSL_CERT_FILE"))
        self.limit = limit

    def run(self):
        """Returns when close is called."""
        self.events.receive(self.on_event, starting_position="-1")

    def on_event(self, partition, event):
        device = event.system_properties[b"iothub-connection-device-id"].decode()
        temperature = event.body_as_json()["temperature"]
        if temperature > self.limit:
            self.service.send_c2d_message(device, f"{temperature} is too hot")

    def close(self):
        self.events.close()
