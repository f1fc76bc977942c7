import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubDeviceMaximumQueueDepthExceededException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubMessageTooLargeException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubNotFoundException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubUnauthorizedException;
import com.microsoft.azure.sdk.iot.service.messaging.AcknowledgementType;
import com.microsoft.azure.sdk.iot.service.messaging.DeliveryAcknowledgement;
import com.microsoft.azure.sdk.iot.service.messaging.FeedbackRecord;
import com.microsoft.azure.sdk.iot.service.messaging.FeedbackStatusCode;
import com.microsoft.azure.sdk.iot.service.messaging.FileUploadNotificationProcessorClient;
import com.microsoft.azure.sdk.iot.service.messaging.IotHubServiceClientProtocol;
import com.microsoft.azure.sdk.iot.service.messaging.Message;
import com.microsoft.azure.sdk.iot.service.messaging.MessageFeedbackProcessorClient;
import com.microsoft.azure.sdk.iot.service.messaging.MessagingClient;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * Drives a hub over AMQP with iot-service-client as back ends do: cloud-to-device messages, which a
 * device receives over MQTT, and feedback.
 *
 * <p>Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything,
 * REGISTRY_CONNECTION_STRING of one that may only read the registry; HUB_HOST, the host name for
 * devices. The JVM's trust store names the hub's authority.
 */
final class MessagingChecks {
    static final String OWNER = System.getenv("IOTHUB_CONNECTION_STRING");
    static final RegistryClient registry = new RegistryClient(OWNER);

    public static void main(String[] args) {
        Checks.main(() -> {
            for (var protocol : IotHubServiceClientProtocol.values()) {
                messages(protocol);
                refusals(protocol);
            }
        });
    }

    static String create(String id) throws Exception {
        Device device = registry.addDevice(new Device(id));
        return "HostName=" + System.getenv("HUB_HOST") + ";DeviceId=" + id + ";SharedAccessKey=" + device.getPrimaryKey();
    }

    static Message message(String body, String id) {
        Message message = new Message(body);
        message.setMessageId(id);
        return message;
    }

    /** Returns a message of which no feedback comes, as it does of every other. */
    static Message silent(String body) {
        Message message = new Message(body);
        message.setDeliveryAcknowledgement(DeliveryAcknowledgement.None);
        return message;
    }

    static void messages(IotHubServiceClientProtocol protocol) throws Exception {
        String id = "java-" + protocol;
        DeviceClient device = new DeviceClient(create(id), IotHubClientProtocol.MQTT);
        BlockingQueue<com.microsoft.azure.sdk.iot.device.Message> received = new LinkedBlockingQueue<>();
        device.setMessageCallback((message, context) -> {
            received.add(message);
            return IotHubMessageResult.COMPLETE;
        }, null);
        device.open(false);
        String offline = "java-offline-" + protocol;
        create(offline);
        BlockingQueue<FeedbackRecord> feedback = new LinkedBlockingQueue<>();
        var processor = new MessageFeedbackProcessorClient(OWNER, protocol, batch -> {
            feedback.addAll(batch.getRecords());
            return AcknowledgementType.COMPLETE;
        });
        processor.start();
        var files = new FileUploadNotificationProcessorClient(OWNER, protocol, notification -> AcknowledgementType.COMPLETE);
        files.start();
        Checks.check(protocol + ": a link for file notifications", files.isRunning(), true);
        MessagingClient client = new MessagingClient(OWNER, protocol);
        client.open();

        Message sent = message("grüß", "m-1");
        sent.setCorrelationId("c-1");
        sent.setExpiryTimeUtc(new Date(System.currentTimeMillis() + 3600_000));
        sent.setProperties(new HashMap<>(Map.of("color", "a b/c&d=e")));
        Message expires = message("gone", "m-2");
        expires.setExpiryTimeUtc(new Date(System.currentTimeMillis() + 1000));
        client.send(offline, expires);
        client.send(id, sent);
        var got = Checks.next("message", received);
        Checks.check(protocol + ": message", List.of(new String(got.getBytes(), StandardCharsets.UTF_8), got.getMessageId(), got.getCorrelationId(), got.getProperty("color")),
                List.of("grüß", "m-1", "c-1", "a b/c&d=e"));
        BlockingQueue<Object> results = new LinkedBlockingQueue<>();
        for (int n = 0; n < 20; n++) {
            client.sendAsync(id, silent(Integer.toString(n)), result -> results.add(result.wasSentSuccessfully() ? "sent" : result.getException()), null);
        }
        for (int n = 0; n < 20; n++) {
            Checks.check(protocol + ": result " + n, Checks.next("result", results), "sent");
            Checks.check(protocol + ": message " + n, new String(Checks.next("message", received).getBytes(), StandardCharsets.UTF_8), Integer.toString(n));
        }
        Map<String, List<Object>> records = new HashMap<>();
        for (int n = 0; n < 2; n++) { // every 15 seconds it comes
            var record = Checks.next("feedback", feedback);
            records.put(record.getOriginalMessageId(), List.of(record.getDeviceId(), record.getStatusCode()));
        }
        Checks.check(protocol + ": feedback", records, Map.of("m-1", List.of(id, FeedbackStatusCode.success), "m-2", List.of(offline, FeedbackStatusCode.expired)));
        device.close();
        client.close();
        files.stop();
        processor.stop();
    }

    static void refusals(IotHubServiceClientProtocol protocol) throws Exception {
        String id = "java-refused-" + protocol;
        create(id);
        MessagingClient client = new MessagingClient(OWNER, protocol);
        client.open();
        Checks.fails(protocol + ": unknown device", IotHubNotFoundException.class, () -> client.send("java-none", new Message("hello")));
        Checks.fails(protocol + ": too large", IotHubMessageTooLargeException.class, () -> client.send(id, new Message("x".repeat(300_000))));
        BlockingQueue<Boolean> results = new LinkedBlockingQueue<>();
        for (int n = 0; n < 50; n++) {
            client.sendAsync(id, new Message("hello"), result -> results.add(result.wasSentSuccessfully()), null);
        }
        for (int n = 0; n < 50; n++) {
            Checks.next("result", results);
        }
        Checks.fails(protocol + ": full queue", IotHubDeviceMaximumQueueDepthExceededException.class, () -> client.send(id, new Message("hello")));
        client.close();
        String wrong = OWNER.split("SharedAccessKey=")[0] + "SharedAccessKey=" + "A".repeat(43) + "=";
        Checks.fails(protocol + ": wrong key", IotHubUnauthorizedException.class, () -> new MessagingClient(wrong, protocol).open());
        // The SDK opens without waiting for the answer to its link.
        Checks.fails(protocol + ": missing right", IllegalStateException.class, () -> {
            MessagingClient reader = new MessagingClient(System.getenv("REGISTRY_CONNECTION_STRING"), protocol);
            reader.open();
            reader.send(id, new Message("hello"));
        });
    }
}
