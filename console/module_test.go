package console_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestModulesAreListedAndCreated(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.get("/device/d1/modules").says("The device has no modules.")
	s.post("/device/d1/modules", "module", "m#1").says("Module m#1 is created.")
	s.createModule("d1", "camera")
	got := rows(s.get("/device/d1/modules").one("table"))
	want := [][]string{{"Module", "Connection", "Last activity", "Managed by"}, {"camera", "disconnected", "never", ""}, {"m#1", "disconnected", "never", ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	s.post("/device/d1/modules", "module", "camera").says("Not done.")
	s.post("/device/d1/modules", "module", " ").says("Give the module an id")
	s.post("/device/d1/modules", "module", "a/b").says("Not done.")
}

func TestModulesOfIoTEdgeShowWhatRuns(t *testing.T) {
	for _, policy := range []string{"iothubowner", "service"} {
		t.Run(policy, func(t *testing.T) {
			s := newSiteAs(t, policy)
			if _, err := s.service.CreateDevice(t.Context(), hubrest.Device{DeviceID: "edge'1", Capabilities: hubrest.Capabilities{IoTEdge: true}}); err != nil {
				t.Fatal(err)
			}
			agent := hubrest.Target{DeviceID: "edge'1", ModuleID: "$edgeAgent"}
			if _, err := s.service.Module(t.Context(), agent); err != nil {
				s.createModule("edge'1", "$edgeAgent")
			}
			s.createModule("edge'1", "camera")
			if _, err := s.service.PatchTwin(t.Context(), agent, hubrest.TwinChange{Desired: json.RawMessage(`{
				"modules": {"camera": {"settings": {"image": "example/camera:1"}, "restartPolicy": "always", "status": "running"}},
				"systemModules": {"edgeHub": {"settings": {"image": "example/hub:1"}}}}`)}); err != nil {
				t.Fatal(err)
			}
			c := s.module(agent)
			if _, err := c.PatchReported(t.Context(), json.RawMessage(`{
				"lastDesiredVersion": 2, "lastDesiredStatus": {"code": 400, "description": "<b>bad image</b>"}, "version": {"version": "1.5"},
				"modules": {"camera": {"runtimeStatus": "backoff", "statusDescription": "exited", "exitCode": 139, "restartCount": 7, "lastStartTimeUtc": "2026-01-01T00:00:00Z"},
					"old": {"runtimeStatus": "running", "settings": {"image": "example/old:1"}}}}`)); err != nil {
				t.Fatal(err)
			}
			d := s.get("/device/edge'1/modules")
			d.says("Runtime 1.5 Deployment failed with 400 : <b>bad image</b> Version 2 of 2")
			byName := map[string][]string{}
			for _, row := range rows(d.one("table")) {
				byName[row[0]] = row
			}
			for name, want := range map[string][]string{
				"camera":                 {"running (always)", "backoff exited", "example/camera:1", "7", "139"},
				"$edgeHub (no identity)": {"running", "not reported", "example/hub:1", "", ""},
				"old (no identity)":      {"to go", "running", "example/old:1", "", ""},
			} {
				row := byName[name]
				if len(row) != 10 {
					// $edgeHub has an identity where the hub makes it with the device
					row = byName["$edgeHub"]
				}
				if len(row) != 10 {
					t.Errorf("no row of %s: %q", name, byName)
					continue
				}
				if diff := cmp.Diff(want, []string{row[4], row[5], row[6], row[8], row[9]}); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}
