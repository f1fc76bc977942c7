package amqp

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
)

func TestParseAddress(t *testing.T) {
	device, module := hub.ID{Device: "dev1"}, hub.ID{Device: "dev1", Module: "mod1"}
	for text, want := range map[string]address{
		// As recorded, or read in the source of a client.
		"$cbs":                  {node: nodeCBS},
		"$management":           {node: nodeManagement},
		"/messages/devicebound": {node: nodeMessages}, // Node, Java, Go
		"/messages/deviceBound": {node: nodeMessages},
		"amqps://hub.localhost/messages/devicebound":                              {node: nodeMessages}, // Python, CLI
		"/messages/serviceBound/feedback":                                         {node: nodeFeedback}, // Node, Go
		"/messages/servicebound/feedback":                                         {node: nodeFeedback}, // Java
		"amqps://hub.localhost/messages/serviceBound/feedback":                    {node: nodeFeedback}, // CLI
		"/messages/serviceBound/filenotifications":                                {node: nodeFileNotifications},
		"messages/events/":                                                        {node: nodeEventsRedirect}, // Go
		"messages/events":                                                         {node: nodeEventsRedirect},
		"amqps://hub.localhost/messages/events/$management":                       {node: nodeEventsRedirect}, // CLI
		"messages/events/ConsumerGroups/$Default/Partitions/0":                    {node: nodeEventsRedirect},
		"myhub/ConsumerGroups/$Default/Partitions/0":                              {node: nodePartition, hub: "myhub", group: "$Default", partition: "0"}, // JS, Go
		"/eh1/ConsumerGroups/$Default/Partitions/1":                               {node: nodePartition, hub: "eh1", group: "$Default", partition: "1"},
		"amqps://hub.localhost/myhub/ConsumerGroups/$Default/Partitions/0":        {node: nodePartition, hub: "myhub", group: "$Default", partition: "0"}, // Python
		"amqps://hub.localhost:5671/myhub/consumergroups/%24Default/partitions/0": {node: nodePartition, hub: "myhub", group: "$Default", partition: "0"},
		"/devices/dev1/messages/events":                                           {node: nodeDeviceEvents, id: device},
		"amqps://hub.localhost/devices/dev1/messages/events":                      {node: nodeDeviceEvents, id: device}, // C, .NET
		"/devices/dev1/messages/devicebound":                                      {node: nodeDeviceMessages, id: device},
		"/devices/dev1/messages/deviceBound":                                      {node: nodeDeviceMessages, id: device},
		"/devices/dev1/methods/devicebound":                                       {node: nodeDeviceMethods, id: device},
		"/devices/dev1/twin":                                                      {node: nodeDeviceTwin, id: device},
		"/devices/dev1/modules/mod1/messages/events":                              {node: nodeDeviceEvents, id: module},
		"/devices/dev1/modules/mod1/messages/devicebound":                         {node: nodeDeviceMessages, id: module},
		"/devices/dev1/modules/mod1/methods/devicebound":                          {node: nodeDeviceMethods, id: module},
		"/devices/dev1/modules/mod1/twin":                                         {node: nodeDeviceTwin, id: module},
		"amqps://hub.localhost:5671/devices/dev1/modules/mod1/twin/":              {node: nodeDeviceTwin, id: module},
		"/DEVICES/Dev1/MODULES/Mod1/TWIN":                                         {node: nodeDeviceTwin, id: hub.ID{Device: "Dev1", Module: "Mod1"}},
		"/devices/a%40b%23c/twin":                                                 {node: nodeDeviceTwin, id: hub.ID{Device: "a@b#c"}},
		"/devices/50%off/twin":                                                    {node: nodeDeviceTwin, id: hub.ID{Device: "50%off"}},
		"/devices/a+b/twin":                                                       {node: nodeDeviceTwin, id: hub.ID{Device: "a+b"}},
		"/devices/modules/modules/modules/twin":                                   {node: nodeDeviceTwin, id: hub.ID{Device: "modules", Module: "modules"}},
		"/devices/modules/twin":                                                   {node: nodeDeviceTwin, id: hub.ID{Device: "modules"}},

		"0ne0001/registrations/r1":                          {node: nodeRegistration, scope: "0ne0001", registration: "r1"}, // Node
		"/0ne0001/registrations/r1":                         {node: nodeRegistration, scope: "0ne0001", registration: "r1"}, // Java
		"amqps://global.localhost/0ne0001/registrations/r1": {node: nodeRegistration, scope: "0ne0001", registration: "r1"},
		"0ne0001%2Fregistrations%2Fr1":                      {}, // nobody sends it
		"/0ne0001/Registrations/r%3A1/":                     {node: nodeRegistration, scope: "0ne0001", registration: "r:1"},
		"/devices/registrations/twin":                       {node: nodeDeviceTwin, id: hub.ID{Device: "registrations"}},

		// What is none.
		"/registrations/r1": {}, "//registrations/r1": {}, "0ne0001/registrations": {}, "0ne0001/registrations/": {}, "0ne0001/registrations/r1/x": {},
		"": {}, "/": {}, "//": {}, "amqps://": {}, "amqps://host": {}, "amqps://host/": {}, "$cbs/x": {}, "x": {},
		"/messages": {}, "/messages/": {}, "/messages/servicebound": {}, "/messages/devicebound/x": {},
		"/devices": {}, "/devices/": {}, "/devices/d": {}, "/devices/d/": {}, "/devices/d/messages": {}, "/devices/d/x": {}, "/devices/d/twin/x": {},
		"/devices//twin": {}, "/devices/a%2Fb/twin": {}, "/devices/d/modules//twin": {}, "/devices/d/modules/m": {}, "/devices/d/modules/twin": {}, "/devices/a b/twin": {},
		"/ConsumerGroups/$Default/Partitions/0": {}, "hub/ConsumerGroups//Partitions/0": {}, "hub/ConsumerGroups/g/Partitions/": {}, "hub/ConsumerGroups/g/Partitions/0/x": {},
		"/devices/" + strings.Repeat("d", 129) + "/twin":    {},
		"/devices/d/twin" + strings.Repeat("/", maxAddress): {},
	} {
		if diff := cmp.Diff(want, parseAddress(text), cmp.AllowUnexported(address{})); diff != "" {
			t.Errorf("parseAddress(%q) (-want +got):\n%s", text, diff)
		}
	}
}

