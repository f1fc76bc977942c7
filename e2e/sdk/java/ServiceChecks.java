import com.microsoft.azure.sdk.iot.service.auth.AuthenticationType;
import com.microsoft.azure.sdk.iot.service.configurations.Configuration;
import com.microsoft.azure.sdk.iot.service.configurations.ConfigurationContent;
import com.microsoft.azure.sdk.iot.service.configurations.ConfigurationsClient;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubBadFormatException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubConflictException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubException;
import com.microsoft.azure.sdk.iot.service.exceptions.IotHubNotFoundException;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobStatus;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobType;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobsClient;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodRequestOptions;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodsClient;
import com.microsoft.azure.sdk.iot.service.query.QueryClient;
import com.microsoft.azure.sdk.iot.service.query.QueryPageOptions;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.DeviceConnectionState;
import com.microsoft.azure.sdk.iot.service.registry.DeviceStatus;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import com.microsoft.azure.sdk.iot.service.twin.DeviceCapabilities;
import com.microsoft.azure.sdk.iot.service.twin.Twin;
import com.microsoft.azure.sdk.iot.service.twin.TwinClient;
import java.util.ArrayList;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Drives a hub with iot-service-client as back ends do.
 *
 * <p>Environment: IOTHUB_CONNECTION_STRING of a policy that may do everything. The JVM's trust
 * store names the hub's authority.
 */
final class ServiceChecks {
    static final String OWNER = System.getenv("IOTHUB_CONNECTION_STRING");
    static final RegistryClient registry = new RegistryClient(OWNER);
    static final TwinClient twins = new TwinClient(OWNER);
    static final QueryClient queries = new QueryClient(OWNER);

    public static void main(String[] args) {
        Checks.main(() -> {
            registry();
            modules();
            twins();
            methods();
            queries();
            jobs();
            configurations();
        });
    }

    /** The SDK makes the class of an exception of the status, and the message of the body. */
    static void refused(String what, Class<? extends IotHubException> kind, String want, Checks.Call call) {
        String message = Checks.fails(what, kind, call).getMessage();
        Checks.check("  answer has " + want + ": " + message, message.contains(want), true);
    }

    static void registry() throws Exception {
        Device device = registry.addDevice(new Device("java-1"));
        Checks.check("created", List.of(device.getDeviceId(), device.getStatus(), device.getConnectionState(), device.getAuthenticationType()),
                List.of("java-1", DeviceStatus.Enabled, DeviceConnectionState.Disconnected, AuthenticationType.SAS));
        refused("created twice", IotHubConflictException.class, "DeviceAlreadyExists", () -> registry.addDevice(new Device("java-1")));
        refused("get of none", IotHubNotFoundException.class, "DeviceNotFound", () -> registry.getDevice("java-none"));

        device = registry.getDevice("java-1");
        device.setStatus(DeviceStatus.Disabled);
        Device updated = registry.updateDevice(device);
        Checks.check("updated", List.of(updated.getStatus(), updated.getETag().equals(device.getETag())), List.of(DeviceStatus.Disabled, false));

        Device x509 = new Device("java-x509", AuthenticationType.SELF_SIGNED);
        x509.setThumbprint("A".repeat(40), "B".repeat(40));
        registry.addDevice(x509);
        Checks.check("x509 device", registry.getDevice("java-x509").getPrimaryThumbprint(), "A".repeat(40));
        registry.addDevice(new Device("java-ca", AuthenticationType.CERTIFICATE_AUTHORITY));
        Checks.check("ca device", registry.getDevice("java-ca").getAuthenticationType(), AuthenticationType.CERTIFICATE_AUTHORITY);
        var statistics = registry.getStatistics();
        // The SDK looks for the count of enabled devices under a name that the service, and so the hub, does not use.
        Checks.check("statistics", List.of(statistics.getTotalDeviceCount(), statistics.getDisabledDeviceCount()), List.of(3L, 1L));

        // The SDK sends etags without quotes, which the service, and so the hub, ignores.
        registry.removeDevice(device);
        refused("deleted", IotHubNotFoundException.class, "DeviceNotFound", () -> registry.getDevice("java-1"));
    }

