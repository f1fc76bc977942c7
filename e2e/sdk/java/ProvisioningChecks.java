import com.google.gson.JsonElement;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.provisioning.device.AdditionalData;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClient;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientRegistrationResult;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientStatus;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientSubstatus;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientTransportProtocol;
import com.microsoft.azure.sdk.iot.provisioning.device.internal.exceptions.ProvisioningDeviceClientException;
import com.microsoft.azure.sdk.iot.provisioning.device.internal.exceptions.ProvisioningDeviceHubException;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProvider;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderSymmetricKey;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderX509;
import com.microsoft.azure.sdk.iot.provisioning.service.ProvisioningServiceClient;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.AllocationPolicy;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.CustomAllocationDefinition;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.EnrollmentGroup;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.IndividualEnrollment;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.ProvisioningStatus;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecificationBuilder;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.SymmetricKeyAttestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.TwinCollection;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.TwinState;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.X509Attestation;
import com.microsoft.azure.sdk.iot.service.auth.AuthenticationType;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Key;
import java.security.KeyFactory;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * Provisions devices with provisioning-device-client over every protocol, and has them work with
 * the hub that they were assigned to.
 *
 * <p>The arguments are the protocols, or "assigning" where the service takes its time. Environment: what "iotdm hub env"
 * exports; IOTHUB_CONNECTION_STRING of a policy that may do everything; CERTIFICATES, a folder with
 * those of the devices below and of those who signed them. The JVM's trust store names the hub's
 * authority.
 */
final class ProvisioningChecks {
    static final String HOST = System.getenv("PROVISIONING_HOST");
    static final String SCOPE = System.getenv("PROVISIONING_IDSCOPE");
    static final String OWNER = System.getenv("PROVISIONING_CONNECTION_STRING");
    static final ProvisioningServiceClient service = new ProvisioningServiceClient(OWNER);
    static final RegistryClient registry = new RegistryClient(System.getenv("IOTHUB_CONNECTION_STRING"));

    public static void main(String[] args) {
        Checks.main(() -> {
            if (args[0].equals("assigning")) {
                for (var protocol : ProvisioningDeviceClientTransportProtocol.values()) {
                    assigning(protocol);
                }
                return;
            }
            for (String name : args) {
                var protocol = ProvisioningDeviceClientTransportProtocol.valueOf(name);
                individual(protocol);
                group(protocol);
                certificates(protocol);
                customAllocation(protocol);
                refusals(protocol);
            }
        });
    }

    static void individual(ProvisioningDeviceClientTransportProtocol protocol) throws Exception {
        var enrollment = new IndividualEnrollment(protocol + "-one", new SymmetricKeyAttestation(null, null));
        enrollment.setDeviceId(protocol + "-device");
        enrollment.setInitialTwin(twinWith(1));
        var keys = (SymmetricKeyAttestation) service.createOrUpdateIndividualEnrollment(enrollment).getAttestation();
        var first = register(protocol, new Credential(protocol + "-one", keys.getPrimaryKey()));
        assigned(protocol + ": primary key", first, protocol + "-device");
        Checks.check(protocol + ": substatus", first.getSubstatus(), ProvisioningDeviceClientSubstatus.INITIAL_ASSIGNMENT);
        for (String key : List.of(keys.getPrimaryKey(), keys.getSecondaryKey())) {
            var credential = new Credential(protocol + "-one", key);
            var result = register(protocol, credential);
            assigned(protocol + ": again", result, protocol + "-device");
            works(protocol + ": individual", result, credential, "{\"interval\": 1}");
        }
        var identity = registry.getDevice(protocol + "-device");
        Checks.check(protocol + ": identity", identity.getPrimaryKey(), keys.getPrimaryKey());
    }

    static void group(ProvisioningDeviceClientTransportProtocol protocol) throws Exception {
        var group = new EnrollmentGroup(protocol + "-fleet", new SymmetricKeyAttestation(null, null));
        group.setInitialTwin(twinWith(2));
        var keys = (SymmetricKeyAttestation) service.createOrUpdateEnrollmentGroup(group).getAttestation();
        int number = 0;
        for (String groupKey : List.of(keys.getPrimaryKey(), keys.getSecondaryKey())) {
            String id = protocol + "-Member-" + number++;
            var derived = SecurityProviderSymmetricKey.ComputeDerivedSymmetricKey(groupKey.getBytes(StandardCharsets.UTF_8), id);
            var credential = new Credential(id, new String(derived, StandardCharsets.UTF_8));
            var result = register(protocol, credential);
            assigned(protocol + ": key of a group", result, id);
            works(protocol + ": key of a group", result, credential, "{\"interval\": 2}");
        }
        var query = service.createEnrollmentGroupRegistrationStateQuery(new QuerySpecificationBuilder("*", QuerySpecificationBuilder.FromType.ENROLLMENT_GROUPS).createSqlQuery(), protocol + "-fleet");
        Checks.check(protocol + ": registrations of the group", query.next().getItems().length, 2);
    }

