'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { beforeEach, afterEach, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { Client, Registry } = require('azure-iothub');
const { BackEnd } = require('./backend');
const { Thermostat } = require('./thermostat');

const host = process.env.HUB_HOST || 'localhost';
const ownerKey = 'aW90ZG0tdGVzdC1vd25lci1rZXktbm90LXNlY3JldCE='; // both are in seed.yaml
const deviceKey = 'aW90ZG0tdGVzdC1kZXZpY2Uta2V5LW5vLXNlY3JldCE=';
const hub = `HostName=${host};SharedAccessKeyName=iothubowner;SharedAccessKey=${ownerKey}`;
const events = `Endpoint=sb://${host}/;SharedAccessKeyName=iothubowner;SharedAccessKey=${ownerKey};EntityPath=iothub-ehub-iotdm`;
const device = `HostName=${host};DeviceId=thermostat-1;SharedAccessKey=${deviceKey}`;

const service = Client.fromConnectionString(hub);
const registry = Registry.fromConnectionString(hub);
let thermostat;

beforeEach(async () => {
  await control('POST', 'reset'); // each test begins with a hub as the seed describes it
  thermostat = new Thermostat();
  await thermostat.open(device);
});

afterEach(() => thermostat?.close());

// Tells the hub under test what to do; see docs/TEST-CONTROLS.md.
async function control(method, path, body) {
  const response = await fetch(`https://${host}/iotdm/control/${path}`, {
    method,
    headers: { Authorization: `Basic ${btoa(`iothubowner:${ownerKey}`)}` },
    body: body && JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response;
}

async function until(condition) {
  const end = Date.now() + 10_000;
  while (!(await condition())) {
    assert.ok(Date.now() < end, 'it did not happen in time');
    await sleep(50);
  }
}

async function reportedTarget() {
  const { responseBody: twin } = await registry.getTwin('thermostat-1');
  return twin.properties.reported.target;
}

test('a direct method sets the target', async () => {
  const { result } = await service.invokeDeviceMethod('thermostat-1', { methodName: 'setTarget', payload: { target: 21 } });
  assert.equal(result.status, 200);
  assert.equal(await reportedTarget(), 21);
});

test('a desired property sets the target', async () => {
  await registry.updateTwin('thermostat-1', { properties: { desired: { target: 22 } } }, '*');
  await until(async () => (await reportedTarget()) === 22);
});

test('the back end warns a thermostat that is too hot', async () => {
  const backEnd = new BackEnd(hub, events, 30);
  const warned = once(thermostat, 'warning', { signal: AbortSignal.timeout(10_000) });
  await thermostat.measure(25);
  await thermostat.measure(31.5);
  assert.deepEqual(await warned, ['31.5 is too hot']);
  await backEnd.close();
});