    static void modules() throws Exception {
        registry.addDevice(new Device("java-m"));
        Module module = registry.addModule(new Module("java-m", "mod"));
        Checks.check("module created", List.of(module.getDeviceId(), module.getId()), List.of("java-m", "mod"));
        refused("module created twice", IotHubConflictException.class, "ModuleAlreadyExistsOnDevice", () -> registry.addModule(new Module("java-m", "mod")));
        Checks.check("module updated", registry.updateModule(module).getPrimaryKey(), module.getPrimaryKey());
        Checks.check("modules", registry.getModulesOnDevice("java-m").size(), 1);
        refused("module of none", IotHubNotFoundException.class, "ModuleNotFound", () -> registry.getModule("java-m", "none"));
        Twin patch = new Twin("java-m", "mod");
        patch.getDesiredProperties().put("x", 1);
        Checks.check("module twin", Checks.properties(twins.patch(patch).getDesiredProperties()), Checks.json("{'x':1}"));
        registry.removeModule("java-m", "mod");
        Checks.check("no modules", registry.getModulesOnDevice("java-m").size(), 0);
    }

    static void twins() throws Exception {
        registry.addDevice(new Device("java-t"));
        Twin fresh = twins.get("java-t");
        Checks.check("new twin", List.of(fresh.getVersion(), fresh.getETag(), fresh.getDesiredProperties().getVersion()), List.of(2, "AAAAAAAAAAE=", 1));

        Twin patch = new Twin("java-t");
        patch.getTags().put("site", "A");
        patch.getTags().put("floor", 3);
        patch.getDesiredProperties().put("a", Map.of("b", 1));
        Twin twin = twins.patch(patch);
        Checks.check("patched", List.of(twin.getTags().toJsonObject(), Checks.properties(twin.getDesiredProperties())), List.of(Checks.json("{'site':'A','floor':3}"), Checks.json("{'a':{'b':1}}")));
        Checks.check("versions", List.of(twin.getVersion(), twin.getDesiredProperties().getVersion()), List.of(3, 2));
        Checks.check("metadata", twin.getDesiredProperties().getTwinMetadata("a").getLastUpdatedVersion(), 2);

        Twin merge = new Twin("java-t");
        merge.getTags().put("floor", null);
        twin = twins.patch(merge);
        Checks.check("merged", List.of(twin.getTags().toJsonObject(), Checks.properties(twin.getDesiredProperties())), List.of(Checks.json("{'site':'A'}"), Checks.json("{'a':{'b':1}}")));

        twin.getTags().clear();
        twin.getTags().put("new", true);
        twin.getDesiredProperties().clear();
        twin.getDesiredProperties().put("only", 1);
        twin = twins.replace(twin, twin.getETag());
        Checks.check("replaced", List.of(twin.getTags().toJsonObject(), Checks.properties(twin.getDesiredProperties())), List.of(Checks.json("{'new':true}"), Checks.json("{'only':1}")));
        Checks.check("sent back whole", twins.patch(twins.get("java-t")).getTags().toJsonObject(), Checks.json("{'new':true}"));
        refused("twin of none", IotHubNotFoundException.class, "DeviceNotFound", () -> twins.get("java-none"));
    }

    static void methods() throws Exception {
        registry.addDevice(new Device("java-method"));
        DirectMethodsClient methods = new DirectMethodsClient(OWNER);
        // By default the SDK has the service wait longer for the device than it waits for the service.
        var now = DirectMethodRequestOptions.builder().methodConnectTimeoutSeconds(0).methodResponseTimeoutSeconds(5).build();
        refused("method on an offline device", IotHubNotFoundException.class, "404103", () -> methods.invoke("java-method", "m", now));
        refused("method on no device", IotHubNotFoundException.class, "404001", () -> methods.invoke("java-none", "m", now));
    }

