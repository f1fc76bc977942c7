// Schedules jobs with azure-iothub, and has azure-iot-device answer them.
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
const jobs = iothub.JobClient.fromConnectionString(owner);
const body = async (promise) => (await promise).responseBody;
const jobOf = async (promise) => (await promise).jobStatus;

async function ended(jobId) {
  for (const deadline = Date.now() + 30_000; ;) {
    const job = await jobOf(jobs.getJob(jobId));
    if (['completed', 'failed', 'cancelled'].includes(job.status)) return job;
    checkThat(`${jobId} ends`, Date.now() < deadline, job.status);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

// rows returns what came of a job on each device.
async function rows(jobId) {
  const query = registry.createQuery(`SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '${jobId}'`);
  const found = {};
  while (query.hasMoreResults) for (const row of (await query.next()).result) found[row.deviceId] = row;
  return found;
}

run(async () => {
  const device = await body(registry.create({ deviceId: 'js-live' }));
  await registry.create({ deviceId: 'js-offline' });
  const client = Client.fromConnectionString(`HostName=${host};DeviceId=js-live;SharedAccessKey=${device.authentication.symmetricKey.primaryKey}`, Mqtt);
  await client.open();
  client.onDeviceMethod('reboot', (request, response) => response.send(200, { got: request.payload }, () => {}));

  // The handler's subscription is under way: the job waits for it, but not for the other device.
  const method = { methodName: 'reboot', payload: { delay: 5 }, responseTimeoutInSeconds: 30, connectTimeoutInSeconds: 30 };
  const created = await jobOf(jobs.scheduleDeviceMethod('js-method', "deviceId = 'js-live'", method, new Date(), 60));
  check('created', [created.jobId, created.type, created.status], ['js-method', 'scheduleDeviceMethod', 'queued']);
  await rejects('created twice', 'DeviceAlreadyExistsError', jobs.scheduleDeviceMethod('js-method', '*', method, new Date(), 60));
  let job = await ended('js-method');
  check('method job', [job.status, job.deviceJobStatistics], ['completed', { deviceCount: 1, failedCount: 0, succeededCount: 1, runningCount: 0, pendingCount: 0 }]);
  check('its outcome', (await rows('js-method'))['js-live'].outcome, { deviceMethodResponse: { status: 200, payload: { got: { delay: 5 } } } });
  await jobs.scheduleDeviceMethod('js-offline', "deviceId = 'js-offline'", { ...method, connectTimeoutInSeconds: 0 }, new Date(), 60);
  job = await ended('js-offline');
  check('method job of an offline device', [job.status, job.deviceJobStatistics.failedCount], ['completed', 1]);
  check('its failure', (await rows('js-offline'))['js-offline'].error.code, 'DeviceNotOnline');

  const patch = { etag: '*', tags: { ring: '2' }, properties: { desired: { rate: 10 } } };
  await jobs.scheduleTwinUpdate('js-twin', "deviceId IN ['js-live', 'js-offline']", patch, new Date(), 60);
  job = await ended('js-twin');
  check('twin job', [job.status, job.deviceJobStatistics.succeededCount, job.updateTwin.etag], ['completed', 2, '*']);
  const twin = await body(registry.getTwin('js-offline'));
  check('its twin', [twin.tags, twin.properties.desired.rate], [{ ring: '2' }, 10]);

  const later = await jobOf(jobs.scheduleTwinUpdate('js-later', '*', patch, new Date(Date.now() + 3_600_000), 60));
  check('a job for later', [later.status, (await jobOf(jobs.getJob('js-later'))).status], ['queued', 'scheduled']);
  check('cancelled', (await jobOf(jobs.cancelJob('js-later'))).status, 'cancelled');
  const none = await rejects('get of none', 'Error', jobs.getJob('js-none'));
  check('  answer', [none.response.statusCode, none.response.headers['iothub-errorcode']], [404, 'JobNotFound']);

  const query = jobs.createQuery('scheduleUpdateTwin', 'completed');
  const { result } = await query.next();
  check('list', [result.map((j) => j.jobId), query.hasMoreResults], [['js-twin'], false]);
  await client.close();
});
