import com.azure.core.amqp.AmqpRetryOptions;
import com.azure.core.amqp.AmqpTransportType;
import com.azure.core.amqp.exception.AmqpErrorCondition;
import com.azure.core.amqp.exception.AmqpException;
import com.azure.messaging.eventhubs.CheckpointStore;
import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventHubClientBuilder;
import com.azure.messaging.eventhubs.EventHubConsumerAsyncClient;
import com.azure.messaging.eventhubs.EventHubConsumerClient;
import com.azure.messaging.eventhubs.EventProcessorClientBuilder;
import com.azure.messaging.eventhubs.PartitionProperties;
import com.azure.messaging.eventhubs.models.Checkpoint;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.PartitionEvent;
import com.azure.messaging.eventhubs.models.PartitionOwnership;
import com.azure.messaging.eventhubs.models.ReceiveOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Reads the telemetry of a device with azure-messaging-eventhubs as back ends do.
 *
 * <p>Environment: EVENTHUB_CONNECTION_STRING of a policy that may do everything, and
 * EMULATOR_CONNECTION_STRING for the same without TLS; IOTHUB_CONNECTION_STRING; HUB_HOST, the host
 * name for devices. The hub has the consumer group "tools". The JVM's trust store names the hub's
 * authority.
 */
final class EventChecks {
    static final String EVENTS = System.getenv("EVENTHUB_CONNECTION_STRING");
    static final int TOTAL = 20;
    static final int PARTITIONS = 4;
    static final Duration WAIT = Duration.ofSeconds(Checks.WAIT);

    public static void main(String[] args) {
        Checks.main(() -> {
            DeviceClient device = device("java-events");
            for (int n = 0; n < TOTAL; n++) {
                send(device, n);
            }
            List<PartitionEvent> events = read("AMQP", EVENTS, AmqpTransportType.AMQP);
            read("WebSocket", EVENTS, AmqpTransportType.AMQP_WEB_SOCKETS);
            read("emulator", System.getenv("EMULATOR_CONNECTION_STRING"), AmqpTransportType.AMQP);
            String id = events.get(0).getPartitionContext().getPartitionId();
            owners(id);
            processor(events.get(TOTAL / 2));
            refusals(id);
            newest(device, id);
            device.close();
        });
    }

    static DeviceClient device(String id) throws Exception {
        Device device = new RegistryClient(System.getenv("IOTHUB_CONNECTION_STRING")).addDevice(new Device(id));
        DeviceClient client = new DeviceClient("HostName=" + System.getenv("HUB_HOST") + ";DeviceId=" + id + ";SharedAccessKey=" + device.getPrimaryKey(), IotHubClientProtocol.MQTT);
        client.open(false);
        return client;
    }

    static void send(DeviceClient device, int n) throws Exception {
        Message message = new Message(Integer.toString(n));
        message.setMessageId("m-" + n);
        message.setContentType("application/json");
        message.setProperty("color", "a b/c&d=e");
        device.sendEvent(message);
    }

    static EventHubClientBuilder builder(String connectionString, AmqpTransportType transport) {
        return new EventHubClientBuilder().connectionString(connectionString).consumerGroup("$Default").transportType(transport)
                .retryOptions(new AmqpRetryOptions().setMaxRetries(0).setTryTimeout(WAIT));
    }

    static List<PartitionEvent> receive(EventHubConsumerClient client, String id, int count, EventPosition position) {
        return client.receiveFromPartition(id, count, position, WAIT, new ReceiveOptions().setTrackLastEnqueuedEventProperties(true)).stream().collect(Collectors.toList());
    }

    static void checkEvent(String what, EventData event, int n) {
        var system = event.getSystemProperties();
        Checks.check(what, Arrays.asList(event.getBodyAsString(), event.getMessageId(), event.getContentType(), event.getProperties(),
                        String.valueOf(system.get("iothub-connection-device-id")), String.valueOf(system.get("iothub-message-source"))),
                Arrays.asList(Integer.toString(n), "m-" + n, "application/json", Map.of("color", "a b/c&d=e"), "java-events", "Telemetry"));
    }

