package sas_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

func TestParseEventHubConnectionString(t *testing.T) {
	want := sas.EventHubConnectionString{Host: "ihsuprod.example", SharedAccessKeyName: "service", SharedAccessKey: "AAAAAAAAAAAAAAAAAAAAAA==", EntityPath: "iothub-ehub-1"}
	emulator := sas.EventHubConnectionString{Host: "localhost:5673", SharedAccessKeyName: "service", SharedAccessKey: "SAS_KEY_VALUE", EntityPath: "events", UseDevelopmentEmulator: true}
	tests := []struct {
		name, text string
		want       sas.EventHubConnectionString
	}{
		{"as the portal shows it", "Endpoint=sb://ihsuprod.example/;SharedAccessKeyName=service;SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAA==;EntityPath=iothub-ehub-1", want},
		{"in another order and case", "entitypath=iothub-ehub-1;SHAREDACCESSKEY=AAAAAAAAAAAAAAAAAAAAAA==;endpoint=SB://ihsuprod.example;SharedAccessKeyName=service;TransportType=Amqp;", want},
		{"an emulator's", emulator.Format(), emulator},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := sas.ParseEventHubConnectionString(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseEventHubConnectionString(%q) (-want +got):\n%s", tt.text, diff)
			}
			if !sas.IsEventHubConnectionString(tt.text) {
				t.Error("IsEventHubConnectionString says no")
			}
		})
	}
	if sas.IsEventHubConnectionString("HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAA==") {
		t.Error("IsEventHubConnectionString says yes to that of an IoT hub")
	}
}

func TestParseBrokenEventHubConnectionString(t *testing.T) {
	const key = "AAAAAAAAAAAAAAAAAAAAAA=="
	for text, want := range map[string]string{
		"": "is not Name=Value",
		"Endpoint=sb://h/;SharedAccessKeyName=p;SharedAccessKey=" + key:                                    "EntityPath, the name of the event hub, is missing",
		"Endpoint=sb://h/;SharedAccessKeyName=p;SharedAccessKey=" + key + ";EntityPath=a/b":                "EntityPath",
		"Endpoint=sb://h/;SharedAccessKeyName=p;EntityPath=e":                                              "SharedAccessKey is missing",
		"Endpoint=sb://h/;SharedAccessKey=" + key + ";EntityPath=e":                                        "SharedAccessKeyName is missing",
		"Endpoint=https://h/;SharedAccessKeyName=p;SharedAccessKey=" + key + ";EntityPath=e":               "Endpoint is not sb://",
		"Endpoint=sb://h/x;SharedAccessKeyName=p;SharedAccessKey=" + key + ";EntityPath=e":                 "Endpoint is not sb://",
		"Endpoint=sb://h/;Endpoint=sb://i/;SharedAccessKeyName=p;SharedAccessKey=" + key + ";EntityPath=e": "same name",
		"Endpoint=sb://h/;SharedAccessKeyName=p;" + key[:20] + ";EntityPath=e":                             "is not Name=Value",
	} {
		_, err := sas.ParseEventHubConnectionString(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("ParseEventHubConnectionString(%q) failed with %v, want %q", text, err, want)
		}
	}
}
