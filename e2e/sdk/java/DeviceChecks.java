import com.google.gson.JsonElement;
import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.InternalClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.IotHubStatusCode;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.ModuleClient;
import com.microsoft.azure.sdk.iot.device.MultiplexingClient;
import com.microsoft.azure.sdk.iot.device.exceptions.IotHubClientException;
import com.microsoft.azure.sdk.iot.device.exceptions.MultiplexingClientRegistrationException;
import com.microsoft.azure.sdk.iot.device.transport.IotHubConnectionStatus;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.device.twin.Twin;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import com.microsoft.azure.sdk.iot.service.auth.AuthenticationType;
import com.microsoft.azure.sdk.iot.service.auth.IotHubConnectionStringBuilder;
import com.microsoft.azure.sdk.iot.service.auth.IotHubServiceSasToken;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodRequestOptions;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodsClient;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.DeviceStatus;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import com.microsoft.azure.sdk.iot.service.twin.TwinClient;
import com.microsoft.azure.sdk.iot.service.twin.TwinConnectionState;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.Collectors;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;

/**
 * Drives a hub with iot-device-client as devices do, and watches it with iot-service-client.
 *
 * <p>The argument is the protocol of the devices, mqtt or amqp. Environment:
 * IOTHUB_CONNECTION_STRING of a policy that may do everything; HUB_HOST, the host name for devices;
 * X509_CERT, X509_KEY and X509_THUMBPRINT of a self-signed certificate. The JVM's trust store names
 * the hub's authority.
 */
final class DeviceChecks {
    static final String OWNER = System.getenv("IOTHUB_CONNECTION_STRING");
    static final String HOST = System.getenv("HUB_HOST");
    static final RegistryClient registry = new RegistryClient(OWNER);
    static final TwinClient twins = new TwinClient(OWNER);
    static final DirectMethodsClient methods = new DirectMethodsClient(OWNER);

    public static void main(String[] args) {
        boolean amqp = args[0].equals("amqp");
        var tcp = amqp ? IotHubClientProtocol.AMQPS : IotHubClientProtocol.MQTT;
        var webSockets = amqp ? IotHubClientProtocol.AMQPS_WS : IotHubClientProtocol.MQTT_WS;
        Checks.main(() -> {
            wholeLife("tcp", tcp);
            wholeLife("websockets", webSockets);
            refusals(List.of(tcp, webSockets));
            modules(tcp);
            certificates(tcp);
            if (amqp) {
                outcomes(tcp);
                manyOnOneConnection("tcp", tcp, 20);
                manyOnOneConnection("websockets", webSockets, 20);
            }
        });
    }

    static String create(String id) throws Exception {
        Device device = registry.addDevice(new Device(id));
        return "HostName=" + HOST + ";DeviceId=" + id + ";SharedAccessKey=" + device.getPrimaryKey();
    }

    static void patchDesired(String id, String key, Object value) throws Exception {
        var patch = new com.microsoft.azure.sdk.iot.service.twin.Twin(id);
        patch.getDesiredProperties().put(key, value);
        twins.patch(patch);
    }

    static JsonElement reported(String id) throws Exception {
        return Checks.properties(twins.get(id).getReportedProperties());
    }

    interface Request<T> {
        T send(int milliseconds) throws Exception;
    }

    /**
     * Sends a request for the twin until its answer is seen. Where the answer comes in, the SDK has
     * one thread call back and another forget the callback, and loses the answer when the second
     * is first (issue 1803 of azure-iot-sdk-java), which is common on a busy machine.
     */
    static <T> T insist(Request<T> request) throws Exception {
        for (int i = 1;; i++) {
            try {
                return request.send(2000);
            } catch (IotHubClientException e) {
                if (i == 15 || e.getStatusCode() != IotHubStatusCode.DEVICE_OPERATION_TIMED_OUT) {
                    throw e;
                }
                System.out.println("   again: " + e.getMessage());
            }
        }
    }

    static int report(InternalClient client, String key, Object value) throws Exception {
        TwinCollection reported = new TwinCollection();
        reported.put(key, value);
        return insist(milliseconds -> client.updateReportedProperties(reported, milliseconds)).getVersion();
    }

