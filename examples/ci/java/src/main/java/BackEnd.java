import com.azure.messaging.eventhubs.EventHubClientBuilder;
import com.azure.messaging.eventhubs.EventHubConsumerAsyncClient;
import com.azure.messaging.eventhubs.models.PartitionEvent;
import com.google.gson.JsonParser;
import com.microsoft.azure.sdk.iot.service.messaging.IotHubServiceClientProtocol;
import com.microsoft.azure.sdk.iot.service.messaging.Message;
import com.microsoft.azure.sdk.iot.service.messaging.MessagingClient;

/** A back end under test: reads the telemetry of all devices, and sends a message to those that are too hot. */
final class BackEnd implements AutoCloseable {
    private final MessagingClient service;
    private final EventHubConsumerAsyncClient events;
    private final double limit;

    BackEnd(String hub, String eventHub, double limit) throws Exception {
        this.limit = limit;
        service = new MessagingClient(hub, IotHubServiceClientProtocol.AMQPS);
        service.open();
        events = new EventHubClientBuilder().connectionString(eventHub).consumerGroup("$Default").buildAsyncConsumerClient();
        events.receive(true).subscribe(this::onEvent, Throwable::printStackTrace);
    }

    private void onEvent(PartitionEvent event) {
        double temperature = JsonParser.parseString(event.getData().getBodyAsString()).getAsJsonObject().get("temperature").getAsDouble();
        if (temperature <= limit) {
            return;
        }
        String device = (String) event.getData().getSystemProperties().get("iothub-connection-device-id");
        try {
            service.send(device, new Message(temperature + " is too hot"));
        } catch (Exception e) {
            throw new IllegalStateException("warn " + device, e);
        }
    }

    @Override
    public void close() throws Exception {
        events.close();
        service.close();
    }
}
