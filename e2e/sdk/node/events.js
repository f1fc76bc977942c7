// Reads the telemetry of a device with @azure/event-hubs as back ends do.
//
// Environment: EVENTHUB_CONNECTION_STRING of a policy that may do everything, and
// EMULATOR_CONNECTION_STRING for the same without TLS; IOTHUB_CONNECTION_STRING; HUB_HOST, the host
// name for devices.
'use strict';

const { EventHubConsumerClient, earliestEventPosition, latestEventPosition } = require('@azure/event-hubs');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { Registry } = require('azure-iothub');
const WebSocket = require('ws');
const { Inbox, check, checkThat, rejects, run } = require('./checks');

const events = process.env.EVENTHUB_CONNECTION_STRING;
const host = process.env.HUB_HOST;
const TOTAL = 20;
const options = { retryOptions: { maxRetries: 0 } };

async function connectDevice() {
  const device = (await Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING).create({ deviceId: 'd1' })).responseBody;
  const client = Client.fromConnectionString(`HostName=${host};DeviceId=d1;SharedAccessKey=${device.authentication.symmetricKey.primaryKey}`, Mqtt);
  await client.open();
  return client;
}

async function send(client, n) {
  const message = Object.assign(new Message(JSON.stringify({ n })), { messageId: `m-${n}`, contentType: 'application/json', contentEncoding: 'utf-8' });
  message.properties.add('color', 'a b/c&d=e');
  await client.sendEvent(message);
}

// A Reader keeps what a subscription hands out.
class Reader {
  constructor(client, partition, subscribeOptions) {
    this.events = new Inbox();
    this.errors = new Inbox();
    this.contexts = new Inbox();
    this.client = client;
    const handlers = {
      processEvents: async (batch, context) => {
        batch.forEach((event) => this.events.put(event));
        this.contexts.put(context.lastEnqueuedEventProperties);
      },
      processError: async (err) => this.errors.put(err),
    };
    this.subscription = client.subscribe(partition, handlers, subscribeOptions);
  }

  async close() {
    await this.subscription.close();
    await this.client.close();
  }
}

function checkEvent(what, event, n) {
  const got = {
    body: event.body, id: event.messageId, contentType: event.contentType, properties: event.properties,
    device: event.systemProperties['iothub-connection-device-id'], source: event.systemProperties['iothub-message-source'],
  };
  check(what, got, { body: { n }, id: `m-${n}`, contentType: 'application/json', properties: { color: 'a b/c&d=e' }, device: 'd1', source: 'Telemetry' });
}

async function read(name, connectionString, clientOptions) {
  const connect = () => new EventHubConsumerClient('$Default', connectionString, { ...options, ...clientOptions });
  const client = connect();
  const hub = await client.getEventHubProperties();
  check(`${name}: event hub`, [hub.name, hub.partitionIds], ['iothub-ehub-iotdm', await client.getPartitionIds()]);
  const partitions = await Promise.all(hub.partitionIds.map((id) => client.getPartitionProperties(id)));
  const partition = partitions.find((p) => !p.isEmpty);
  await client.close();
  const id = partition.partitionId;

  const reader = new Reader(connect(), id, { startPosition: earliestEventPosition, trackLastEnqueuedEventProperties: true });
  const got = [];
  while (got.length < TOTAL) got.push(await reader.events.next('event'));
  got.forEach((event, n) => checkEvent(`${name}: event ${n}`, event, n));
  const last = got[TOTAL - 1];
  check(`${name}: partition`, [partition.eventHubName, partition.lastEnqueuedSequenceNumber, `${partition.lastEnqueuedOffset}`], ['iothub-ehub-iotdm', last.sequenceNumber, `${last.offset}`]);
  checkThat(`${name}: its beginning`, partition.beginningSequenceNumber <= got[0].sequenceNumber, partition);
  const tracked = await reader.contexts.next('context');
  checkThat(`${name}: last enqueued event`, tracked.sequenceNumber >= last.sequenceNumber, tracked);
  await reader.close();

  const fifth = got[5];
  for (const [what, startPosition, want] of [
    ['after an offset', { offset: fifth.offset }, 6], ['from an offset', { offset: fifth.offset, isInclusive: true }, 5],
    ['after a sequence number', { sequenceNumber: fifth.sequenceNumber }, 6], ['from a sequence number', { sequenceNumber: fifth.sequenceNumber, isInclusive: true }, 5],
    ['from a time before the first', { enqueuedOn: new Date(got[0].enqueuedTimeUtc.getTime() - 5000) }, 0],
  ]) {
    const again = new Reader(connect(), id, { startPosition });
    checkEvent(`${name}: ${what}`, await again.events.next('event'), want);
    await again.close();
  }
  return id;
}

