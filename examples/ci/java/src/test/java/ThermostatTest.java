import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.microsoft.azure.sdk.iot.service.methods.DirectMethodRequestOptions;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodsClient;
import com.microsoft.azure.sdk.iot.service.twin.Twin;
import com.microsoft.azure.sdk.iot.service.twin.TwinClient;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Base64;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

final class ThermostatTest {
    static final String HOST = System.getenv().getOrDefault("HUB_HOST", "127.0.0.1"); // the SDK refuses localhost: it has no dot
    static final String OWNER_KEY = "aW90ZG0tdGVzdC1vd25lci1rZXktbm90LXNlY3JldCE="; // both are in seed.yaml
    static final String DEVICE_KEY = "aW90ZG0tdGVzdC1kZXZpY2Uta2V5LW5vLXNlY3JldCE=";
    static final String HUB = "HostName=" + HOST + ";SharedAccessKeyName=iothubowner;SharedAccessKey=" + OWNER_KEY;
    static final String EVENTS = "Endpoint=sb://" + HOST + "/;SharedAccessKeyName=iothubowner;SharedAccessKey=" + OWNER_KEY + ";EntityPath=iothub-ehub-iotdm";
    static final String DEVICE = "HostName=" + HOST + ";DeviceId=thermostat-1;SharedAccessKey=" + DEVICE_KEY;
    static final TwinClient twins = new TwinClient(HUB);

    Thermostat thermostat;

    /** Each test begins with a hub as the seed describes it. */
    @BeforeEach
    void reset() throws Exception {
        control("POST", "reset", "");
        thermostat = new Thermostat(DEVICE);
    }

    @AfterEach
    void close() {
        if (thermostat != null) { // the hub may not have been there
            thermostat.close();
        }
    }

    /** Tells the hub under test what to do; see docs/TEST-CONTROLS.md. */
    static String control(String method, String path, String body) throws Exception {
        var basic = Base64.getEncoder().encodeToString(("iothubowner:" + OWNER_KEY).getBytes());
        var request = HttpRequest.newBuilder(URI.create("https://" + HOST + "/iotdm/control/" + path))
                .header("Authorization", "Basic " + basic).method(method, HttpRequest.BodyPublishers.ofString(body)).build();
        var response = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        assertTrue(response.statusCode() < 300, response.body());
        return response.body();
    }

    /** Waits until the twin shows what the thermostat reports. */
    static void waitForTarget(long target) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
        Object reported;
        while (!Long.valueOf(target).equals(reported = twins.get("thermostat-1").getReportedProperties().get("target"))) {
            assertTrue(System.nanoTime() < end, "the thermostat reports " + reported);
            Thread.sleep(50);
        }
    }

    @Test
    void aDirectMethodSetsTheTarget() throws Exception {
        var options = DirectMethodRequestOptions.builder().payload(Map.of("target", 21)).build();
        assertEquals(200, new DirectMethodsClient(HUB).invoke("thermostat-1", "setTarget", options).getStatus());
        waitForTarget(21);
    }

    @Test
    void aDesiredPropertySetsTheTarget() throws Exception {
        Twin patch = new Twin("thermostat-1");
        patch.getDesiredProperties().put("target", 22);
        twins.patch(patch);
        waitForTarget(22);
    }

    @Test
    void theBackEndWarnsAThermostatThatIsTooHot() throws Exception {
        try (BackEnd backEnd = new BackEnd(HUB, EVENTS, 30)) {
            thermostat.measure(25);
            thermostat.measure(31.5);
            assertEquals("31.5 is too hot", thermostat.warnings.poll(10, TimeUnit.SECONDS));
        }
    }
}
