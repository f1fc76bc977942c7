// Keeps enrollments and registrations with azure-iot-provisioning-service as back ends do.
//
// Environment: what "iotdm hub env" exports; CERTIFICATES, a folder with those of devices and of those
// who signed them.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Mqtt } = require('azure-iot-provisioning-device-mqtt');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { check, checkThat, run, soon } = require('./checks');

const { PROVISIONING_HOST: host, PROVISIONING_IDSCOPE: scope, PROVISIONING_CONNECTION_STRING: owner, CERTIFICATES: certificates } = process.env;
const service = ProvisioningServiceClient.fromConnectionString(owner);
const text = (name) => fs.readFileSync(path.join(certificates, `${name}.pem`), 'utf8');

// The two kinds, by the same names.
const kinds = {
  individual: {
    idName: 'registrationId',
    put: (e) => service.createOrUpdateIndividualEnrollment(e),
    get: (id) => service.getIndividualEnrollment(id),
    remove: (...args) => service.deleteIndividualEnrollment(...args),
    mechanism: (id) => service.getIndividualEnrollmentAttestationMechanism(id),
    query: (q, n) => service.createIndividualEnrollmentQuery({ query: q }, n),
    all: 'SELECT * FROM enrollments',
  },
  group: {
    idName: 'enrollmentGroupId',
    put: (e) => service.createOrUpdateEnrollmentGroup(e),
    get: (id) => service.getEnrollmentGroup(id),
    remove: (...args) => service.deleteEnrollmentGroup(...args),
    mechanism: (id) => service.getEnrollmentGroupAttestationMechanism(id),
    query: (q, n) => service.createEnrollmentGroupQuery({ query: q }, n),
    all: 'SELECT * FROM enrollmentGroups',
  },
};

// refused checks that the promise is rejected with this code, and returns the answer.
async function refused(what, code, promise) {
  try {
    const got = await promise;
    return checkThat(what, false, got);
  } catch (err) {
    const answer = JSON.parse(err.responseBody);
    check(`${what}: status ${err.response.statusCode}`, [err.response.statusCode, answer.errorCode], [Math.floor(code / 1000), code]);
    checkThat(`${what}: ${answer.message}`, answer.message && answer.trackingId && !Number.isNaN(Date.parse(answer.timestampUtc)), answer);
    return answer;
  }
}

// status checks the HTTP status alone, where the numbers behind it are not known.
async function status(what, want, promise) {
  try {
    const got = await promise;
    return checkThat(what, false, got);
  } catch (err) {
    check(what, err.response.statusCode, want);
    return JSON.parse(err.responseBody);
  }
}

async function lifeOf(kindName) {
  const kind = kinds[kindName];
  const id = `${kindName}-life`;
  const initialTwin = { tags: { a: 1 }, properties: { desired: { b: [2] } } };
  const created = (await kind.put({ [kind.idName]: id, attestation: { type: 'symmetricKey' }, initialTwin, capabilities: { iotEdge: true } })).responseBody;
  const { primaryKey, secondaryKey } = created.attestation.symmetricKey;
  checkThat(`${kindName}: two keys were made`, primaryKey && secondaryKey && primaryKey !== secondaryKey);
  check(`${kindName}: what was created`, [created[kind.idName], created.provisioningStatus, created.capabilities, created.initialTwin], [id, 'enabled', { iotEdge: true }, initialTwin]);
  checkThat(`${kindName}: the etag has quotes`, /^".+"$/.test(created.etag), created.etag);

  const got = (await kind.get(id)).responseBody;
  check(`${kindName}: read`, [got.etag, got.initialTwin, got.attestation.type], [created.etag, initialTwin, 'symmetricKey']);
  check(`${kindName}: keys`, (await kind.mechanism(id)).responseBody, { type: 'symmetricKey', symmetricKey: { primaryKey, secondaryKey } });

  const updated = (await kind.put({ ...got, provisioningStatus: 'disabled' })).responseBody;
  check(`${kindName}: updated`, [updated.provisioningStatus, updated.initialTwin], ['disabled', initialTwin]);
  checkThat(`${kindName}: the etag is another`, updated.etag !== created.etag);
  check(`${kindName}: keys are kept`, (await kind.mechanism(id)).responseBody.symmetricKey, { primaryKey, secondaryKey });
  await status(`${kindName}: update of what was read before`, 412, kind.put(got));
  await status(`${kindName}: creation of what is there`, 409, kind.put({ [kind.idName]: id, attestation: { type: 'symmetricKey' } }));
  await status(`${kindName}: deletion of what was read before`, 412, kind.remove(got));
  await kind.remove(id, updated.etag);
  await status(`${kindName}: gone`, 404, kind.get(id));
  await status(`${kindName}: gone, deleted`, 404, kind.remove(id));
}

