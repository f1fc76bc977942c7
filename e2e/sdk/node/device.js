// Drives a hub with azure-iot-device as devices do, and watches it with azure-iothub.
//
// The argument is the protocol of the devices, mqtt or amqp. Environment: IOTHUB_CONNECTION_STRING of
// a policy that may do everything; HUB_HOST, the host name for devices; X509_CERT, X509_KEY and
// X509_THUMBPRINT of a self-signed certificate.
'use strict';

const fs = require('node:fs');
const https = require('node:https');
const { NoRetry, SharedAccessSignature } = require('azure-iot-common');
const { Client, Message, ModuleClient } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Http } = require('azure-iot-device-http');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const iothub = require('azure-iothub');
const { Inbox, check, eventually, rejects, run, soon } = require('./checks');

const owner = process.env.IOTHUB_CONNECTION_STRING;
const host = process.env.HUB_HOST;
const [tcp, webSockets, other] = { mqtt: [Mqtt, MqttWs, Amqp], amqp: [Amqp, AmqpWs, Mqtt] }[process.argv[2]];
const registry = iothub.Registry.fromConnectionString(owner);
const service = iothub.Client.fromConnectionString(owner);

// A handler is subscribed to in the background, hence the time to connect.
async function invoke(id, methodName, payload) {
  return (await service.invokeDeviceMethod(id, { methodName, payload, connectTimeoutInSeconds: 30 })).result;
}

async function create(deviceId) {
  const device = (await registry.create({ deviceId })).responseBody;
  return { device, connectionString: `HostName=${host};DeviceId=${deviceId};SharedAccessKey=${device.authentication.symmetricKey.primaryKey}` };
}

async function twinOf(deviceId) {
  return (await registry.getTwin(deviceId)).responseBody;
}

async function reported(deviceId) {
  const { $metadata, $version, ...properties } = (await twinOf(deviceId)).properties.reported;
  return properties;
}

