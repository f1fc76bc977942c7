// Configures devices with azure-iothub, and has azure-iot-device see it.
//
// Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name
// for devices.
'use strict';

const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const iothub = require('azure-iothub');
const { Inbox, check, rejects, run, soon } = require('./checks');

const owner = process.env.IOTHUB_CONNECTION_STRING;
const host = process.env.HUB_HOST;
const registry = iothub.Registry.fromConnectionString(owner);
const body = async (promise) => (await promise).responseBody;
const answer = (err) => [err.response.statusCode, err.response.headers['iothub-errorcode']];

// eventually checks that call soon resolves to what is wanted.
async function eventually(what, call, want) {
  let got = await call();
  for (const deadline = Date.now() + 30_000; JSON.stringify(got) !== JSON.stringify(want) && Date.now() < deadline; got = await call()) {
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  check(what, got, want);
}

async function devices() {
  const device = await body(registry.create({ deviceId: 'js-live' }));
  const client = Client.fromConnectionString(`HostName=${host};DeviceId=js-live;SharedAccessKey=${device.authentication.symmetricKey.primaryKey}`, Mqtt);
  await client.open();
  const twin = await client.getTwin();
  const patches = new Inbox();
  twin.on('properties.desired', (delta) => patches.put(JSON.parse(JSON.stringify(delta))));
  check('the SDK begins with what there is', await patches.next('the twin'), { $version: 1 });

  const wanted = {
    id: 'js-chiller', labels: { for: 'test' }, priority: 10, targetCondition: "tags.environment='test'",
    content: { deviceContent: { 'properties.desired.chiller': { temperature: 38 } } },
    metrics: { queries: { waiting: "SELECT deviceId FROM devices WHERE configurations.[[js-chiller]].status='Applied' AND NOT IS_DEFINED(properties.reported.chiller)" } },
  };
  const created = await body(registry.addConfiguration(wanted));
  check('created', [created.id, created.etag, created.schemaVersion, created.labels], ['js-chiller', 'MQ==', '1.0', { for: 'test' }]);
  check('  answer to a second one', answer(await rejects('created twice', 'DeviceAlreadyExistsError', registry.addConfiguration(wanted))), [409, 'ConfigurationAlreadyExists']);
  check('  answer to a bad condition', answer(await rejects('a bad condition', 'ArgumentError', registry.addConfiguration({ ...wanted, id: 'js-bad', targetCondition: 'tags.a =' }))), [400, 'InvalidConfigurationTargetCondition']);

  await registry.updateTwin('js-live', { tags: { environment: 'test' } }, '*');
  check('the device hears of it', await patches.next('the patch'), { chiller: { temperature: 38 }, $version: 2 });
  const seen = await body(registry.getTwin('js-live'));
  check('the twin shows it', seen.configurations, { 'js-chiller': { status: 'Applied' } });
  check('its writer in the metadata', seen.properties.desired.$metadata.chiller.temperature.$lastUpdatedBy, 'js-chiller');
  let got = await body(registry.getConfiguration('js-chiller'));
  check('metrics', [got.systemMetrics.results, got.metrics.results], [{ appliedCount: 1, targetedCount: 1 }, { waiting: 1 }]);
  await soon('a report', new Promise((resolve, reject) => { twin.properties.reported.update({ chiller: { temperature: 38 } }, (err) => (err ? reject(err) : resolve())); }));
  got = await body(registry.getConfiguration('js-chiller'));
  check('metrics after a report', got.metrics.results, { waiting: 0 });
  check('list', (await body(registry.getConfigurations())).map((c) => c.id), ['js-chiller']);

  got.targetCondition = "tags.environment='none'";
  const updated = await body(registry.updateConfiguration(got));
  check('updated', [updated.etag, updated.targetCondition], ['Mg==', "tags.environment='none'"]);
  check('the device hears of its end', await patches.next('the patch'), { chiller: null, $version: 3 });
  check('  answer to a stale etag', answer(await rejects('updated with a stale etag', 'InvalidEtagError', registry.updateConfiguration(got))), [412, 'PreconditionFailed']);
  check('updated by force', (await body(registry.updateConfiguration(got, true))).etag, 'Mw==');
  await registry.removeConfiguration('js-chiller');
  check('  answer to a get', answer(await rejects('removed', 'Error', registry.getConfiguration('js-chiller'))), [404, 'ConfigurationNotFound']);
  await client.close();
}

async function edge() {
  await registry.create({ deviceId: 'js-edge', capabilities: { iotEdge: true } });
  const modules = async () => (await body(registry.getModulesOnDevice('js-edge'))).map((m) => m.moduleId);
  const agent = (...names) => ({ 'properties.desired': { schemaVersion: '1.1', modules: Object.fromEntries(names.map((name) => [name, { type: 'docker' }])) } });
  const manifest = { modulesContent: { $edgeAgent: agent('filter'), $edgeHub: { 'properties.desired': { routes: {} } }, filter: { 'properties.desired': { level: 1 } } } };
  await registry.applyConfigurationContentOnDevice('js-edge', manifest);
  check('content for one edge device', await modules(), ['$edgeAgent', '$edgeHub', 'filter']);
  check('  its module twin', (await body(registry.getModuleTwin('js-edge', 'filter'))).properties.desired.level, 1);
  check('  answer', answer(await rejects('content for a device that is not edge', 'ArgumentError', registry.applyConfigurationContentOnDevice('js-live', manifest))), [400, 'InvalidConfigurationContent']);
  await registry.addConfiguration({ id: 'js-base', priority: 5, targetCondition: '*', content: { modulesContent: { $edgeAgent: agent('camera'), $edgeHub: { 'properties.desired': { routes: {} } } } } });
  await registry.addConfiguration({ id: 'js-layer', priority: 6, targetCondition: "deviceId = 'js-edge'", content: { modulesContent: { $edgeAgent: { 'properties.desired.modules.audio': { type: 'docker' } } } } });
  await eventually('modules of deployments', modules, ['$edgeAgent', '$edgeHub', 'audio', 'camera']);
  check('its statuses', (await body(registry.getModuleTwin('js-edge', '$edgeAgent'))).configurations, { 'js-base': { status: 'Applied' }, 'js-layer': { status: 'Applied' } });
  check('its metrics', (await body(registry.getConfiguration('js-base'))).systemMetrics.results, { appliedCount: 1, reportedFailedCount: 0, reportedSuccessfulCount: 0, targetedCount: 1 });
}

run(async () => {
  await devices();
  await edge();
});