async function certificatesOf() {
  const { responseBody: one } = await kinds.individual.put({
    registrationId: 'self-signed', attestation: { type: 'x509', x509: { clientCertificates: { primary: { certificate: text('self-signed') } } } },
  });
  const { info, certificate } = one.attestation.x509.clientCertificates.primary;
  check('certificate: subject', [info.subjectName, info.issuerName], ['CN=self-signed', 'CN=self-signed']);
  check('certificate: what it says', Object.keys(info).sort(), ['issuerName', 'notAfterUtc', 'notBeforeUtc', 'serialNumber', 'sha1Thumbprint', 'sha256Thumbprint', 'subjectName', 'version']);
  check('certificate: not shown', certificate, undefined);
  const { responseBody: again } = await kinds.individual.put({ ...one, provisioningStatus: 'disabled' });
  check('certificate: kept in an update without it', again.attestation.x509.clientCertificates.primary.info, info);

  const { responseBody: line } = await kinds.group.put({
    enrollmentGroupId: 'line', attestation: { type: 'x509', x509: { signingCertificates: { primary: { certificate: text('line') }, secondary: { certificate: text('factory') } } } },
  });
  check('certificate: of a group', line.attestation.x509.signingCertificates.secondary.info.subjectName, 'CN=factory');
  const { responseBody: factory } = await kinds.group.put({ enrollmentGroupId: 'factory', attestation: { type: 'x509', x509: { caReferences: { primary: 'factory' } } } });
  check('certificate: authority by its name', factory.attestation.x509.caReferences.primary, 'factory');
  for (const id of ['line', 'factory']) await kinds.group.remove(id);
  await kinds.individual.remove('self-signed');
}

async function queries() {
  for (const [kindName, kind] of Object.entries(kinds)) {
    const ids = [1, 2, 3, 4, 5].map((n) => `${kindName}-${n}`);
    for (const id of ids) await kind.put({ [kind.idName]: id, attestation: { type: 'symmetricKey' } });
    for (const text of ['*', kind.all]) {
      const query = kind.query(text, 2);
      const pages = [];
      do { // without an argument the SDK's promise begins again
        const { responseBody, httpResponse } = await query.next(query.continuationToken);
        check(`${kindName}: item type`, httpResponse.headers['x-ms-item-type'], kindName === 'group' ? 'enrollmentGroup' : 'enrollment');
        pages.push(responseBody.map((e) => e[kind.idName]));
      } while (query.hasMoreResults);
      check(`${kindName}: pages of ${text}`, pages, [ids.slice(0, 2), ids.slice(2, 4), ids.slice(4)]);
    }
    for (const id of ids) await kind.remove(id);
  }
}

// The SDK's promise never settles, hence the callback.
function bulk(mode, enrollments) {
  return soon(`bulk ${mode}`, new Promise((resolve, reject) => {
    service.runBulkEnrollmentOperation({ mode, enrollments }, (err, result) => (err ? reject(err) : resolve(result)));
  }));
}