// allPartitions reads as "subscribe" does without a partition, with the load balancer of the SDK.
async function allPartitions() {
  const client = new EventHubConsumerClient('$Default', events, options);
  const inbox = new Inbox();
  const subscription = client.subscribe({ processEvents: async (batch) => batch.forEach((event) => inbox.put(event.body.n)), processError: async (err) => inbox.put(err) }, { startPosition: earliestEventPosition });
  const got = [];
  while (got.length < TOTAL) got.push(await inbox.next('event'));
  check('all partitions', got, Array.from({ length: TOTAL }, (_, n) => n));
  await subscription.close();
  await client.close();
}

async function newest(device, id) {
  const reader = new Reader(new EventHubConsumerClient('$Default', events, options), id, { startPosition: latestEventPosition });
  // What is sent before the reader is there is not for it.
  for (let n = TOTAL; reader.events.values.length === 0; n++) await send(device, n);
  const event = await reader.events.next('event');
  checkThat('the newest events only', event.body.n >= TOTAL, event.body);
  await reader.close();
}

async function owners(id) {
  const open = (group, ownerLevel) => new Reader(new EventHubConsumerClient(group, events, options), id, { startPosition: earliestEventPosition, ownerLevel });
  const low = open('tools', 1);
  checkEvent('level 1', await low.events.next('event'), 0);
  const high = open('tools', 2);
  checkEvent('level 2', await high.events.next('event'), 0);
  check('level 1 loses the partition', (await low.errors.next('loss of the partition')).code, 'ReceiverDisconnectedError');
  const other = open('$Default', 1);
  checkEvent('another group has owners of its own', await other.events.next('event'), 0);
  for (const reader of [low, high, other]) await reader.close();
}

async function refusals(id) {
  const other = events.replace(/EntityPath=[^;]*/, 'EntityPath=other');
  const wrong = events.replace(/SharedAccessKey=[^;]*/, `SharedAccessKey=${'A'.repeat(43)}=`);
  const client = new EventHubConsumerClient('$Default', events, options);
  await rejects('unknown partition', 'MessagingError', client.getPartitionProperties('99'));
  await client.close();
  for (const [what, connectionString] of [['another event hub', other], ['wrong key', wrong]]) {
    const refused = new EventHubConsumerClient('$Default', connectionString, options);
    await rejects(what, 'MessagingError', refused.getEventHubProperties());
    await refused.close();
  }
  for (const [what, group, partition] of [['unknown consumer group', 'none', id], ['unknown partition to read', '$Default', '99']]) {
    const reader = new Reader(new EventHubConsumerClient(group, events, options), partition, { startPosition: earliestEventPosition });
    checkThat(what, (await reader.errors.next('refusal')) instanceof Error);
    await reader.close();
  }
}

run(async () => {
  const device = await connectDevice();
  for (let n = 0; n < TOTAL; n++) await send(device, n);
  const id = await read('tls', events);
  await read('websockets', events, { webSocketOptions: { webSocket: WebSocket } });
  await read('emulator', process.env.EMULATOR_CONNECTION_STRING);
  await allPartitions();
  await owners(id);
  await refusals(id);
  await newest(device, id);
  await device.close();
});