    /** Sends a cloud-to-device message over REST, since the SDK does so over AMQP only. */
    static int send(String id, String body, String... headers) throws Exception {
        var owner = IotHubConnectionStringBuilder.createIotHubConnectionString(OWNER);
        var uri = URI.create("https://" + owner.getHostName() + "/devices/" + id + "/messages/deviceBound?api-version=2021-04-12");
        var request = HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString(body))
                .header("Authorization", new IotHubServiceSasToken(owner).toString());
        if (headers.length > 0) {
            request.headers(headers);
        }
        return HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.discarding()).statusCode();
    }

    static void wholeLife(String transport, IotHubClientProtocol protocol) throws Exception {
        String id = "java-" + transport;
        DeviceClient client = new DeviceClient(create(id), protocol);
        BlockingQueue<IotHubConnectionStatus> states = new LinkedBlockingQueue<>();
        client.setConnectionStatusChangeCallback(change -> states.add(change.getNewStatus()), null);
        BlockingQueue<Message> messages = new LinkedBlockingQueue<>();
        client.setMessageCallback((message, context) -> {
            messages.add(message);
            return IotHubMessageResult.COMPLETE;
        }, null);
        client.open(false);
        Checks.check(transport + ": connected", Checks.next("connected", states), IotHubConnectionStatus.CONNECTED);
        Checks.check(transport + ": connection state", twins.get(id).getConnectionState(), TwinConnectionState.CONNECTED.toString());

        BlockingQueue<Twin> patches = new LinkedBlockingQueue<>();
        client.subscribeToDesiredProperties((twin, context) -> patches.add(twin), null);
        Twin twin = insist(client::getTwin);
        Checks.check(transport + ": new twin", List.of(twin.getDesiredProperties().getVersion(), twin.getReportedProperties().getVersion()), List.of(1, 1));

        report(client, "gone", true);
        report(client, "nested", Map.of("text", "grüß", "list", List.of(1, 2)));
        int version = report(client, "gone", null);
        Checks.check(transport + ": reported with a deletion", reported(id), Checks.json("{'nested':{'text':'grüß','list':[1,2]}}"));
        Checks.check(transport + ": version of a report", version, twins.get(id).getReportedProperties().getVersion());
        TwinCollection stale = new TwinCollection();
        stale.put("a", 1);
        stale.setVersion(version - 1);
        var e = Checks.fails(transport + ": a report on a stale version", IotHubClientException.class, () -> insist(milliseconds -> client.updateReportedProperties(stale, milliseconds)));
        Checks.check("  answer", e.getStatusCode(), IotHubStatusCode.PRECONDITION_FAILED);

        patchDesired(id, "interval", 5);
        twin = Checks.next("desired patch", patches);
        Checks.check(transport + ": desired patch", List.of(twin.getDesiredProperties().toJsonElement(), twin.getDesiredProperties().getVersion()), List.of(Checks.json("{'interval':5}"), 2));
        Checks.check(transport + ": twin", insist(client::getTwin).getDesiredProperties().toJsonElement(), Checks.json("{'interval':5}"));

        client.subscribeToMethods((name, payload, context) -> new DirectMethodResponse(name.equals("fail") ? 418 : 200, payload == null ? null : payload.getPayloadAsJsonElement()), null);
        for (Object payload : Arrays.asList(Map.of("delay", 5), "grüß", 7, List.of(1, 2))) {
            var result = methods.invoke(id, "echo", DirectMethodRequestOptions.builder().payload(payload).build());
            var want = new com.google.gson.Gson().toJsonTree(payload);
            Checks.check(transport + ": method with " + payload, List.of(result.getStatus(), result.getPayloadAsJsonElement()), List.of(200, want));
        }
        Checks.check(transport + ": method status is the device's", methods.invoke(id, "fail").getStatus(), 418);

        Message telemetry = new Message("{\"temperature\": 21}");
        telemetry.setContentType("application/json");
        telemetry.setContentEncoding("utf-8");
        telemetry.setProperty("level", "a b/c&d=e");
        client.sendEvent(telemetry);
        Checks.ok(transport + ": telemetry acknowledged");

        Checks.check(transport + ": cloud-to-device message sent", send(id, "grüß", "IoTHub-MessageId", "m-1", "iothub-app-color", "a b/c&d=e"), 204);
        Message message = Checks.next("cloud-to-device message", messages);
        Checks.check(transport + ": cloud-to-device message", List.of(new String(message.getBytes(), "UTF-8"), message.getMessageId(), message.getProperty("color")), List.of("grüß", "m-1", "a b/c&d=e"));
        // Nobody tells the device that its acknowledgement has arrived.
        while (registry.getDevice(id).getCloudToDeviceMessageCount() > 0) {
            Thread.sleep(20);
        }

        client.close();
        Checks.check(transport + ": cloud-to-device message while away", send(id, "later"), 204);
        client.open(false);
        Checks.check(transport + ": it comes after the reconnect", new String(Checks.next("message while away", messages).getBytes(), "UTF-8"), "later");
        client.close();
    }

    static void refusals(List<IotHubClientProtocol> protocols) throws Exception {
        String good = create("java-refused");
        String wrong = good.split("SharedAccessKey=")[0] + "SharedAccessKey=" + "A".repeat(43) + "=";
        for (IotHubClientProtocol protocol : protocols) {
            refused(protocol + ": wrong key", wrong, protocol);
            refused(protocol + ": unknown device", good.replace("java-refused", "java-unknown"), protocol);
        }
        Device device = registry.getDevice("java-refused");
        device.setStatus(DeviceStatus.Disabled);
        registry.updateDevice(device);
        refused("disabled device", good, protocols.get(0));
    }

    static void refused(String what, String connectionString, IotHubClientProtocol protocol) {
        IotHubStatusCode answer = IotHubStatusCode.IO_ERROR;
        // The SDK's MQTT client dies now and then of a race of its own, between the refusal and its end.
        for (int attempt = 0; attempt < 5 && answer == IotHubStatusCode.IO_ERROR; attempt++) {
            DeviceClient client = new DeviceClient(connectionString, protocol);
            answer = Checks.fails(what, IotHubClientException.class, () -> client.open(false)).getStatusCode();
            client.close();
        }
        Checks.check("  answer", answer, IotHubStatusCode.UNAUTHORIZED);
    }

    static void modules(IotHubClientProtocol protocol) throws Exception {
        create("java-edge");
        Module module = registry.addModule(new Module("java-edge", "filter"));
        ModuleClient client = new ModuleClient("HostName=" + HOST + ";DeviceId=java-edge;ModuleId=filter;SharedAccessKey=" + module.getPrimaryKey(), protocol);
        client.open(false);
        BlockingQueue<Twin> patches = new LinkedBlockingQueue<>();
        client.subscribeToDesiredProperties((twin, context) -> patches.add(twin), null);
        report(client, "module", true);
        Checks.check("module: reported", Checks.properties(twins.get("java-edge", "filter").getReportedProperties()), Checks.json("{'module':true}"));
        Checks.check("module: the device's twin is its own", reported("java-edge"), Checks.json("{}"));
        var patch = new com.microsoft.azure.sdk.iot.service.twin.Twin("java-edge", "filter");
        patch.getDesiredProperties().put("limit", 3);
        twins.patch(patch);
        Checks.check("module: desired patch", Checks.next("module desired", patches).getDesiredProperties().toJsonElement(), Checks.json("{'limit':3}"));
        client.subscribeToMethods((name, payload, context) -> new DirectMethodResponse(200, payload.getPayloadAsJsonElement()), null);
        var result = methods.invoke("java-edge", "filter", "echo", DirectMethodRequestOptions.builder().payload(new HashMap<>(Map.of("x", 1))).build());
        Checks.check("module: method", result.getPayloadAsJsonElement(), Checks.json("{'x':1}"));
        client.sendEvent(new Message("counted"), "alerts");
        Checks.ok("module: output acknowledged");
        client.close();
    }

    static void certificates(IotHubClientProtocol protocol) throws Exception {
        String thumbprint = System.getenv("X509_THUMBPRINT").toUpperCase();
        Device device = new Device("java-self-signed", AuthenticationType.SELF_SIGNED);
        device.setThumbprint(thumbprint, thumbprint);
        registry.addDevice(device);
        ClientOptions options = ClientOptions.builder().sslContext(certificate()).build();
        DeviceClient client = new DeviceClient("HostName=" + HOST + ";DeviceId=java-self-signed;x509=true", protocol, options);
        client.open(false);
        client.subscribeToDesiredProperties((twin, context) -> {}, null);
        report(client, "x509", true);
        Checks.check("x509: reported", reported("java-self-signed"), Checks.json("{'x509':true}"));
        client.close();
    }

    /** Returns a context with the certificate and the JVM's trust store. */
    static SSLContext certificate() throws Exception {
        byte[] key = Base64.getMimeDecoder().decode(Files.readString(Path.of(System.getenv("X509_KEY"))).replaceAll("-----[A-Z ]+-----", ""));
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null);
        try (InputStream certificate = Files.newInputStream(Path.of(System.getenv("X509_CERT")))) {
            store.setKeyEntry("device", KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(key)), new char[0],
                    new Certificate[] {CertificateFactory.getInstance("X.509").generateCertificate(certificate)});
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, new char[0]);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        return context;
    }

    /** Gives a message back, and rejects one; over MQTT there is no such thing. */
    static void outcomes(IotHubClientProtocol protocol) throws Exception {
        DeviceClient client = new DeviceClient(create("java-outcomes"), protocol);
        BlockingQueue<String> bodies = new LinkedBlockingQueue<>();
        BlockingQueue<IotHubMessageResult> results = new LinkedBlockingQueue<>(List.of(IotHubMessageResult.ABANDON, IotHubMessageResult.REJECT));
        client.setMessageCallback((message, context) -> {
            bodies.add(new String(message.getBytes(), StandardCharsets.UTF_8));
            return results.remove();
        }, null);
        client.open(false);
        Checks.check("outcomes: sent", send("java-outcomes", "again"), 204);
        Checks.check("outcomes: first", Checks.next("message", bodies), "again");
        Checks.check("outcomes: an abandoned message comes again", Checks.next("message again", bodies), "again");
        while (registry.getDevice("java-outcomes").getCloudToDeviceMessageCount() > 0) {
            Thread.sleep(20);
        }
        Checks.ok("outcomes: a rejected message does not");
        client.close();
    }

    /** Has many devices share a connection, one of them with a wrong key, and come and go while it is open. */
    static void manyOnOneConnection(String transport, IotHubClientProtocol protocol, int count) throws Exception {
        var shared = new MultiplexingClient(HOST, protocol);
        Map<String, DeviceClient> clients = new HashMap<>();
        BlockingQueue<String> received = new LinkedBlockingQueue<>();
        for (int i = 0; i < count; i++) {
            String id = "java-shared-" + transport + "-" + i;
            DeviceClient client = new DeviceClient(create(id), protocol);
            client.setMessageCallback((message, context) -> {
                received.add(id + " " + new String(message.getBytes(), StandardCharsets.UTF_8));
                return IotHubMessageResult.COMPLETE;
            }, null);
            clients.put(id, client);
        }
        shared.registerDeviceClients(clients.values());
        shared.open(false);
        for (String id : clients.keySet()) {
            Checks.check(id + ": connection state", twins.get(id).getConnectionState(), TwinConnectionState.CONNECTED.toString());
            clients.get(id).sendEvent(new Message(id));
            Checks.check(id + ": sent", send(id, "hello"), 204);
        }
        Set<String> got = new HashSet<>();
        for (int i = 0; i < count; i++) {
            got.add(Checks.next("message", received));
        }
        Checks.check(transport + ": each device has its own message", got, clients.keySet().stream().map(id -> id + " hello").collect(Collectors.toSet()));
        String first = "java-shared-" + transport + "-0";
        clients.get(first).subscribeToMethods((name, payload, context) -> new DirectMethodResponse(200, payload.getPayloadAsJsonElement()), null);
        var result = methods.invoke(first, "echo", DirectMethodRequestOptions.builder().payload(7).build());
        Checks.check(transport + ": method of one of them", result.getPayloadAsJsonElement(), Checks.json("7"));
        clients.get(first).subscribeToDesiredProperties((twin, context) -> {}, null);
        report(clients.get(first), "shared", true);
        Checks.check(transport + ": twin of one of them", reported(first), Checks.json("{'shared':true}"));

        String wrong = create("java-shared-" + transport + "-wrong").split("SharedAccessKey=")[0] + "SharedAccessKey=" + "A".repeat(43) + "=";
        Checks.fails(transport + ": one with a wrong key", MultiplexingClientRegistrationException.class, () -> shared.registerDeviceClient(new DeviceClient(wrong, protocol)));
        clients.get(first).sendEvent(new Message("still here"));
        Checks.ok(transport + ": the others go on");
        shared.unregisterDeviceClient(clients.get(first));
        while (!twins.get(first).getConnectionState().equals(TwinConnectionState.DISCONNECTED.toString())) {
            Thread.sleep(20);
        }
        Checks.check(transport + ": one has left", twins.get("java-shared-" + transport + "-1").getConnectionState(), TwinConnectionState.CONNECTED.toString());
        shared.close();
    }
}
