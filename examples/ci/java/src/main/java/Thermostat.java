import com.google.gson.JsonObject;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** A thermostat, the device program under test: keeps a target, which a direct method or a desired property sets, and takes warnings. */
final class Thermostat implements AutoCloseable {
    final BlockingQueue<String> warnings = new LinkedBlockingQueue<>();
    private final DeviceClient client;

    Thermostat(String connectionString) throws Exception {
        client = new DeviceClient(connectionString, IotHubClientProtocol.MQTT);
        client.setMessageCallback((message, context) -> {
            warnings.add(new String(message.getBytes(), StandardCharsets.UTF_8));
            return IotHubMessageResult.COMPLETE;
        }, null);
        client.open(true);
        client.subscribeToDesiredProperties((twin, context) -> setTarget(((Number) twin.getDesiredProperties().get("target")).intValue()), null);
        client.subscribeToMethods((method, payload, context) -> {
            if (!method.equals("setTarget")) {
                return new DirectMethodResponse(404, null);
            }
            setTarget(payload.getPayload(JsonObject.class).get("target").getAsInt());
            return new DirectMethodResponse(200, null);
        }, null);
    }

    private void setTarget(int target) {
        TwinCollection reported = new TwinCollection();
        reported.put("target", target);
        client.updateReportedPropertiesAsync(reported, (status, answer, exception, context) -> {}, null);
    }

    void measure(double temperature) throws Exception {
        Message message = new Message("{\"temperature\": " + temperature + "}");
        message.setContentType("application/json");
        message.setContentEncoding("utf-8");
        client.sendEvent(message);
    }

    @Override
    public void close() {
        client.close();
    }
}
