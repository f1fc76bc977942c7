package sas_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

func TestEventHubConnectionString(t *testing.T) {
	const key = "AAAAAAAAAAAAAAAAAAAAAA=="
	c := sas.EventHubConnectionString{Host: "hub.example", SharedAccessKeyName: "service", SharedAccessKey: key, EntityPath: "events"}
	want := "Endpoint=sb://hub.example/;SharedAccessKeyName=service;SharedAccessKey=" + key + ";EntityPath=events"
	if diff := cmp.Diff(want, c.Format()); diff != "" {
		t.Errorf("Format (-want +got):\n%s", diff)
	}
	c.Host, c.UseDevelopmentEmulator = "localhost:5673", true
	want = "Endpoint=sb://localhost:5673/;SharedAccessKeyName=service;SharedAccessKey=" + key + ";UseDevelopmentEmulator=true;EntityPath=events"
	if diff := cmp.Diff(want, c.Format()); diff != "" {
		t.Errorf("Format of the emulator's (-want +got):\n%s", diff)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c)
	for _, text := range []string{c.String(), fmt.Sprintf("%v %+v %#v", c, c, c), log.String()} {
		if strings.Contains(text, "AAAA") || !strings.Contains(text, "SharedAccessKey=***;") {
			t.Errorf("the key shows, or nothing does: %s", text)
		}
	}
}