    static void certificates(ProvisioningDeviceClientTransportProtocol protocol) throws Exception {
        var enrollment = new IndividualEnrollment("self-signed", X509Attestation.createFromClientCertificates(pem("self-signed")));
        enrollment.setDeviceId(protocol + "-self-signed");
        enrollment.setInitialTwin(twinWith(3));
        service.createOrUpdateIndividualEnrollment(enrollment);
        var result = register(protocol, new Credential("self-signed"));
        assigned(protocol + ": certificate", result, protocol + "-self-signed");
        works(protocol + ": certificate", result, new Credential("self-signed"), "{\"interval\": 3}");
        Checks.check(protocol + ": certificate: identity", registry.getDevice(protocol + "-self-signed").getAuthenticationType(), AuthenticationType.SELF_SIGNED);

        var line = new EnrollmentGroup("line", X509Attestation.createFromRootCertificates(pem("line")));
        line.setInitialTwin(twinWith(4));
        service.createOrUpdateEnrollmentGroup(line);
        var factory = new EnrollmentGroup("factory", X509Attestation.createFromCAReferences("factory"));
        factory.setInitialTwin(twinWith(5));
        service.createOrUpdateEnrollmentGroup(factory);
        for (var member : Map.of("of-line", 4, "of-factory", 5).entrySet()) {
            var credential = new Credential(member.getKey());
            result = register(protocol, credential);
            assigned(protocol + ": certificate " + member.getKey(), result, member.getKey());
            works(protocol + ": certificate " + member.getKey(), result, credential, "{\"interval\": " + member.getValue() + "}");
        }
        service.deleteIndividualEnrollment("self-signed");
        service.deleteEnrollmentGroup("line");
        service.deleteEnrollmentGroup("factory");
    }

    static void customAllocation(ProvisioningDeviceClientTransportProtocol protocol) throws Exception {
        BlockingQueue<JsonElement> asked = new LinkedBlockingQueue<>();
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            var question = Checks.json(new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8));
            String hub = question.getAsJsonObject().getAsJsonArray("linkedHubs").get(0).getAsString();
            byte[] answer = ("{\"iotHubHostName\": \"" + hub + "\", \"payload\": {\"hello\": [\"device\"]}}").getBytes(StandardCharsets.UTF_8);
            asked.add(question);
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        var webhook = new CustomAllocationDefinition();
        webhook.setWebhookUrl("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        webhook.setApiVersion("2019-03-31");
        var enrollment = new IndividualEnrollment(protocol + "-custom", new SymmetricKeyAttestation(null, null));
        enrollment.setAllocationPolicy(AllocationPolicy.CUSTOM);
        enrollment.setCustomAllocationDefinition(webhook);
        enrollment = service.createOrUpdateIndividualEnrollment(enrollment);
        var credential = new Credential(enrollment.getRegistrationId(), ((SymmetricKeyAttestation) enrollment.getAttestation()).getPrimaryKey());

        var data = new AdditionalData();
        data.setProvisioningPayload("{\"model\": \"x\"}");
        var result = register(protocol, SCOPE, credential, data);
        assigned(protocol + ": custom allocation", result, protocol + "-custom");
        var question = Checks.next("question to the webhook", asked).getAsJsonObject().getAsJsonObject("deviceRuntimeContext");
        Checks.check(protocol + ": what the webhook is asked", question.get("payload").getAsString(), data.getProvisioningPayload()); // a string to the SDK
        Checks.check(protocol + ": the webhook's payload", Checks.json(result.getProvisioningPayload()), Checks.json("{\"hello\": [\"device\"]}"));

        server.stop(0);
        var error = Checks.fails(protocol + ": webhook that is gone", ProvisioningDeviceHubException.class, () -> register(protocol, credential));
        Checks.check(protocol + ": why it failed", error.getErrorCode(), 400207);
    }

    static void refusals(ProvisioningDeviceClientTransportProtocol protocol) throws Exception {
        var enrollment = service.createOrUpdateIndividualEnrollment(new IndividualEnrollment("refused", new SymmetricKeyAttestation(null, null)));
        String key = ((SymmetricKeyAttestation) enrollment.getAttestation()).getPrimaryKey();
        String wrong = Base64.getEncoder().encodeToString("wrong".getBytes(StandardCharsets.UTF_8));
        refused(protocol + ": wrong key", protocol, SCOPE, new Credential("refused", wrong));
        refused(protocol + ": unknown registration id", protocol, SCOPE, new Credential("nobody", key));
        refused(protocol + ": unknown id scope", protocol, "0neFFFFFFFF", new Credential("refused", key));
        refused(protocol + ": certificate that nobody knows", protocol, SCOPE, new Credential("stranger"));
        enrollment.setProvisioningStatus(ProvisioningStatus.DISABLED);
        service.createOrUpdateIndividualEnrollment(enrollment);
        Checks.fails(protocol + ": disabled enrollment", ProvisioningDeviceHubException.class, () -> register(protocol, new Credential("refused", key)));
        service.deleteIndividualEnrollment("refused");
        refused(protocol + ": deleted enrollment", protocol, SCOPE, new Credential("refused", key));
    }