    /** Reads the events from the beginning and from places in the middle; returns them. */
    static List<PartitionEvent> read(String name, String connectionString, AmqpTransportType transport) {
        EventHubConsumerClient client = builder(connectionString, transport).buildConsumerClient();
        var hub = client.getEventHubProperties();
        Checks.check(name + ": event hub", hub.getName(), "iothub-ehub-iotdm");
        List<PartitionProperties> partitions = hub.getPartitionIds().stream().map(client::getPartitionProperties).collect(Collectors.toList());
        Checks.check(name + ": partitions", partitions.size(), PARTITIONS);
        partitions.removeIf(PartitionProperties::isEmpty);
        Checks.check(name + ": partitions with events", partitions.size(), 1);
        PartitionProperties partition = partitions.get(0);
        String id = partition.getId();

        List<PartitionEvent> got = receive(client, id, TOTAL, EventPosition.earliest());
        Checks.check(name + ": events", got.size(), TOTAL);
        for (int n = 0; n < TOTAL; n++) {
            checkEvent(name + ": event " + n, got.get(n).getData(), n);
        }
        EventData last = got.get(TOTAL - 1).getData();
        Checks.check(name + ": partition", List.of(partition.getLastEnqueuedSequenceNumber(), partition.getLastEnqueuedOffset(), partition.getLastEnqueuedTime()),
                List.of(last.getSequenceNumber(), last.getOffsetString(), last.getEnqueuedTime()));
        var tracked = got.get(TOTAL - 1).getLastEnqueuedEventProperties();
        Checks.check(name + ": last enqueued event", List.of(tracked.getSequenceNumber(), tracked.getOffsetString(), tracked.getEnqueuedTime()),
                List.of(last.getSequenceNumber(), last.getOffsetString(), last.getEnqueuedTime()));

        EventData fifth = got.get(5).getData();
        checkEvent(name + ": after an offset", receive(client, id, 1, EventPosition.fromOffsetString(fifth.getOffsetString())).get(0).getData(), 6);
        checkEvent(name + ": after a sequence number", receive(client, id, 1, EventPosition.fromSequenceNumber(fifth.getSequenceNumber())).get(0).getData(), 6);
        checkEvent(name + ": from a sequence number", receive(client, id, 1, EventPosition.fromSequenceNumber(fifth.getSequenceNumber(), true)).get(0).getData(), 5);
        checkEvent(name + ": from a time", receive(client, id, 1, EventPosition.fromEnqueuedTime(Instant.now().minusSeconds(3600))).get(0).getData(), 0);
        client.close();
        return got;
    }

    /** Receives in the background. */
    static final class Reader implements AutoCloseable {
        final EventHubConsumerAsyncClient client;
        final BlockingQueue<PartitionEvent> events = new LinkedBlockingQueue<>();
        final BlockingQueue<Throwable> errors = new LinkedBlockingQueue<>();
        final Disposable receiving;

        Reader(String connectionString, String group, String id, EventPosition position, ReceiveOptions options) {
            client = builder(connectionString, AmqpTransportType.AMQP).consumerGroup(group).buildAsyncConsumerClient();
            receiving = client.receiveFromPartition(id, position, options).subscribe(events::add, errors::add);
        }

        EventData next(String what) throws InterruptedException {
            return Checks.next(what, events).getData();
        }

        /** Waits until another reader has the partition. */
        void stolen(String what) throws InterruptedException {
            Checks.check(what, ((AmqpException) Checks.next(what, errors)).getErrorCondition(), AmqpErrorCondition.LINK_STOLEN);
        }

        @Override
        public void close() {
            receiving.dispose();
            client.close();
        }
    }

    static Reader owner(String group, String id, long level) {
        return new Reader(EVENTS, group, id, EventPosition.earliest(), new ReceiveOptions().setOwnerLevel(level));
    }

    static void owners(String id) throws Exception {
        try (Reader low = owner("tools", id, 1); Reader other = owner("$Default", id, 1)) {
            checkEvent("level 1", low.next("level 1"), 0);
            checkEvent("level 1 of another group", other.next("level 1 of another group"), 0);
            try (Reader high = owner("tools", id, 2)) {
                checkEvent("level 2", high.next("level 2"), 0);
                low.stolen("level 1 loses the partition");
                try (Reader late = owner("tools", id, 0)) {
                    late.stolen("level 0 is refused");
                }
            }
        }
    }

    /** Has a processor begin behind a checkpoint. It is not stopped, for which it may take ten seconds. */
    static void processor(PartitionEvent place) throws Exception {
        Checkpoints store = new Checkpoints();
        String id = place.getPartitionContext().getPartitionId();
        store.checkpoints.put(id, new Checkpoint().setFullyQualifiedNamespace(place.getPartitionContext().getFullyQualifiedNamespace()).setEventHubName("iothub-ehub-iotdm")
                .setConsumerGroup("tools").setPartitionId(id).setOffsetString(place.getData().getOffsetString()).setSequenceNumber(place.getData().getSequenceNumber()));
        BlockingQueue<EventData> events = new LinkedBlockingQueue<>();
        new EventProcessorClientBuilder().connectionString(EVENTS).consumerGroup("tools").checkpointStore(store).initialPartitionEventPosition(any -> EventPosition.earliest())
                .processEvent(context -> {
                    context.updateCheckpoint();
                    events.add(context.getEventData());
                }).processError(context -> {}).buildEventProcessorClient().start();
        EventData last = null;
        for (int n = Integer.parseInt(place.getData().getBodyAsString()) + 1; n < TOTAL; n++) {
            last = Checks.next("event of a processor", events);
            checkEvent("processor: event " + n, last, n);
        }
        Checks.check("processor: checkpoint", store.checkpoints.get(id).getSequenceNumber(), last.getSequenceNumber());
    }

