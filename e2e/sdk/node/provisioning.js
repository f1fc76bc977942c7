// Provisions devices with azure-iot-provisioning-device over every transport, and has them work with
// the hub that they were assigned to.
//
// With the argument "assigning" the service takes its time. Environment: what "iotdm hub env" exports;
// IOTHUB_CONNECTION_STRING of a policy that may do everything; CERTIFICATES, a folder with those of the
// devices below and of those who signed them.
'use strict';

const { createHmac } = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { Client, Message } = require('azure-iot-device');
const { Mqtt: DeviceMqtt } = require('azure-iot-device-mqtt');
const iothub = require('azure-iothub');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Amqp, AmqpWs } = require('azure-iot-provisioning-device-amqp');
const { Http } = require('azure-iot-provisioning-device-http');
const { Mqtt, MqttWs } = require('azure-iot-provisioning-device-mqtt');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const { Inbox, check, checkThat, rejects, run, soon } = require('./checks');

const { PROVISIONING_HOST: host, PROVISIONING_IDSCOPE: scope, PROVISIONING_CONNECTION_STRING: owner, CERTIFICATES: certificates } = process.env;
const registry = iothub.Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const service = ProvisioningServiceClient.fromConnectionString(owner);

const sign = (key, text) => createHmac('sha256', Buffer.from(key, 'base64')).update(text).digest('base64');
const text = (name, suffix) => fs.readFileSync(path.join(certificates, name + suffix), 'utf8');
const certificate = (name) => ({ cert: text(name, '.pem'), key: text(name, '.key') });
const twinWith = (number) => ({ tags: { line: number }, properties: { desired: { interval: number } } });

async function enroll(registrationId, attestation, members) {
  return (await service.createOrUpdateIndividualEnrollment({ registrationId, attestation, ...members })).responseBody;
}

async function enrollGroup(enrollmentGroupId, attestation, members) {
  return (await service.createOrUpdateEnrollmentGroup({ enrollmentGroupId, attestation, ...members })).responseBody;
}

// register resolves to the registration's state; credential is a key, or a certificate with its key.
async function register(Transport, registrationId, credential, { payload, idScope = scope } = {}) {
  const security = credential.cert ? new X509Security(registrationId, credential) : new SymmetricKeySecurityClient(registrationId, credential);
  const client = ProvisioningDeviceClient.create(host, idScope, new Transport(), security);
  if (payload) client.setProvisioningPayload(payload);
  return soon(`registration of ${registrationId}`, client.register());
}

// works checks that the device can use its hub, and finds its twin there.
async function works(what, state, credential, desired) {
  const { assignedHub, deviceId } = state;
  const connectionString = `HostName=${assignedHub};DeviceId=${deviceId};${credential.cert ? 'x509=true' : `SharedAccessKey=${credential}`}`;
  const client = Client.fromConnectionString(connectionString, DeviceMqtt);
  if (credential.cert) await client.setOptions(credential);
  await client.open();
  const { $version, ...got } = (await client.getTwin()).properties.desired;
  delete got.update; // a method of the SDK
  check(`${what}: twin`, got, desired);
  await client.sendEvent(new Message('hello'));
  console.log(`ok ${what}: telemetry acknowledged`);
  await client.close();
}

function assigned(what, state, deviceId, substatus = 'initialAssignment') {
  const { status, assignedHub, substatus: got } = state;
  check(`${what}: assigned`, [status, assignedHub, state.deviceId, got], ['assigned', host, deviceId, substatus]);
}

async function individual(Transport) {
  const registrationId = `${Transport.name}-one`;
  const deviceId = `${Transport.name}-device`;
  const { primaryKey, secondaryKey } = (await enroll(registrationId, { type: 'symmetricKey' }, { deviceId, initialTwin: twinWith(1) })).attestation.symmetricKey;
  const state = await register(Transport, registrationId, primaryKey);
  assigned(`${Transport.name}: primary key`, state, deviceId);
  await works(`${Transport.name}: primary key`, state, primaryKey, { interval: 1 });
  await works(`${Transport.name}: secondary key`, await register(Transport, registrationId, secondaryKey), secondaryKey, { interval: 1 });
  const { authentication } = (await registry.get(deviceId)).responseBody;
  check(`${Transport.name}: identity`, [authentication.type, authentication.symmetricKey], ['sas', { primaryKey, secondaryKey }]);
  check(`${Transport.name}: tags`, (await registry.getTwin(deviceId)).responseBody.tags, { line: 1 });
}

