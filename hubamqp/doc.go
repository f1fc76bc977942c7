// Package hubamqp is the service side of IoT Hub over AMQP: it sends messages to devices, takes the feedback on
// them, and reads what devices send. It speaks to Azure IoT Hub and to any hub with the same endpoints. All else
// a service does is in package hubrest.
//
//	cs, err := sas.ParseConnectionString(os.Getenv("IOTHUB_CONNECTION_STRING"))
//	...
//	client, err := hubamqp.New(hubamqp.Options{ConnectionString: cs})
//	...
//	defer client.Close()
//	err = client.Send(ctx, hubamqp.Target{DeviceID: "device-1"}, hubamqp.Message{Body: []byte("hello"), Ack: hubamqp.AckFull})
//	...
//	err = client.Events(ctx, hubamqp.EventQuery{Latest: true, Follow: true}, func(e hubamqp.Event) error {
//		fmt.Println(e.DeviceID, string(e.Body))
//		return nil
//	})
//
// # The way to the hub
//
// The connection is AMQP over TLS on port 5671, and AMQP over WebSocket on port 443 where that is blocked; see
// [Transport]. Proxies are those of the environment, HTTPS_PROXY, ALL_PROXY and NO_PROXY, unless an address is
// given. A token is put on the connection and replaced before it ends.
//
// Events are not read from the hub but from an endpoint that is compatible with Event Hubs: the hub redirects
// there, and its policy's key is good for it. See the articles "Communicate with your IoT hub by using the AMQP
// Protocol" and "Read device-to-cloud messages from the built-in endpoint".
//
// # What is repeated
//
// A message is sent once. When the connection breaks before the hub has answered, Send returns
// [ErrConnectionLost], and the device may or may not get it. Readers connect again, with growing pauses, until
// their context ends: an event is neither lost nor read twice by that, and feedback that was not completed comes
// again. What only comes back the same is not tried again: a refused credential, a missing right, a reader that
// another one has replaced.
package hubamqp