    static void assigning(ProvisioningDeviceClientTransportProtocol protocol) throws Exception {
        var enrollment = new IndividualEnrollment(protocol + "-later", new SymmetricKeyAttestation(null, null));
        enrollment = service.createOrUpdateIndividualEnrollment(enrollment);
        var credential = new Credential(protocol + "-later", ((SymmetricKeyAttestation) enrollment.getAttestation()).getPrimaryKey());
        var result = register(protocol, credential);
        assigned(protocol + ": after assigning", result, protocol + "-later");
        works(protocol + ": after assigning", result, credential, "{}");
    }

    static TwinState twinWith(int number) {
        return new TwinState(new TwinCollection(Map.of("line", number)), new TwinCollection(Map.of("interval", number)));
    }

    static ProvisioningDeviceClientRegistrationResult register(ProvisioningDeviceClientTransportProtocol protocol, Credential credential) throws Exception {
        return register(protocol, SCOPE, credential, null);
    }

    static ProvisioningDeviceClientRegistrationResult register(ProvisioningDeviceClientTransportProtocol protocol, String scope, Credential credential, AdditionalData data) throws Exception {
        for (int attempt = 1; ; attempt++) {
            var client = ProvisioningDeviceClient.create(HOST, scope, protocol, credential.provider());
            try {
                return client.registerDeviceSync(data, Checks.WAIT);
            } catch (ProvisioningDeviceClientException e) {
                // Over MQTT the SDK misses an answer that comes before it has begun to wait for it.
                boolean late = e.getCause() instanceof java.util.concurrent.TimeoutException || String.valueOf(e.getMessage()).contains("Timed out waiting");
                boolean missed = protocol.name().contains("MQTT") && late;
                if (!missed || attempt == 3) {
                    throw e;
                }
            } finally {
                client.close();
            }
        }
    }

    static void refused(String what, ProvisioningDeviceClientTransportProtocol protocol, String scope, Credential credential) throws Exception {
        var error = Checks.fails(what, ProvisioningDeviceClientException.class, () -> register(protocol, scope, credential, null));
        Checks.check(what + ": in time", String.valueOf(error.getMessage()).contains("Timed out waiting"), false);
    }

    static void assigned(String what, ProvisioningDeviceClientRegistrationResult result, String deviceId) {
        Checks.check(what + ": assigned", List.of(result.getProvisioningDeviceClientStatus(), result.getIothubUri(), result.getDeviceId()),
            List.of(ProvisioningDeviceClientStatus.PROVISIONING_DEVICE_STATUS_ASSIGNED, HOST, deviceId));
    }

    /** Checks that the device can use its hub, and finds its twin there. */
    static void works(String what, ProvisioningDeviceClientRegistrationResult result, Credential credential, String desired) throws Exception {
        var client = new DeviceClient(result.getIothubUri(), result.getDeviceId(), credential.provider(), IotHubClientProtocol.MQTT);
        client.open(true);
        client.subscribeToDesiredProperties((twin, context) -> {}, null);
        var properties = DeviceChecks.insist(client::getTwin).getDesiredProperties().toJsonElement().getAsJsonObject();
        properties.remove("$version");
        Checks.check(what + ": twin", properties, Checks.json(desired));
        client.sendEvent(new Message("hello"), Checks.WAIT * 1000);
        Checks.ok(what + ": telemetry acknowledged");
        client.close();
    }

    static String pem(String name) throws Exception {
        return Files.readString(Path.of(System.getenv("CERTIFICATES"), name + ".pem"));
    }

    /** What a device has: a key, or its certificate if that is null. */
    record Credential(String id, String key) {
        Credential(String id) {
            this(id, null);
        }

        SecurityProvider provider() throws Exception {
            return key == null ? new Certificate(id) : new SecurityProviderSymmetricKey(key.getBytes(StandardCharsets.UTF_8), id);
        }
    }

    /** A certificate of the folder, with those between it and the factory. */
    static final class Certificate extends SecurityProviderX509 {
        private final String name;
        private final List<X509Certificate> chain;
        private final Key key;

        Certificate(String name) throws Exception {
            this.name = name;
            try (var in = Files.newInputStream(Path.of(System.getenv("CERTIFICATES"), name + ".pem"))) {
                chain = CertificateFactory.getInstance("X.509").generateCertificates(in).stream().map(c -> (X509Certificate) c).toList();
            }
            String text = Files.readString(Path.of(System.getenv("CERTIFICATES"), name + ".key")).replaceAll("-----[A-Z ]+-----|\\s", "");
            key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(text)));
        }

        @Override
        public String getClientCertificateCommonName() {
            return name;
        }

        @Override
        public X509Certificate getClientCertificate() {
            return chain.get(0);
        }

        @Override
        public Key getClientPrivateKey() {
            return key;
        }

        @Override
        public Collection<X509Certificate> getIntermediateCertificatesChain() {
            return chain.subList(1, chain.size());
        }
    }
}