async function group(Transport) {
  const groupId = `${Transport.name}-fleet`;
  const { primaryKey, secondaryKey } = (await enrollGroup(groupId, { type: 'symmetricKey' }, { initialTwin: twinWith(2) })).attestation.symmetricKey;
  for (const [name, groupKey] of Object.entries({ 'Primary-Key': primaryKey, 'Secondary-Key': secondaryKey })) {
    const registrationId = `${Transport.name}-${name}`;
    const key = sign(groupKey, registrationId);
    const state = await register(Transport, registrationId, key);
    assigned(`${Transport.name}: key of a group, ${name}`, state, registrationId);
    await works(`${Transport.name}: key of a group, ${name}`, state, key, { interval: 2 });
  }
}

async function certified(Transport) {
  await enroll('self-signed', { type: 'x509', x509: { clientCertificates: { primary: { certificate: text('self-signed', '.pem') } } } },
    { deviceId: `${Transport.name}-self-signed`, initialTwin: twinWith(3) });
  const state = await register(Transport, 'self-signed', certificate('self-signed'));
  check(`${Transport.name}: certificate`, [state.status, state.deviceId], ['assigned', `${Transport.name}-self-signed`]);
  await works(`${Transport.name}: certificate`, state, certificate('self-signed'), { interval: 3 });
  check(`${Transport.name}: certificate: identity`, (await registry.get(state.deviceId)).responseBody.authentication.type, 'selfSigned');

  await enrollGroup('line', { type: 'x509', x509: { signingCertificates: { primary: { certificate: Buffer.from(text('line', '.pem')).toString('base64') } } } },
    { initialTwin: twinWith(4) });
  await enrollGroup('factory', { type: 'x509', x509: { caReferences: { primary: 'factory' } } }, { initialTwin: twinWith(5) });
  for (const [name, interval] of [['of-line', 4], ['of-factory', 5]]) {
    const member = await register(Transport, name, certificate(name));
    check(`${Transport.name}: certificate ${name}`, [member.status, member.deviceId], ['assigned', name]);
    await works(`${Transport.name}: certificate ${name}`, member, certificate(name), { interval });
  }
  await service.deleteIndividualEnrollment('self-signed');
  for (const id of ['line', 'factory']) await service.deleteEnrollmentGroup(id);
}

async function refusals(Transport) {
  const refused = async (what, kinds, registrationId, credential, more) => {
    let got;
    try {
      got = await register(Transport, registrationId, credential, more);
    } catch (err) {
      // Each transport has errors of its own for what the service said; of a SASL outcome AMQP's tells nothing.
      const kind = err.condition || (err.code === 5 && 'CONNACK 5') || (err.response?.statusCode && `HTTP ${err.response.statusCode}`) || err.constructor.name;
      checkThat(`${Transport.name}: ${what}: ${kind}`, kinds.includes(kind), err);
      return err;
    }
    return checkThat(`${Transport.name}: ${what}`, false, got);
  };
  const unauthorized = ['CONNACK 5', 'HTTP 401', 'amqp:unauthorized-access', 'NotConnectedError'];
  const notFound = [...unauthorized, 'HTTP 404', 'amqp:not-found'];

  const enrollment = await enroll('refused', { type: 'symmetricKey' });
  const key = enrollment.attestation.symmetricKey.primaryKey;
  await refused('wrong key', unauthorized, 'refused', sign(key, 'wrong'));
  await refused('unknown registration id', notFound, 'nobody', key);
  await refused('unknown id scope', notFound, 'refused', key, { idScope: '0neFFFFFFFF' });
  await refused('certificate instead of a key', unauthorized, 'refused', certificate('stranger'));
  await refused('certificate that nobody knows', notFound, 'stranger', certificate('stranger'));
  await refused('common name that is not the registration id', notFound, 'other', certificate('of-line'));
  const { responseBody: devices } = await registry.list();
  check(`${Transport.name}: nobody of them has an identity`, devices.filter((d) => ['refused', 'nobody', 'stranger', 'other'].includes(d.deviceId)), []);

  await service.createOrUpdateIndividualEnrollment({ ...enrollment, provisioningStatus: 'disabled' });
  const err = await refused('disabled enrollment', ['HTTP 200', 'SyntaxError'], 'refused', key);
  check(`${Transport.name}: status of a disabled enrollment`, err.result.status, 'disabled');
  await service.deleteIndividualEnrollment('refused');
  await refused('deleted enrollment', notFound, 'refused', key);
}

