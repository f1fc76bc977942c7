// Package hubrest is the service side of IoT Hub: what a back end or an operator does over HTTPS. It speaks to Azure
// IoT Hub and to any hub with the same REST API.
//
//	cs, err := sas.ParseConnectionString(os.Getenv("IOTHUB_CONNECTION_STRING"))
//	...
//	client, err := hubrest.New(hubrest.Options{ConnectionString: cs})
//	...
//	defer client.Close()
//	device := hubrest.Target{DeviceID: "device-1"}
//	answer, err := client.InvokeMethod(ctx, device, hubrest.Method{Name: "rebootDevice"})
//	switch {
//	case errors.Is(err, hubrest.ErrNotOnline): // start the device and try again
//	case err != nil: // errors.As finds a *hubrest.Error when the hub itself refused
//	default: fmt.Println(answer.Status, string(answer.Payload))
//	}
//
// With Microsoft Entra ID in place of a shared access policy, Options.Credential is one of azidentity, such as its
// DefaultAzureCredential, which takes what Azure's tools would.
//
// The Device Provisioning Service, which decides what devices may come to a hub, has a client of its own:
// [NewProvisioning], with the same Options.
//
// JSON that belongs to users (tags, desired and reported properties, method payloads) goes through as the bytes it
// came in, so that no number loses digits and no member changes its place.
//
// # What is repeated
//
// A request that met a throttled (429) or troubled hub (408, 500, 502, 503, 504) or a broken connection is repeated
// with exponential backoff and jitter, Retry-After honoured, where doing it twice is the same as doing it once: reads,
// deletes, queries and unconditional replacements. What depends on the state it finds (creating, conditional updates,
// bulk operations) is repeated only when the hub said that it refused or when nothing was sent. A direct method or a
// message to a device is never sent twice.
//
// The calls follow the articles "Azure IoT Hub REST API", "Understand and invoke direct methods from IoT Hub",
// "Understand and use device twins in IoT Hub" and "Understand the identity registry in your IoT hub".
package hubrest
