package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// awkwardIDs are legal by the pattern that the SDKs enforce, and mean something
// to a topic, a path, a query or a connection string.
var awkwardIDs = []string{
	"a;b", "a=b", "a'b", "a%b", "a%41", "a%2Fb", "100%", "a#b", "a+b", "a?b", "a:b", "a,b", "a@b", "a!b", "a$b", "(a)",
	"+", "#", "*", "$", "%", ";", "?", "=", "'", "'''", "$edgeAgent2", "?api-version=1", "a=b;ModuleId=c", "modules", "devices", "query", "keys",
	"a-:.+%_#*?!(),=@;$'z", strings.Repeat("x", 128),
}

// Every legal id does everywhere: in the registry, in topics, paths and
// queries, by our own clients.
func TestEveryLegalIDWorks(t *testing.T) {
	h := hubtest.New(t)
	service, err := hubrest.New(hubrest.Options{ConnectionString: h.Policy("iothubowner"), TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	for _, id := range awkwardIDs {
		t.Run(id, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			d, err := service.CreateDevice(ctx, hubrest.Device{DeviceID: id})
			check(t, err)
			m, err := service.CreateModule(ctx, hubrest.Module{DeviceID: id, ModuleID: id})
			check(t, err)
			messages := make(chan string, 1)
			own := sas.ConnectionString{HostName: h.HostName, DeviceID: id, SharedAccessKey: d.Authentication.SymmetricKey.PrimaryKey}
			ofModule := own
			ofModule.ModuleID, ofModule.SharedAccessKey = id, m.Authentication.SymmetricKey.PrimaryKey
			byDevice := ofModule
			byDevice.SharedAccessKey = own.SharedAccessKey
			for _, cs := range []sas.ConnectionString{byDevice, ofModule, own} {
				for _, transport := range []mqttdevice.Transport{mqttdevice.WebSocket, mqttdevice.TCP} {
					c := connect(t, h, cs, transport, messages)
					check(t, c.Send(ctx, mqttdevice.Message{Payload: []byte("hello"), Properties: map[string]string{id: id}}))
					if _, err := c.PatchReported(ctx, map[string]any{"id": id}); err != nil {
						t.Error(err)
					}
					target := hubrest.Target{DeviceID: id, ModuleID: cs.ModuleID}
					answer, err := service.InvokeMethod(ctx, target, hubrest.Method{Name: "echo", Payload: json.RawMessage(`"x"`)})
					if check(t, err); string(answer.Payload) != `"x"` {
						t.Errorf("the method of %v answers %s", target, answer.Payload)
					}
					if cs.ModuleID == "" {
						check(t, service.SendMessage(ctx, id, hubrest.Message{Body: []byte("to " + id), MessageID: id}))
						select {
						case got := <-messages:
							if got != "to "+id {
								t.Errorf("the message says %q", got)
							}
						case <-ctx.Done():
							t.Fatal("the message does not come")
						}
					}
					check(t, c.Close())
				}
			}
			for _, target := range []hubrest.Target{{DeviceID: id}, {DeviceID: id, ModuleID: id}} {
				twin, err := service.PatchTwin(ctx, target, hubrest.TwinChange{Desired: map[string]any{"a": 1}})
				check(t, err)
				var reported struct{ ID string }
				check(t, json.Unmarshal(twin.Reported, &reported))
				if diff := cmp.Diff([]string{id, target.ModuleID, id}, []string{twin.DeviceID, twin.ModuleID, reported.ID}); diff != "" {
					t.Errorf("twin (-want +got):\n%s", diff)
				}
			}
			for from, want := range map[string]int{"devices": 1, "devices.modules": 1} {
				text := "SELECT deviceId FROM " + from + " WHERE deviceId = '" + strings.ReplaceAll(id, "'", `\'`) + "'"
				rows := 0
				for _, err := range service.Query(ctx, text, 0) {
					check(t, err)
					rows++
				}
				if rows != want {
					t.Errorf("%s has %d rows, want %d", text, rows, want)
				}
			}
			list, err := service.Modules(ctx, id)
			check(t, err)
			if len(list) != 1 || list[0].ModuleID != id {
				t.Errorf("modules are %+v", list)
			}
			result, err := service.Bulk(ctx, []hubrest.BulkEntry{{ID: id, ModuleID: id, ImportMode: "delete"}})
			check(t, err)
			if !result.IsSuccessful {
				t.Errorf("bulk: %+v", result)
			}
			check(t, service.DeleteDevice(ctx, id, ""))
			if _, err := h.Identity(hub.ID{Device: id}); err == nil {
				t.Error("it is still there")
			}
		})
	}
}

func connect(t *testing.T, h *hubtest.Hub, cs sas.ConnectionString, transport mqttdevice.Transport, messages chan<- string) *mqttdevice.Client {
	t.Helper()
	opt := mqttdevice.Options{ConnectionString: cs, Transport: transport, Addr: h.MQTTSAddr, TLS: h.ClientTLS()}
	if transport == mqttdevice.WebSocket {
		opt.Addr = h.HTTPSAddr
	}
	c, err := mqttdevice.New(opt)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	c.HandleMethod("echo", func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Payload: m.Payload}
	})
	c.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
		messages <- string(m.Payload)
		return nil
	})
	check(t, c.Connect(t.Context()))
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