    static void queries() throws Exception {
        for (int i = 0; i < 5; i++) {
            String id = "java-q-" + i;
            registry.addDevice(new Device(id));
            Twin patch = new Twin(id);
            patch.getTags().put("floor", i);
            twins.patch(patch);
        }
        var response = queries.queryTwins("SELECT * FROM devices WHERE tags.floor >= 0", QueryPageOptions.builder().pageSize(2).build());
        Checks.check("first page has a continuation", response.getContinuationToken() != null, true);
        List<String> found = new ArrayList<>();
        while (response.hasNext()) {
            found.add(response.next(QueryPageOptions.builder().pageSize(2).continuationToken(response.getContinuationToken()).build()).getDeviceId());
        }
        Checks.check("query in pages", found, List.of("java-q-0", "java-q-1", "java-q-2", "java-q-3", "java-q-4"));
        var raw = queries.queryRaw("SELECT COUNT() AS n FROM devices WHERE STARTSWITH(deviceId, 'java-q-')");
        Checks.check("count", Checks.json(raw.next()), Checks.json("{'n':5}"));
        refused("a query that is none", IotHubBadFormatException.class, "ArgumentInvalid", () -> queries.queryTwins("SELECT FROM"));
    }

    static void jobs() throws Exception {
        ScheduledJobsClient jobs = new ScheduledJobsClient(OWNER);
        Twin patch = new Twin();
        patch.setETag("*");
        patch.getTags().put("ring", "2");
        jobs.scheduleUpdateTwin("java-job", "STARTSWITH(deviceId, 'java-q-')", patch, new Date(), 60);
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(Checks.WAIT);
        var job = jobs.get("java-job");
        while (job.getJobStatus() != ScheduledJobStatus.completed && System.nanoTime() < deadline) {
            Thread.sleep(50);
            job = jobs.get("java-job");
        }
        Checks.check("job", List.of(job.getJobStatus(), job.getJobStatistics().getSucceededCount()), List.of(ScheduledJobStatus.completed, 5));
        Checks.check("twin after the job", twins.get("java-q-3").getTags().get("ring"), "2");
        Checks.check("jobs", jobs.query((ScheduledJobType) null, null).next().getJobId(), "java-job");
        var rows = jobs.query("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'java-job' AND devices.jobs.deviceId = 'java-q-3'");
        Checks.check("job of one device", rows.next().getJobStatus(), ScheduledJobStatus.completed);
    }

    static void configurations() throws Exception {
        ConfigurationsClient configurations = new ConfigurationsClient(OWNER);
        ConfigurationContent content = new ConfigurationContent();
        content.setDeviceContent(new HashMap<>(Map.of("properties.desired.rate", 10)));
        Configuration configuration = new Configuration("java-configuration");
        configuration.setTargetCondition("tags.floor = 1");
        configuration.setPriority(3);
        configuration.setContent(content);
        configuration = configurations.create(configuration);
        configuration.setPriority(4);
        Checks.check("configuration", configurations.replace(configuration).getPriority(), 4);
        Checks.check("configurations", configurations.get(10).size(), 1);
        configurations.delete("java-configuration");
        Checks.check("no configurations", configurations.get(10).size(), 0);

        // Content for one IoT Edge device.
        Device edge = new Device("java-edge");
        DeviceCapabilities capabilities = new DeviceCapabilities();
        capabilities.setIotEdge(true);
        edge.setCapabilities(capabilities);
        registry.addDevice(edge);
        ConfigurationContent modules = new ConfigurationContent();
        modules.setModulesContent(new HashMap<>(Map.of("camera", new HashMap<>(Map.of("properties.desired", Map.of("fps", 25))))));
        configurations.applyConfigurationContentOnDevice("java-edge", modules);
        Checks.check("modules of an edge device", registry.getModulesOnDevice("java-edge").size(), 3);
        registry.addDevice(new Device("java-plain"));
        refused("content for a device that is not edge", IotHubBadFormatException.class, "InvalidConfigurationContent",
                () -> configurations.applyConfigurationContentOnDevice("java-plain", modules));
        registry.removeDevice("java-plain");
        registry.removeDevice("java-edge");
    }
}
