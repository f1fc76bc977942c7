// Drives a hub over AMQP with azure-iothub as back ends do: cloud-to-device messages, which a device
// receives over MQTT, and feedback.
//
// Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything, REGISTRY_CONNECTION_STRING
// of one that may only read the registry; HUB_HOST, the host name for devices.
'use strict';

const { Client: Device } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { Message } = require('azure-iot-common');
const iothub = require('azure-iothub');
const { Amqp } = require('azure-iothub/dist/amqp.js');
const { AmqpWs } = require('azure-iothub/dist/amqp_ws.js');
const { Inbox, check, eventually, rejects, run } = require('./checks');

const owner = process.env.IOTHUB_CONNECTION_STRING;
const host = process.env.HUB_HOST;
const registry = iothub.Registry.fromConnectionString(owner);

async function create(deviceId) {
  const device = (await registry.create({ deviceId })).responseBody;
  return `HostName=${host};DeviceId=${deviceId};SharedAccessKey=${device.authentication.symmetricKey.primaryKey}`;
}

async function waiting(deviceId) {
  return (await registry.get(deviceId)).responseBody.cloudToDeviceMessageCount;
}

function newMessage(body, fields) {
  return Object.assign(new Message(body), fields);
}

async function messages(name, transport) {
  const deviceId = `node-${name}`;
  const service = iothub.Client.fromConnectionString(owner, transport);
  await service.open();
  const device = Device.fromConnectionString(await create(deviceId), Mqtt);
  const inbox = new Inbox();
  device.on('message', (message) => inbox.put(message));
  await device.open();

  const sent = newMessage('grüß', { messageId: 'm-1', correlationId: 'c-1', contentType: 'application/json', contentEncoding: 'utf-8', expiryTimeUtc: Date.now() + 3600_000, ack: 'full' });
  sent.properties.add('color', 'a b/c&d=e');
  await service.send(deviceId, sent);
  const got = await inbox.next('message');
  check(`${name}: message`, [got.data.toString(), got.messageId, got.correlationId, got.contentType, got.contentEncoding, got.properties.getValue('color')], ['grüß', 'm-1', 'c-1', 'application/json', 'utf-8', 'a b/c&d=e']);
  await device.complete(got);
  for (const ack of ['none', 'positive', 'negative', 'full']) {
    await service.send(deviceId, newMessage(ack, { ack }));
    const message = await inbox.next('message');
    check(`${name}: acknowledgement ${ack}`, message.data.toString(), ack);
    await device.complete(message);
  }
  await Promise.all(Array.from({ length: 30 }, (_, n) => service.send(deviceId, `${n}`)));
  const order = [];
  for (let n = 0; n < 30; n++) {
    const message = await inbox.next('message');
    order.push(message.data.toString());
    await device.complete(message);
  }
  check(`${name}: order of what is sent at once`, order, Array.from({ length: 30 }, (_, n) => `${n}`));
  await device.close();
  await eventually(`${name}: all completed`, () => waiting(deviceId), 0);
  await service.close();
}

// feedback receives what became of messages, and has the link for file notifications, on which nothing comes.
async function feedback(name, transport) {
  const online = `node-online-${name}`;
  const offline = `node-offline-${name}`;
  const device = Device.fromConnectionString(await create(online), Mqtt);
  await create(offline);
  const service = iothub.Client.fromConnectionString(owner, transport);
  await service.open();
  const receiver = (await service.getFeedbackReceiver()).result;
  const records = new Inbox();
  receiver.on('message', (batch) => {
    JSON.parse(batch.data.toString()).filter((record) => [online, offline].includes(record.deviceId)).forEach((record) => records.put(record));
    receiver.complete(batch);
  });
  receiver.on('errorReceived', (err) => records.put(err));
  const files = (await service.getFileNotificationReceiver()).result;
  files.on('message', (notification) => records.put(notification));

  device.on('message', (message) => device.complete(message));
  await device.open();
  await service.send(offline, newMessage('gone', { messageId: 'm-2', ack: 'full', expiryTimeUtc: Date.now() + 1000 }));
  await service.send(online, newMessage('kept', { messageId: 'm-1', ack: 'full' }));
  const got = [await records.next('feedback'), await records.next('more feedback')];
  check(`${name}: feedback`, got.map((record) => [record.originalMessageId, record.deviceId, record.statusCode]).sort(), [['m-1', online, 'Success'], ['m-2', offline, 'Expired']]);
  await device.close();
  await service.close();
}

async function refusals(name, transport) {
  const deviceId = `node-refused-${name}`;
  await create(deviceId);
  const service = iothub.Client.fromConnectionString(owner, transport);
  await service.open();
  await rejects(`${name}: unknown device`, 'DeviceNotFoundError', service.send('node-none', 'hello'));
  await rejects(`${name}: too large`, 'MessageTooLargeError', service.send(deviceId, 'x'.repeat(300_000)));
  for (let n = 0; n < 50; n++) await service.send(deviceId, 'hello');
  await rejects(`${name}: full queue`, 'DeviceMaximumQueueDepthExceededError', service.send(deviceId, 'hello'));
  await service.close();

  const wrong = owner.replace(/SharedAccessKey=.*/, `SharedAccessKey=${'A'.repeat(43)}=`);
  const refused = await rejects(`${name}: wrong key`, 'Error', iothub.Client.fromConnectionString(wrong, transport).open().catch((err) => { throw Object.assign(new Error(err.message), { cause: err }); }));
  check(`${name}: wrong key: reason`, refused.cause.amqpError?.name ?? refused.cause.name, 'UnauthorizedError');
  const reader = iothub.Client.fromConnectionString(process.env.REGISTRY_CONNECTION_STRING, transport);
  await reader.open();
  await rejects(`${name}: missing right`, 'UnauthorizedError', reader.send(deviceId, 'hello'));
  await reader.close();
}

// tokens uses a ready-made token in place of a key, and a service that is opened, closed and opened again.
async function tokens(name, transport) {
  const deviceId = `node-tokens-${name}`;
  await create(deviceId);
  const policy = iothub.ConnectionString.parse(owner);
  const token = iothub.SharedAccessSignature.create(policy.HostName, policy.SharedAccessKeyName, policy.SharedAccessKey, Math.floor(Date.now() / 1000) + 600).toString();
  const service = iothub.Client.fromSharedAccessSignature(token, transport);
  for (let n = 1; n <= 3; n++) {
    await service.open();
    await service.send(deviceId, 'hello');
    await service.close();
    check(`${name}: opened ${n} times`, await waiting(deviceId), n);
  }
}

run(async () => {
  // A hub gives feedback every 15 seconds, to one of those who wait for it.
  const waits = feedback('tcp', Amqp);
  for (const [name, transport] of [['tcp', Amqp], ['websockets', AmqpWs]]) {
    await messages(name, transport);
    await refusals(name, transport);
    await tokens(name, transport);
  }
  await waits;
  await feedback('websockets', AmqpWs);
});
