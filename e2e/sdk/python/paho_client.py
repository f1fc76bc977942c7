"""A device with paho-mqtt alone, and with nothing but what "iotdm hub mqtt-settings -o json" prints."""

import json
import os
import queue
import ssl
import subprocess

import paho.mqtt.client as mqtt


def iotdm(*args):
    return subprocess.run(["iotdm", *args], check=True, capture_output=True, text=True).stdout


iotdm("service", "device", "create", "--device", "paho-1")
settings = json.loads(iotdm("hub", "mqtt-settings", "--device", "paho-1", "-o", "json"))
topics = settings["topics"]

events = queue.Queue()
arguments = {"client_id": settings["clientId"], "protocol": mqtt.MQTTv311}
if hasattr(mqtt, "CallbackAPIVersion"):  # paho-mqtt 2
    arguments["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
client = mqtt.Client(**arguments)
client.username_pw_set(settings["userName"], settings["password"])
client.tls_set(settings["caFile"], tls_version=ssl.PROTOCOL_TLS_CLIENT)
client.on_connect = lambda c, u, flags, code: events.put(("connected", code))
client.on_subscribe = lambda c, u, mid, granted, *more: events.put(("subscribed", list(granted)))
client.on_message = lambda c, u, message: events.put((message.topic, message.payload))


def expect(what):
    name, value = events.get(timeout=30)
    assert name.startswith(what), f"{name} {value}, want {what}"
    return name, value


client.connect(settings["host"], settings["port"], keepalive=60)
client.loop_start()
assert expect("connected")[1] == 0

# The numbers of "iotdm help mqtt": five filters at most, QoS 2 is granted as 1.
client.subscribe([(topics["messages"], 2), (topics["methods"], 0), (topics["twinAnswer"], 0), (topics["desired"], 0)])
assert expect("subscribed")[1] == [1, 0, 0, 0]

client.publish(topics["telemetry"] + "site=north&%24.ct=application%2Fjson&%24.ce=utf-8", '{"t": 21.5}', qos=1).wait_for_publish()
sent = iotdm("hub", "events", "--device", "paho-1", "--source", "telemetry", "--jq", ".event | [.payload.t, .properties.application.site]")
assert json.loads(sent) == [21.5, "north"], sent

client.publish(topics["twinGet"].replace("RID", "7"), b"")
topic, twin = expect("$iothub/twin/res/200/?$rid=7")
assert json.loads(twin)["desired"]["$version"] == 1, twin

client.publish(topics["reported"].replace("RID", "8"), json.dumps({"firmware": "1.2"}))
expect("$iothub/twin/res/204/?$rid=8")
assert iotdm("service", "twin", "get", "--device", "paho-1", "--jq", ".properties.reported.firmware").strip() == "1.2"

iotdm("service", "twin", "patch", "--device", "paho-1", "--desired", '{"interval": 60}')
topic, patch = expect("$iothub/twin/PATCH/properties/desired/")
assert json.loads(patch)["interval"] == 60, patch

call = subprocess.Popen(
    ["iotdm", "service", "method", "invoke", "--device", "paho-1", "--method-name", "blink", "--method-payload", '{"times": 3}', "-o", "json"],
    stdout=subprocess.PIPE, text=True)
topic, payload = expect("$iothub/methods/POST/blink/")
assert json.loads(payload) == {"times": 3}, payload
rid = topic.split("$rid=")[1]
client.publish(topics["methodAnswer"].replace("STATUS", "200").replace("RID", rid), json.dumps({"blinked": 3}))
answer = json.loads(call.communicate(timeout=30)[0])
assert answer == {"status": 200, "payload": {"blinked": 3}}, answer

iotdm("service", "c2d", "send", "--device", "paho-1", "--data", "hello")
topic, message = expect("devices/paho-1/messages/devicebound/")
assert message == b"hello", message

client.disconnect()
client.loop_stop()
print("all checks passed")
