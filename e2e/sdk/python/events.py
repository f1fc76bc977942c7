"""Reads the telemetry of a device with azure-eventhub as back ends do.

Environment: EVENTHUB_CONNECTION_STRING of a policy that may do everything, and
EMULATOR_CONNECTION_STRING for the same without TLS; IOTHUB_CONNECTION_STRING; HUB_HOST, the host
name for devices; SSL_CERT_FILE, the hub's authority; WEBSOCKETS=1 where the hub has port 443.
"""

import asyncio
import os
import threading
from datetime import datetime, timedelta, timezone

from azure.eventhub import EventHubConsumerClient, TransportType, aio
from azure.eventhub.exceptions import AuthenticationError, ConnectError, ConnectionLostError, EventHubError
from azure.iot.device import IoTHubDeviceClient, Message
from azure.iot.hub import IoTHubRegistryManager

from checks import Inbox, WAIT, check, check_that, raises

events = os.environ["EVENTHUB_CONNECTION_STRING"]
ca = os.environ["SSL_CERT_FILE"]
host = os.environ["HUB_HOST"]
TOTAL = 20


def device():
    service = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
    key = service.create_device_with_sas("d1", "", "", "enabled").authentication.symmetric_key.primary_key
    client = IoTHubDeviceClient.create_from_connection_string(f"HostName={host};DeviceId=d1;SharedAccessKey={key}")
    client.connect()
    return client


def send(client, n):
    message = Message(str(n), message_id=f"m-{n}", content_type="application/json", content_encoding="utf-8")
    message.custom_properties["color"] = "a b/c&d=e"
    client.send_message(message)


def consumer(connection_string=events, group="$Default", **options):
    options.setdefault("retry_total", 0)
    return EventHubConsumerClient.from_connection_string(connection_string, consumer_group=group, connection_verify=ca, **options)


class Reader:
    """Receives in a thread, as the SDK wants it."""

    def __init__(self, client, partition, **options):
        self.client, self.events, self.errors = client, Inbox(), Inbox()
        on_event = lambda context, event: self.events.put((context, event))
        on_error = lambda context, error: self.errors.put(error)
        self.thread = threading.Thread(target=client.receive, args=(on_event,), daemon=True, kwargs=dict(partition_id=partition, on_error=on_error, **options))
        self.thread.start()

    def next(self):
        return self.events.next("event")[1]

    def close(self):
        self.client.close()
        self.thread.join(WAIT)
        check_that("the reader ends", not self.thread.is_alive())


def check_event(what, event, n):
    got = {
        "body": event.body_as_str(), "id": event.message_id, "content type": event.content_type, "properties": event.properties,
        "device": event.system_properties[b"iothub-connection-device-id"], "source": event.system_properties[b"iothub-message-source"],
    }
    check(what, got, {"body": str(n), "id": f"m-{n}", "content type": "application/json", "properties": {b"color": b"a b/c&d=e"}, "device": b"d1", "source": b"Telemetry"})


def read(name, connection_string, **options):
    client = consumer(connection_string, **options)
    hub = client.get_eventhub_properties()
    check(f"{name}: event hub", (hub["eventhub_name"], hub["partition_ids"]), ("iothub-ehub-iotdm", client.get_partition_ids()))
    partitions = [client.get_partition_properties(id) for id in hub["partition_ids"]]
    partition = [p for p in partitions if not p["is_empty"]][0]
    check(f"{name}: one partition has them all", [p["is_empty"] for p in partitions].count(False), 1)
    id = partition["id"]
    client.close()

    reader = Reader(consumer(connection_string, **options), id, starting_position="-1", track_last_enqueued_event_properties=True)
    got = [reader.events.next("event") for _ in range(TOTAL)]
    for n, (_, event) in enumerate(got):
        check_event(f"{name}: event {n}", event, n)
    context, last = got[-1]
    check(f"{name}: partition", (partition["eventhub_name"], partition["last_enqueued_sequence_number"], partition["last_enqueued_offset"]), ("iothub-ehub-iotdm", last.sequence_number, last.offset))
    check_that(f"{name}: its beginning", partition["beginning_sequence_number"] <= got[0][1].sequence_number, partition["beginning_sequence_number"])
    check_that(f"{name}: enqueued just now", abs(datetime.now(timezone.utc) - last.enqueued_time) < timedelta(hours=1), last.enqueued_time)
    tracked = context.last_enqueued_event_properties
    check(f"{name}: last enqueued event", (tracked["sequence_number"], tracked["offset"]), (last.sequence_number, last.offset))
    reader.close()

    return id, got