async function reprovisioning(Transport) {
  const registrationId = `${Transport.name}-again`;
  const policy = { updateHubAssignment: true, migrateDeviceData: true };
  const enrollment = await enroll(registrationId, { type: 'symmetricKey' }, { initialTwin: twinWith(6), reprovisionPolicy: policy });
  const key = enrollment.attestation.symmetricKey.primaryKey;
  assigned(`${Transport.name}: the first time`, await register(Transport, registrationId, key), registrationId);
  await registry.updateTwin(registrationId, { properties: { desired: { more: true } } }, '*');
  await works(`${Transport.name}: again`, await register(Transport, registrationId, key), key, { interval: 6, more: true });

  await service.createOrUpdateIndividualEnrollment({ ...enrollment, reprovisionPolicy: { ...policy, migrateDeviceData: false } });
  const state = await register(Transport, registrationId, key);
  assigned(`${Transport.name}: reset`, state, registrationId, 'deviceDataReset');
  await works(`${Transport.name}: reset`, state, key, { interval: 6 });

  await registry.delete(registrationId);
  await works(`${Transport.name}: after the device was deleted`, await register(Transport, registrationId, key), key, { interval: 6 });
}

async function customAllocation(Transport) {
  const asked = new Inbox();
  const server = http.createServer(async (request, response) => {
    const question = JSON.parse((await request.toArray()).join(''));
    asked.put(question);
    response.end(JSON.stringify({ iotHubHostName: question.linkedHubs[0], initialTwin: twinWith(7), payload: { hello: ['device'] } }));
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const registrationId = `${Transport.name}-custom`;
  const customAllocationDefinition = { webhookUrl: `http://127.0.0.1:${server.address().port}/`, apiVersion: '2019-03-31' };
  const { attestation } = await enroll(registrationId, { type: 'symmetricKey' }, { allocationPolicy: 'custom', customAllocationDefinition });
  const key = attestation.symmetricKey.primaryKey;
  const state = await register(Transport, registrationId, key, { payload: { model: 'x' } });
  const { deviceRuntimeContext } = await asked.next('question to the webhook');
  check(`${Transport.name}: what the webhook is asked`, [deviceRuntimeContext.registrationId, deviceRuntimeContext.payload], [registrationId, { model: 'x' }]);
  check(`${Transport.name}: the webhook's payload`, state.payload, { hello: ['device'] });
  await works(`${Transport.name}: the webhook's twin`, state, key, { interval: 7 });

  await new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); });
  const err = await rejects(`${Transport.name}: webhook that is gone`, 'DeviceRegistrationFailedError', register(Transport, registrationId, key));
  check(`${Transport.name}: why it failed`, err.result.registrationState.errorCode, 400207);
}

async function assigning(Transport) {
  const registrationId = `${Transport.name}-later`;
  const key = (await enroll(registrationId, { type: 'symmetricKey' })).attestation.symmetricKey.primaryKey;
  const began = Date.now();
  const state = await register(Transport, registrationId, key);
  assigned(`${Transport.name}: after assigning`, state, registrationId);
  checkThat(`${Transport.name}: it took its time`, Date.now() - began >= 1000);
  await works(`${Transport.name}: after assigning`, state, key, {});
}

run(async () => {
  const transports = [Mqtt, MqttWs, Http, Amqp, AmqpWs];
  if (process.argv[2] === 'assigning') {
    await Promise.all(transports.map(assigning));
    return;
  }
  for (const Transport of transports) {
    for (const part of [individual, group, certified, reprovisioning, customAllocation, refusals]) await part(Transport);
  }
});
