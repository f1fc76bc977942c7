// Drives a hub with azure-iothub as back ends do.
//
// Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
// for devices.
'use strict';

const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const iothub = require('azure-iothub');
const { check, checkThat, rejects, run } = require('./checks');

const owner = process.env.IOTHUB_CONNECTION_STRING;
const host = process.env.HUB_HOST;
const registry = iothub.Registry.fromConnectionString(owner);
const service = iothub.Client.fromConnectionString(owner);
const body = async (promise) => (await promise).responseBody;

async function identities() {
  const device = await body(registry.create({ deviceId: 'js-1' }));
  check('created', [device.deviceId, device.status, device.connectionState, device.authentication.type], ['js-1', 'enabled', 'Disconnected', 'sas']);
  checkThat('keys made', device.authentication.symmetricKey.primaryKey.length === 44);
  await rejects('created twice', 'DeviceAlreadyExistsError', registry.create({ deviceId: 'js-1' }));
  await rejects('get of none', 'DeviceNotFoundError', registry.get('js-none'));
  const updated = await body(registry.update({ ...device, status: 'disabled', statusReason: 'spring cleaning' }));
  check('updated', [updated.status, updated.statusReason, updated.etag !== device.etag], ['disabled', 'spring cleaning', true]);
  await registry.create({ deviceId: 'js-ids+#%$!', authentication: { type: 'certificateAuthority' } });
  check('an id with punctuation', (await body(registry.get('js-ids+#%$!'))).authentication.type, 'certificateAuthority');
  check('list', (await body(registry.list())).map((d) => d.deviceId).sort(), ['js-1', 'js-ids+#%$!']);
  const statistics = await body(registry.getRegistryStatistics());
  check('statistics', statistics, { totalDeviceCount: 2, enabledDeviceCount: 1, disabledDeviceCount: 1 });
  await registry.delete('js-1');
  await rejects('deleted', 'DeviceNotFoundError', registry.get('js-1'));
}

async function modules() {
  await registry.create({ deviceId: 'js-m' });
  await registry.addModule({ deviceId: 'js-m', moduleId: 'mod' });
  check('modules', (await body(registry.getModulesOnDevice('js-m'))).map((m) => m.moduleId), ['mod']);
  const twin = await body(registry.updateModuleTwin('js-m', 'mod', { properties: { desired: { x: 1 } } }, '*'));
  check('module twin', twin.properties.desired.x, 1);
  await registry.removeModule('js-m', 'mod');
  check('no modules', await body(registry.getModulesOnDevice('js-m')), []);
}

async function twins() {
  await registry.create({ deviceId: 'js-t' });
  let twin = await body(registry.getTwin('js-t'));
  check('new twin', [twin.version, twin.etag, twin.properties.desired.$version], [2, 'AAAAAAAAAAE=', 1]);
  twin = await body(registry.updateTwin('js-t', { tags: { site: 'A', floor: 3 } }, twin.etag));
  check('patched', [twin.tags, twin.version, twin.properties.desired.$version], [{ site: 'A', floor: 3 }, 3, 1]);
  const stale = await rejects('patched with a stale etag', 'InvalidEtagError', registry.updateTwin('js-t', { tags: { site: 'B' } }, 'AAAAAAAAAAE='));
  check('  answer', stale.response.statusCode, 412);
  twin = await body(registry.updateTwin('js-t', { tags: { floor: null } }, '*'));
  check('merged', twin.tags, { site: 'A' });
}

async function methods() {
  const device = await body(registry.create({ deviceId: 'js-method' }));
  const call = { methodName: 'm', payload: {}, responseTimeoutInSeconds: 5 };
  const offline = await rejects('method on an offline device', 'Error', service.invokeDeviceMethod('js-method', call));
  check('  answer', [offline.response.statusCode, offline.response.headers['iothub-errorcode']], [404, 'DeviceNotOnline']);

  const client = Client.fromConnectionString(`HostName=${host};DeviceId=js-method;SharedAccessKey=${device.authentication.symmetricKey.primaryKey}`, Mqtt);
  client.onDeviceMethod('m', () => {});
  await client.open();
  const began = Date.now();
  const silent = await rejects('method on a silent device', 'GatewayTimeoutError', service.invokeDeviceMethod('js-method', { ...call, connectTimeoutInSeconds: 30 }));
  check('  answer', silent.response.headers['iothub-errorcode'], 'GatewayTimeout');
  checkThat('  after the response timeout', Date.now() - began >= 5000, Date.now() - began);
  await client.close();
}

async function bulk() {
  const devices = Array.from({ length: 20 }, (_, i) => ({ deviceId: `js-bulk-${i}` }));
  check('bulk add', (await body(registry.addDevices(devices))).isSuccessful, true);
  check('bulk update', (await body(registry.updateDevices(devices.map((d) => ({ ...d, status: 'disabled' })), true))).isSuccessful, true);
  check('bulk status', (await body(registry.get('js-bulk-7'))).status, 'disabled');
  check('bulk remove', (await body(registry.removeDevices(devices, true))).isSuccessful, true);
}

async function queries() {
  for (let floor = 0; floor < 5; floor++) {
    await registry.create({ deviceId: `js-q-${floor}` });
    await registry.updateTwin(`js-q-${floor}`, { tags: { floor } }, '*');
  }
  const query = registry.createQuery('SELECT * FROM devices WHERE tags.floor >= 1', 2);
  const found = [];
  let pages = 0;
  for (; query.hasMoreResults; pages++) {
    found.push(...(await query.nextAsTwin()).result.map((twin) => twin.deviceId));
  }
  check('query in pages', [found.sort(), pages], [['js-q-1', 'js-q-2', 'js-q-3', 'js-q-4'], 2]);
  const count = registry.createQuery("SELECT COUNT() AS n FROM devices WHERE STARTSWITH(deviceId, 'js-q-')");
  check('count', (await count.next()).result, [{ n: 5 }]);
}

run(async () => {
  await identities();
  await modules();
  await twins();
  await methods();
  await bulk();
  await queries();
});