def positions(id, got):
    """Reads from places in the middle. Each reader takes the SDK two seconds."""
    fifth = got[5][1]
    for what, position, inclusive, want in (
        ("after an offset", fifth.offset, False, 6), ("from an offset", fifth.offset, True, 5),
        ("after a sequence number", fifth.sequence_number, False, 6), ("from a sequence number", fifth.sequence_number, True, 5),
        ("from a time before the first", got[0][1].enqueued_time - timedelta(seconds=5), False, 0),
    ):
        reader = Reader(consumer(), id, starting_position=position, starting_position_inclusive=inclusive)
        check_event(what, reader.next(), want)
        reader.close()


def all_partitions():
    """Reads as "receive" does without a partition, with the load balancer of the SDK."""
    client, inbox = consumer(), Inbox()
    thread = threading.Thread(target=client.receive_batch, args=(lambda context, batch: [inbox.put(event.body_as_str()) for event in batch],), kwargs={"starting_position": "-1", "max_wait_time": 1}, daemon=True)
    thread.start()
    check("all partitions", [inbox.next("event") for _ in range(TOTAL)], [str(n) for n in range(TOTAL)])
    client.close()
    thread.join(WAIT)


def newest(d, id):
    reader = Reader(consumer(), id, starting_position="@latest")
    n = TOTAL
    while reader.events.empty():  # what is sent before the reader is there is not for it
        send(d, n)
        n += 1
    check_that("the newest events only", int(reader.next().body_as_str()) >= TOTAL)
    reader.close()


def owners(id):
    low = Reader(consumer(group="tools"), id, starting_position="-1", owner_level=1)
    check_event("level 1", low.next(), 0)
    high = Reader(consumer(group="tools"), id, starting_position="-1", owner_level=2)
    check_event("level 2", high.next(), 0)
    lost = low.errors.next("loss of the partition")
    check_that("level 1 loses the partition", isinstance(lost, (ConnectError, ConnectionLostError)) and "stolen" in str(lost), lost)
    other = Reader(consumer(), id, starting_position="-1", owner_level=1)
    check_event("another group has owners of its own", other.next(), 0)
    for reader in (low, high, other):
        reader.close()


def refusals(id):
    raises("unknown partition", EventHubError, consumer().get_partition_properties, "99")
    reader = Reader(consumer(group="none"), id)
    check_that("unknown consumer group", isinstance(reader.errors.next("refusal"), EventHubError))
    reader.close()
    wrong = ";".join("SharedAccessKey=" + "A" * 43 + "=" if part.startswith("SharedAccessKey=") else part for part in events.split(";"))
    raises("wrong key", AuthenticationError, consumer(wrong).get_eventhub_properties)
    other = ";".join("EntityPath=other" if part.startswith("EntityPath=") else part for part in events.split(";"))
    raises("another event hub", EventHubError, consumer(other).get_eventhub_properties)


async def asynchronous(name, connection_string, id, **options):
    client = aio.EventHubConsumerClient.from_connection_string(connection_string, consumer_group="$Default", connection_verify=ca, retry_total=0, **options)
    async with client:
        got = []
        done = asyncio.Event()

        async def on_event(context, event):
            got.append(event.body_as_str())
            if len(got) == TOTAL:
                done.set()

        receiving = asyncio.create_task(client.receive(on_event, partition_id=id, starting_position="-1"))
        await asyncio.wait_for(done.wait(), WAIT)
        check(f"{name}, asyncio", got[:TOTAL], [str(n) for n in range(TOTAL)])
        receiving.cancel()


if __name__ == "__main__":
    d = device()
    for n in range(TOTAL):
        send(d, n)
    id, got = read("tls", events)
    positions(id, got)
    read("emulator", os.environ["EMULATOR_CONNECTION_STRING"])
    asyncio.run(asynchronous("tls", events, id))
    if os.environ.get("WEBSOCKETS"):
        read("websockets", events, transport_type=TransportType.AmqpOverWebsocket)
        asyncio.run(asynchronous("websockets", events, id, transport_type=TransportType.AmqpOverWebsocket))
    all_partitions()
    owners(id)
    refusals(id)
    newest(d, id)
    d.shutdown()
    print("all checks passed", flush=True)