// send sends a cloud-to-device message over REST, since the SDK does so over AMQP only.
function send(deviceId, body, headers) {
  const policy = iothub.ConnectionString.parse(owner);
  const token = SharedAccessSignature.create(policy.HostName, policy.SharedAccessKeyName, policy.SharedAccessKey, Math.floor(Date.now() / 1000) + 600);
  const path = `/devices/${deviceId}/messages/deviceBound?api-version=2021-04-12`;
  return new Promise((resolve, reject) => {
    const request = https.request({ host: policy.HostName, path, method: 'POST', headers: { Authorization: token.toString(), ...headers } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on('error', reject);
    request.end(body);
  });
}

function update(twin, patch) {
  return new Promise((resolve, reject) => twin.properties.reported.update(patch, (err) => (err ? reject(err) : resolve())));
}

async function wholeLife(name, transport) {
  const deviceId = `node-${name}`;
  const { connectionString } = await create(deviceId);
  const client = Client.fromConnectionString(connectionString, transport);
  await client.open();
  const twin = await client.getTwin();
  check(`${name}: connection state`, (await twinOf(deviceId)).connectionState, 'Connected');
  check(`${name}: new twin`, [twin.properties.desired.$version, twin.properties.reported.$version], [1, 1]);
  await update(twin, { a: 1, gone: true, nested: { text: 'grüß', list: [1, 2] } });
  await update(twin, { gone: null });
  check(`${name}: reported with a deletion`, await reported(deviceId), { a: 1, nested: { text: 'grüß', list: [1, 2] } });
  await rejects(`${name}: a reported patch that breaks the rules`, 'Error', update(twin, { 'a b': 1 }));

  const patches = new Inbox();
  twin.on('properties.desired', (delta) => patches.put(delta));
  await patches.next('desired properties at the start');
  // The subscription is under way; what is sent behind it is answered after it.
  await update(twin, { subscribed: true });
  await registry.updateTwin(deviceId, { properties: { desired: { interval: 5, nested: { x: 'y' } } } }, '*');
  check(`${name}: desired patch`, await patches.next('desired patch'), { interval: 5, nested: { x: 'y' }, $version: 2 });

  const seen = new Inbox();
  for (const method of ['echo', 'teapot', 'silentPayload']) {
    client.onDeviceMethod(method, (request, response) => {
      seen.put(request.payload);
      const args = { echo: [200, { got: request.payload }], teapot: [418, 'short and stout'], silentPayload: [200] }[method];
      response.send(...args, () => {});
    });
  }
  for (const [what, payload] of [['an object', { delay: 5 }], ['text', 'grüß'], ['a number', 7], ['null', null]]) {
    check(`${name}: method with ${what}`, await invoke(deviceId, 'echo', payload), { status: 200, payload: { got: payload } });
  }
  check(`${name}: method without payload`, await invoke(deviceId, 'echo', undefined), { status: 200, payload: { got: null } });
  check(`${name}: method status is the device's`, await invoke(deviceId, 'teapot', {}), { status: 418, payload: 'short and stout' });
  check(`${name}: answer without payload`, await invoke(deviceId, 'silentPayload', {}), { status: 200, payload: null });

  const message = new Message(JSON.stringify({ temperature: 21 }));
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  message.properties.add('level', 'a b/c&d=e');
  await client.sendEvent(message);
  await client.sendEvent(new Message(''));
  console.log(`ok ${name}: telemetry acknowledged`);

  await receiveMessage(name, deviceId, client);
  await client.close();
  await eventually(`${name}: it is disconnected`, async () => (await twinOf(deviceId)).connectionState, 'Disconnected');
  check(`${name}: cloud-to-device message while away`, await send(deviceId, 'later', {}), 204);
  await registry.updateTwin(deviceId, { properties: { desired: { interval: 9 } } }, '*');
  const again = Client.fromConnectionString(connectionString, transport);
  const messages = new Inbox();
  again.on('message', (message) => messages.put(message));
  const later = await messages.next('message while away');
  check(`${name}: it comes after the reconnect`, later.data.toString(), 'later');
  await again.complete(later);
  check(`${name}: the change too`, (await again.getTwin()).properties.desired.interval, 9);
  await again.close();
}

async function receiveMessage(name, deviceId, client) {
  const messages = new Inbox();
  client.on('message', (message) => messages.put(message));
  check(`${name}: cloud-to-device message sent`, await send(deviceId, 'grüß', { 'IoTHub-MessageId': 'm-1', 'iothub-app-color': 'a b/c&d=e' }), 204);
  const message = await messages.next('cloud-to-device message');
  check(`${name}: cloud-to-device message`, [message.data.toString(), message.messageId], ['grüß', 'm-1']);
  // Over HTTP the SDK leaves the prefix of the header in the name.
  const property = message.properties.propertyList.find((p) => p.key.replace('iothub-app-', '') === 'color');
  check(`${name}: its property`, property?.value, 'a b/c&d=e');
  await client.complete(message);
  // Over MQTT nobody tells the device that its acknowledgement has arrived, and over AMQP the SDK does not wait.
  await eventually(`${name}: completed`, async () => (await twinOf(deviceId)).cloudToDeviceMessageCount, 0);
}

// overHttp sends telemetry and receives messages without a connection.
async function overHttp() {
  const { connectionString } = await create('node-http');
  const client = Client.fromConnectionString(connectionString, Http);
  await client.setOptions({ http: { receivePolicy: { interval: 1 } } });
  await client.open();
  await client.sendEvent(new Message('one'));
  await client.sendEventBatch([new Message('two'), new Message('three')]);
  console.log('ok http: telemetry acknowledged');
  await receiveMessage('http', 'node-http', client);
  await client.close();
}

// outcomes gives a message back, refuses one, and hears what the sender hears of that.
async function outcomes(name, transport) {
  const deviceId = `node-outcomes-${name}`;
  const { connectionString } = await create(deviceId);
  const client = Client.fromConnectionString(connectionString, transport);
  const messages = new Inbox();
  client.on('message', (message) => messages.put(message));
  await client.open();
  const waiting = async () => (await twinOf(deviceId)).cloudToDeviceMessageCount;
  check(`${name}: message sent`, await send(deviceId, 'again', { 'IoTHub-MessageId': 'm-1' }), 204);
  await client.abandon(await messages.next('message to abandon'));
  const again = await messages.next('message again');
  check(`${name}: an abandoned message comes again`, [again.data.toString(), again.messageId], ['again', 'm-1']);
  check(`${name}: it waits till it is settled`, await waiting(), 1);
  await client.reject(again);
  await eventually(`${name}: a rejected one does not`, waiting, 0);
  await client.close();
}

// renewal gives a client that has a token and no key another token.
async function renewal(name, transport) {
  const { device } = await create(`node-renewal-${name}`);
  const token = (seconds) => SharedAccessSignature.create(`${host}/devices/${device.deviceId}`, null, device.authentication.symmetricKey.primaryKey, Math.floor(Date.now() / 1000) + seconds).toString();
  const client = Client.fromSharedAccessSignature(token(600), transport);
  const lost = new Inbox();
  client.on('disconnect', (why) => lost.put(why));
  client.onDeviceMethod('echo', (request, response) => response.send(200, request.payload, () => {}));
  await client.open();
  check(`${name}: with a token`, await invoke(device.deviceId, 'echo', 1), { status: 200, payload: 1 });
  await new Promise((resolve, reject) => client.updateSharedAccessSignature(token(1200), (err) => (err ? reject(err) : resolve())));
  check(`${name}: with another token`, await invoke(device.deviceId, 'echo', 2), { status: 200, payload: 2 });
  check(`${name}: on the same connection`, lost.values, []);
  await client.close();
}

async function refusals() {
  const { device, connectionString } = await create('node-refused');
  const wrong = connectionString.replace(/SharedAccessKey=.*/, `SharedAccessKey=${'A'.repeat(43)}=`);
  await rejects('wrong key', 'UnauthorizedError', Client.fromConnectionString(wrong, tcp).open());
  await rejects('unknown device', 'UnauthorizedError', Client.fromConnectionString(connectionString.replace('node-refused', 'node-unknown'), tcp).open());

  const lost = new Inbox();
  await openWithoutRetry(connectionString, tcp, lost);
  await registry.update({ ...device, status: 'disabled' });
  check('a disabled device is dropped', await lost.next('drop of a disabled device'), 'lost');
  await rejects('a disabled device is refused', 'UnauthorizedError', Client.fromConnectionString(connectionString, tcp).open());
}

async function openWithoutRetry(connectionString, transport, lost) {
  const client = Client.fromConnectionString(connectionString, transport);
  client.setRetryPolicy(new NoRetry());
  client.on('disconnect', () => lost.put('lost'));
  await client.open();
  await client.getTwin();
  return client;
}

// takeover has one device connect twice, also by two protocols.
async function takeover(name, first, second) {
  const deviceId = `node-takeover-${name}`;
  const { connectionString } = await create(deviceId);
  const lost = new Inbox();
  await openWithoutRetry(connectionString, first, lost);
  const client = await openWithoutRetry(connectionString, second, new Inbox());
  check(`${name}: the second connection ends the first`, await lost.next('takeover'), 'lost');
  check(`${name}: the second connection stays`, (await twinOf(deviceId)).connectionState, 'Connected');
  await client.close();
}

// batch sends several messages at once, which the SDK does not over AMQP.
async function batch() {
  const client = Client.fromConnectionString((await create('node-batch')).connectionString, tcp);
  client.setRetryPolicy(new NoRetry());
  await client.sendEventBatch([new Message('one'), new Message('two')]);
}

async function modules() {
  await create('node-edge');
  await registry.addModule({ deviceId: 'node-edge', moduleId: 'filter' });
  const module = (await registry.getModule('node-edge', 'filter')).responseBody;
  const key = module.authentication.symmetricKey.primaryKey;
  const client = ModuleClient.fromConnectionString(`HostName=${host};DeviceId=node-edge;ModuleId=filter;SharedAccessKey=${key}`, tcp);
  await client.open();
  const twin = await client.getTwin();
  await update(twin, { module: true });
  const moduleTwin = (await registry.getModuleTwin('node-edge', 'filter')).responseBody;
  check('module: reported', moduleTwin.properties.reported.module, true);
  client.onMethod('echo', (request, response) => response.send(200, request.payload, () => {}));
  const { result } = await service.invokeDeviceMethod('node-edge', 'filter', { methodName: 'echo', payload: { x: 1 }, connectTimeoutInSeconds: 30 });
  check('module: method', result, { status: 200, payload: { x: 1 } });
  await client.sendOutputEvent('alerts', new Message('counted'));
  console.log('ok module: output acknowledged');
  await client.close();
}

async function certificates() {
  const thumbprint = process.env.X509_THUMBPRINT;
  await registry.create({ deviceId: 'node-x509', authentication: { x509Thumbprint: { primaryThumbprint: thumbprint, secondaryThumbprint: thumbprint } } });
  const client = Client.fromConnectionString(`HostName=${host};DeviceId=node-x509;x509=true`, tcp);
  client.setOptions({ cert: fs.readFileSync(process.env.X509_CERT, 'utf8'), key: fs.readFileSync(process.env.X509_KEY, 'utf8') });
  await soon('x509: connect', client.open());
  await client.getTwin();
  check('x509: connection state', (await twinOf('node-x509')).connectionState, 'Connected');
  await client.close();
}

run(async () => {
  await wholeLife('tcp', tcp);
  await wholeLife('websockets', webSockets);
  if (tcp === Mqtt) {
    await overHttp();
  } else {
    await outcomes('tcp', tcp);
    await outcomes('websockets', webSockets);
    await renewal('tcp', tcp);
    await renewal('websockets', webSockets);
    await rejects('a batch', 'NotImplementedError', batch());
  }
  await refusals();
  await takeover('same', tcp, tcp);
  await takeover('to-other-protocol', tcp, other);
  await takeover('from-other-protocol', other, tcp);
  await modules();
  await certificates();
});
