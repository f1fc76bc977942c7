package hubamqp_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/sas"
)

// A back end that answers each message of a device with one to it.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cs, err := sas.ParseConnectionString(os.Getenv("IOTHUB_CONNECTION_STRING"))
	if err != nil {
		log.Fatal(err)
	}
	client, err := hubamqp.New(hubamqp.Options{ConnectionString: cs})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	err = client.Events(ctx, hubamqp.EventQuery{Latest: true, Follow: true}, func(e hubamqp.Event) error {
		fmt.Println(e.DeviceID, string(e.Body))
		return client.Send(ctx, hubamqp.Target{DeviceID: e.DeviceID}, hubamqp.Message{Body: []byte("thanks"), CorrelationID: e.MessageID})
	})
	if ctx.Err() == nil {
		log.Fatal(err)
	}
}

// Reading on where the program stopped the last time.
func ExampleClient_Events() {
	client, err := hubamqp.New(hubamqp.Options{ /* ... */ })
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	offsets := map[string]string{} // by partition, from where they were kept
	err = client.Events(context.Background(), hubamqp.EventQuery{Offsets: offsets, Follow: true}, func(e hubamqp.Event) error {
		fmt.Println(e.Enqueued.Format(time.RFC3339), e.DeviceID, string(e.Body))
		offsets[e.Partition] = e.Offset // and keep them, once the event is dealt with
		return nil
	})
	log.Fatal(err)
}