    static void refusals(String id) throws Exception {
        String wrong = EVENTS.replaceAll("SharedAccessKey=[^;]*", "SharedAccessKey=" + "A".repeat(43) + "=");
        refused("question about an unknown partition", EVENTS, AmqpErrorCondition.NOT_FOUND, client -> client.getPartitionProperties("99"));
        refused("question with a wrong key", wrong, AmqpErrorCondition.UNAUTHORIZED_ACCESS, EventHubConsumerClient::getEventHubProperties);
        refused("question about another event hub", EVENTS.replaceAll("EntityPath=[^;]*", "EntityPath=other"), AmqpErrorCondition.UNAUTHORIZED_ACCESS, EventHubConsumerClient::getEventHubProperties);
        refused("unknown partition", new Reader(EVENTS, "$Default", "99", EventPosition.earliest(), new ReceiveOptions()), AmqpErrorCondition.ARGUMENT_OUT_OF_RANGE_ERROR);
        refused("unknown consumer group", new Reader(EVENTS, "none", id, EventPosition.earliest(), new ReceiveOptions()), AmqpErrorCondition.NOT_FOUND);
        refused("position behind the end", new Reader(EVENTS, "$Default", id, EventPosition.fromSequenceNumber(1_000_000), new ReceiveOptions()), AmqpErrorCondition.ARGUMENT_ERROR);
        refused("wrong key", new Reader(wrong, "$Default", id, EventPosition.earliest(), new ReceiveOptions()), AmqpErrorCondition.UNAUTHORIZED_ACCESS);
    }

    static void refused(String what, String connectionString, AmqpErrorCondition want, Consumer<EventHubConsumerClient> call) {
        try (EventHubConsumerClient client = builder(connectionString, AmqpTransportType.AMQP).buildConsumerClient()) {
            refused(what, Checks.fails(what, AmqpException.class, () -> call.accept(client)), want);
        }
    }

    static void refused(String what, Reader reader, AmqpErrorCondition want) throws InterruptedException {
        try (reader) {
            refused(what, (AmqpException) Checks.next(what, reader.errors), want);
        }
    }

    /** The SDK tries again after what is transient. */
    static void refused(String what, AmqpException got, AmqpErrorCondition want) {
        Checks.check(what, Arrays.asList(got.getErrorCondition(), got.isTransient()), Arrays.asList(want, false));
    }

    static void newest(DeviceClient device, String id) throws Exception {
        try (Reader reader = new Reader(EVENTS, "$Default", id, EventPosition.latest(), new ReceiveOptions())) {
            int n = TOTAL;
            for (; reader.events.isEmpty(); n++) { // what is sent before the reader is there is not for it
                send(device, n);
            }
            int got = Integer.parseInt(reader.next("newest event").getBodyAsString());
            Checks.check("the newest events only", got >= TOTAL, true);
        }
    }

    /** Keeps what processors share in memory. */
    static final class Checkpoints implements CheckpointStore {
        final Map<String, PartitionOwnership> owners = new ConcurrentHashMap<>();
        final Map<String, Checkpoint> checkpoints = new ConcurrentHashMap<>();

        @Override
        public Flux<PartitionOwnership> listOwnership(String host, String hub, String group) {
            return Flux.fromIterable(owners.values());
        }

        @Override
        public synchronized Flux<PartitionOwnership> claimOwnership(List<PartitionOwnership> wanted) {
            List<PartitionOwnership> claimed = new ArrayList<>();
            for (PartitionOwnership o : wanted) {
                PartitionOwnership before = owners.get(o.getPartitionId());
                if (before == null || before.getETag().equals(o.getETag())) {
                    o.setETag(UUID.randomUUID().toString()).setLastModifiedTime(System.currentTimeMillis());
                    owners.put(o.getPartitionId(), o);
                    claimed.add(o);
                }
            }
            return Flux.fromIterable(claimed);
        }

        @Override
        public Flux<Checkpoint> listCheckpoints(String host, String hub, String group) {
            return Flux.fromIterable(checkpoints.values());
        }

        @Override
        public Mono<Void> updateCheckpoint(Checkpoint checkpoint) {
            checkpoints.put(checkpoint.getPartitionId(), checkpoint);
            return Mono.empty();
        }
    }
}
