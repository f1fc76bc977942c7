// Queries twins with azure-iothub, while azure-iot-device keeps one of them connected.
//
// Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
// for devices.
'use strict';

const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const iothub = require('azure-iothub');
const { check, checkThat, rejects, run } = require('./checks');

const host = process.env.HUB_HOST;
const registry = iothub.Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const body = async (promise) => (await promise).responseBody;

// pages returns the pages of a query. As a promise, next does not go on by itself. A page that is followed by none must
// not say that there is one: the SDK would ask for it, for ever.
async function pages(text, size) {
  const query = registry.createQuery(text, size);
  const found = [];
  while (query.hasMoreResults) {
    found.push((await query.next(query.continuationToken)).result);
    checkThat('an end', found.length < 20, found.length);
  }
  return found;
}

const rows = async (text) => (await pages(text)).flat();

run(async () => {
  let device;
  for (let i = 10; i < 35; i++) {
    device = await body(registry.create({ deviceId: `js-${i}` }));
    await registry.updateTwin(`js-${i}`, { tags: { building: 43, floor: i % 5 }, properties: { desired: { rate: i } } }, '*');
  }
  const client = Client.fromConnectionString(`HostName=${host};DeviceId=js-34;SharedAccessKey=${device.authentication.symmetricKey.primaryKey}`, Mqtt);
  await client.open();
  const twin = await client.getTwin();
  await new Promise((resolve, reject) => { twin.properties.reported.update({ rebootTime: '2026-03-14T09:26:53Z' }, (err) => (err ? reject(err) : resolve())); });

  const found = await pages('SELECT * FROM devices WHERE tags.building = 43', 10);
  check('pages', found.map((page) => page.length), [10, 10, 5]);
  check('all devices, once, in order', found.flat().map((row) => row.deviceId), Array.from({ length: 25 }, (_, i) => `js-${i + 10}`));
  check('a result of exactly one page', (await pages('SELECT * FROM devices', 25)).length, 1);
  check('TOP', (await pages('SELECT TOP 13 * FROM devices', 10)).map((page) => page.length), [10, 3]);
  check('nothing', await pages('SELECT * FROM devices WHERE tags.building = 44'), [[]]);

  const query = registry.createQuery('SELECT * FROM devices WHERE properties.desired.rate >= 20', 7);
  const twins = [];
  while (query.hasMoreResults) twins.push(...(await query.nextAsTwin()).result);
  check('nextAsTwin', [twins.length, twins[14].deviceId, twins[14].properties.desired.rate, twins[14].connectionState], [15, 'js-34', 34, 'Connected']);
  await twins[0].update({ tags: { seen: true } });
  check('a twin of a query can be updated', await rows('SELECT deviceId FROM devices WHERE tags.seen'), [{ deviceId: 'js-20' }]);

  check('projection', await rows('SELECT deviceId, properties.reported.rebootTime AS rebooted FROM devices WHERE is_defined(properties.reported.rebootTime)'),
    [{ deviceId: 'js-34', rebooted: '2026-03-14T09:26:53Z' }]);
  check('count', await rows("SELECT COUNT() AS n FROM devices WHERE connectionState = 'Disconnected'"), [{ n: 24 }]);
  check('groups', await rows('SELECT tags.floor AS floor, COUNT() AS n, MAX(properties.desired.rate) AS rate FROM devices GROUP BY tags.floor'),
    [0, 1, 2, 3, 4].map((floor) => ({ floor, n: 5, rate: 30 + floor })));
  await client.close();

  const mistake = await rejects('a mistake', 'ArgumentError', pages('SELECT * FROM devices ORDER BY deviceId'));
  checkThat('place of a mistake', mistake.message.includes("Line 1:22 unexpected 'ORDER'") || mistake.responseBody.includes("Line 1:22 unexpected 'ORDER'"), mistake);
});