// Whatever the address, an id in it is one; and an address that is printed in the
// shapes of the clients reads as it was.
func FuzzParseAddress(f *testing.F) {
	for _, text := range []string{
		"$cbs", "/messages/devicebound", "messages/events/", "amqps://h/myhub/ConsumerGroups/$Default/Partitions/0", "/devices/d/modules/m/messages/events", "0ne0001/registrations/r1",
		"amqps://h:5671/devices/a%40b/twin", "//", "://", "/devices/%/twin", "/devices/%2525/methods/devicebound",
	} {
		f.Add(text)
	}
	ends := map[node]string{
		nodeDeviceEvents: "/messages/events", nodeDeviceMessages: "/messages/deviceBound", nodeDeviceMethods: "/methods/devicebound", nodeDeviceTwin: "/twin",
	}
	f.Fuzz(func(t *testing.T, text string) {
		a := parseAddress(text)
		end, ofDevice := ends[a.node]
		if ofDevice != (a.id != hub.ID{}) || ofDevice && a.id.Validate() != nil {
			t.Fatalf("parseAddress(%q) = %+v", text, a)
		}
		printed := ""
		switch {
		case ofDevice:
			printed = "/devices/" + url.PathEscape(a.id.Device)
			if a.id.Module != "" {
				printed += "/modules/" + url.PathEscape(a.id.Module)
			}
			printed += end
		case a.node == nodePartition:
			printed = "/" + url.PathEscape(a.hub) + "/ConsumerGroups/" + url.PathEscape(a.group) + "/Partitions/" + url.PathEscape(a.partition)
		case a.node == nodeRegistration:
			if a.scope == "" || a.registration == "" {
				t.Fatalf("parseAddress(%q) = %+v", text, a)
			}
			printed = "/" + url.PathEscape(a.scope) + "/registrations/" + url.PathEscape(a.registration)
		default:
			return
		}
		if len(printed) > maxAddress-20 || !strings.HasPrefix(printed, "/") {
			return
		}
		for _, shape := range []string{printed, printed[1:], "amqps://hub.localhost" + printed, "amqps://hub.localhost:5671" + printed + "/"} {
			if diff := cmp.Diff(a, parseAddress(shape), cmp.AllowUnexported(address{})); diff != "" {
				t.Errorf("parseAddress(%q), read from %q (-want +got):\n%s", shape, text, diff)
			}
		}
	})
}
