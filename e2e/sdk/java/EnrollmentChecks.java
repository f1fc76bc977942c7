import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientTransportProtocol;
import com.microsoft.azure.sdk.iot.provisioning.service.ProvisioningServiceClient;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.AttestationMechanismType;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.BulkOperationMode;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.EnrollmentGroup;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.EnrollmentStatus;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.IndividualEnrollment;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.ProvisioningStatus;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QueryResultType;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecificationBuilder;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.SymmetricKeyAttestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.X509Attestation;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientNotFoundException;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientPreconditionFailedException;
import com.microsoft.azure.sdk.iot.provisioning.service.exceptions.ProvisioningServiceClientUnathorizedException;
import java.util.ArrayList;
import java.util.List;

/**
 * Keeps enrollments and registrations with provisioning-service-client as back ends do. The
 * environment is that of ProvisioningChecks; the hub has no enrollments.
 */
final class EnrollmentChecks {
    static final ProvisioningServiceClient service = ProvisioningChecks.service;

    public static void main(String[] args) {
        Checks.main(() -> {
            queries();
            enrollments();
            bulk();
            registrations();
        });
    }

    static void enrollments() throws Exception {
        var enrollment = new IndividualEnrollment("life", new SymmetricKeyAttestation(null, null));
        enrollment.setInitialTwin(ProvisioningChecks.twinWith(6));
        var created = service.createOrUpdateIndividualEnrollment(enrollment);
        var got = service.getIndividualEnrollment("life");
        Checks.check("enrollment", List.of(got.getEtag(), got.getProvisioningStatus(), got.getInitialTwin().getTags().get("line")), List.of(created.getEtag(), ProvisioningStatus.ENABLED, 6.0));
        Checks.check("enrollment: times", got.getCreatedDateTimeUtc(), created.getCreatedDateTimeUtc());
        var keys = (SymmetricKeyAttestation) service.getIndividualEnrollmentAttestationMechanism("life").getAttestation();
        Checks.check("enrollment: keys", keys.getPrimaryKey(), ((SymmetricKeyAttestation) created.getAttestation()).getPrimaryKey());
        created.setProvisioningStatus(ProvisioningStatus.DISABLED);
        var updated = service.createOrUpdateIndividualEnrollment(created);
        Checks.check("enrollment: updated", updated.getProvisioningStatus(), ProvisioningStatus.DISABLED);
        got.setDeviceId("another");
        Checks.fails("enrollment: update of what was read before", ProvisioningServiceClientPreconditionFailedException.class, () -> service.createOrUpdateIndividualEnrollment(got));
        service.deleteIndividualEnrollment(updated);
        Checks.fails("enrollment: gone", ProvisioningServiceClientNotFoundException.class, () -> service.getIndividualEnrollment("life"));

        var group = service.createOrUpdateEnrollmentGroup(new EnrollmentGroup("certified", X509Attestation.createFromRootCertificates(ProvisioningChecks.pem("line"))));
        Checks.check("group: certificate", ((X509Attestation) group.getAttestation()).getPrimaryX509CertificateInfo().getSubjectName(), "CN=line");
        group.setProvisioningStatus(ProvisioningStatus.DISABLED);
        group = service.createOrUpdateEnrollmentGroup(group);
        Checks.check("group: certificate kept", ((X509Attestation) group.getAttestation()).getPrimaryX509CertificateInfo().getSubjectName(), "CN=line");
        Checks.check("group: attestation", service.getEnrollmentGroupAttestationMechanism("certified").getType(), AttestationMechanismType.X509);
        service.deleteEnrollmentGroup("certified");
        Checks.fails("group: gone", ProvisioningServiceClientNotFoundException.class, () -> service.getEnrollmentGroup("certified"));

        var stranger = new ProvisioningServiceClient(ProvisioningChecks.OWNER.replaceAll("SharedAccessKey=.*", "SharedAccessKey=AAAA"));
        Checks.fails("wrong key of the policy", ProvisioningServiceClientUnathorizedException.class, () -> stranger.getIndividualEnrollment("life"));
    }

    static void bulk() throws Exception {
        var list = List.of(new IndividualEnrollment("bulk-1", new SymmetricKeyAttestation(null, null)), new IndividualEnrollment("bulk-2", new SymmetricKeyAttestation(null, null)));
        Checks.check("bulk: create", service.runBulkEnrollmentOperation(BulkOperationMode.CREATE, list).getSuccessful(), true);
        var again = service.runBulkEnrollmentOperation(BulkOperationMode.CREATE, list);
        Checks.check("bulk: create what is there", List.of(again.getSuccessful(), again.getErrors().size(), again.getErrors().get(0).getRegistrationId()), List.of(false, 2, "bulk-1"));
        Checks.check("bulk: delete", service.runBulkEnrollmentOperation(BulkOperationMode.DELETE, list).getSuccessful(), true);
    }

    static void queries() throws Exception {
        for (int n = 1; n <= 5; n++) {
            service.createOrUpdateIndividualEnrollment(new IndividualEnrollment("query-" + n, new SymmetricKeyAttestation(null, null)));
        }
        var all = new QuerySpecificationBuilder("*", QuerySpecificationBuilder.FromType.ENROLLMENTS).createSqlQuery();
        List<String> ids = new ArrayList<>();
        for (var query = service.createIndividualEnrollmentQuery(all, 2); query.hasNext(); ) {
            var page = query.next();
            Checks.check("query: type", page.getType(), QueryResultType.ENROLLMENT);
            for (var item : page.getItems()) {
                ids.add(((IndividualEnrollment) item).getRegistrationId());
            }
        }
        Checks.check("query: pages", ids, List.of("query-1", "query-2", "query-3", "query-4", "query-5"));
    }

    static void registrations() throws Exception {
        var enrollment = service.createOrUpdateIndividualEnrollment(new IndividualEnrollment("seen", new SymmetricKeyAttestation(null, null)));
        String key = ((SymmetricKeyAttestation) enrollment.getAttestation()).getPrimaryKey();
        ProvisioningChecks.register(ProvisioningDeviceClientTransportProtocol.HTTPS, new ProvisioningChecks.Credential("seen", key));
        var state = service.getDeviceRegistrationState("seen");
        Checks.check("registration", List.of(state.getStatus(), state.getAssignedHub(), state.getDeviceId()), List.of(EnrollmentStatus.ASSIGNED, ProvisioningChecks.HOST, "seen"));
        Checks.check("registration with its enrollment", service.getIndividualEnrollment("seen").getDeviceRegistrationState().getDeviceId(), "seen");
        service.deleteDeviceRegistrationState(state);
        Checks.fails("registration: gone", ProvisioningServiceClientNotFoundException.class, () -> service.getDeviceRegistrationState("seen"));
    }
}