async function bulks() {
  const list = ['bulk-1', 'bulk-2'].map((registrationId) => ({ registrationId, attestation: { type: 'symmetricKey' } }));
  check('bulk: create', (await bulk('create', list)).isSuccessful, true);
  const result = await bulk('create', [...list.slice(1), { registrationId: 'bulk-3', attestation: { type: 'symmetricKey' } }]);
  check('bulk: create what is there', [result.isSuccessful, result.errors.map((e) => [e.registrationId, Math.floor(e.errorCode / 1000)])], [false, [['bulk-2', 409]]]);
  const disabled = [];
  for (const { registrationId } of list) disabled.push({ ...(await kinds.individual.get(registrationId)).responseBody, provisioningStatus: 'disabled' });
  check('bulk: update', (await bulk('update', disabled)).isSuccessful, true);
  check('bulk: updated', (await kinds.individual.get('bulk-1')).responseBody.provisioningStatus, 'disabled');
  const stale = await bulk('updateIfMatchETag', disabled);
  check('bulk: update what was read before', [stale.isSuccessful, stale.errors.map((e) => Math.floor(e.errorCode / 1000))], [false, [412, 412]]);
  check('bulk: delete', (await bulk('delete', [...list, { registrationId: 'bulk-3', attestation: { type: 'symmetricKey' } }])).isSuccessful, true);
  await status('bulk: deleted', 404, kinds.individual.get('bulk-1'));
}

async function registrations() {
  const { attestation } = (await kinds.individual.put({ registrationId: 'seen', deviceId: 'seen-device', attestation: { type: 'symmetricKey' } })).responseBody;
  const client = ProvisioningDeviceClient.create(host, scope, new Mqtt(), new SymmetricKeySecurityClient('seen', attestation.symmetricKey.primaryKey));
  await soon('registration', client.register());
  const state = (await service.getDeviceRegistrationState('seen')).responseBody;
  check('registration', [state.registrationId, state.status, state.assignedHub, state.deviceId, state.substatus], ['seen', 'assigned', host, 'seen-device', 'initialAssignment']);
  check('registration with its enrollment', (await kinds.individual.get('seen')).responseBody.registrationState.deviceId, 'seen-device');
  await status('registration: deletion of another', 412, service.deleteDeviceRegistrationState('seen', '"other"'));
  await service.deleteDeviceRegistrationState(state);
  await refused('registration: gone', 404201, service.getDeviceRegistrationState('seen'));

  await kinds.group.put({ enrollmentGroupId: 'empty', attestation: { type: 'symmetricKey' } });
  const query = service.createEnrollmentGroupDeviceRegistrationStateQuery({ query: '*' }, 'empty');
  const { responseBody, httpResponse } = await query.next();
  check('registrations of a group', [responseBody, query.hasMoreResults, httpResponse.headers['x-ms-item-type']], [[], false, 'deviceRegistration']);
}

async function refusals() {
  const symmetric = { type: 'symmetricKey' };
  await status('bad id', 400, kinds.individual.put({ registrationId: 'a b', attestation: symmetric }));
  await status('no attestation', 400, kinds.individual.put({ registrationId: 'x' }));
  await status('bad certificate', 400, kinds.individual.put({ registrationId: 'x', attestation: { type: 'x509', x509: { clientCertificates: { primary: { certificate: 'nonsense' } } } } }));
  const tpm = await status('TPM', 400, kinds.individual.put({ registrationId: 'x', attestation: { type: 'tpm', tpm: { endorsementKey: 'AAAA' } } }));
  checkThat(`TPM is named: ${tpm.message}`, /TPM/.test(tpm.message));
  const stranger = ProvisioningServiceClient.fromConnectionString(owner.replace(/SharedAccessKey=.*/, `SharedAccessKey=${Buffer.from('wrong').toString('base64')}`));
  await refused('wrong key', 401002, stranger.getIndividualEnrollment('x'));
  const hub = ProvisioningServiceClient.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
  await refused('policy of the hub', 401002, hub.getIndividualEnrollment('x'));
}

run(async () => {
  for (const kindName of Object.keys(kinds)) await lifeOf(kindName);
  await certificatesOf();
  await queries();
  await bulks();
  await registrations();
  await refusals();
});
