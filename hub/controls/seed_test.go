package controls_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

const key = "b3duZXItb3duZXItb3duZXItb3duZXItb3duZXItb3c="

func TestResetToAnotherSeed(t *testing.T) {
	began, err := node.ParseSeed([]byte(seedText + "policies: [{name: iothubowner, primaryKey: " + key + "}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	h := wiretest.StartREST(t, node.Options{Seed: began})
	fresh := state(t, h.Node)
	reset := func(body string) wiretest.Answer {
		return h.Do(wiretest.Call{Method: "POST", Path: "/iotdm/control/reset", Body: body})
	}
	devices := func() (list []string) {
		for i, err := range h.Devices() {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, i.ID.Device)
		}
		return list
	}

	c := wiretest.DialTLS(t, h.Hub)
	c.Connect(h.Device("seeded"))
	reset("devices:\n- deviceId: own\n  tags: {a: 1}\nconfigurations:\n- {id: c1, targetCondition: '*', content: {deviceContent: {properties.desired.c: 1}}}\n").Want(t, 204, "")
	c.WantClosed()
	if diff := cmp.Diff([]string{"own"}, devices()); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	v, err := h.Twin(hub.ID{Device: "own"})
	if err != nil {
		t.Fatal(err)
	}
	if doc, err := v.MarshalJSON(); err != nil || !strings.Contains(string(doc), `"tags":{"a":1}`) {
		t.Errorf("its twin is %s, %v", doc, err)
	}
	if list := h.Configurations.List(); len(list) != 1 || list[0].ID != "c1" {
		t.Errorf("configurations %v", list)
	}

	// What the hub has as long as it runs may be named as it is.
	same := `{"devices":[{"deviceId":"json"}],"consumerGroups":["TESTS","$Default"],"policies":[{"name":"IoTHubOwner","primaryKey":"` + key + `",
		"rights":["DeviceConnect","ServiceConnect","RegistryWrite","RegistryRead"]},{"name":"service"}]}`
	reset(same).Want(t, 204, "")

	for body, want := range map[string]string{
		"devices:\n- deviceId: d1\n- deviceId: d1\n": `line 3: device "d1" is listed twice`,
		"devices:\n- deviceId: d1\n  colour: red\n":  "line 3: field colour not found",
		"devices: 5":   "line 1: cannot unmarshal !!int `5`",
		"\tdevices: 5": "found character that cannot start any token",
		"devices:\n- deviceId: d1\n  primaryKey: '?'\n":                        `line 3: device "d1": primaryKey: `,
		"devices: []\npolicies:\n- name: other\n  rights: [ServiceConnect]\n":  `line 3: policy "other": the hub has none of this name`,
		"policies:\n- name: service\n  rights: [ServiceConnect,DeviceConnect]": `line 3: policy "service": rights: it is another than the hub's`,
		"policies:\n- name: iothubowner\n  secondaryKey: " + key:               `line 3: policy "iothubowner": secondaryKey: it is another than the hub's`,
		"consumerGroups:\n- tests\n- others\n":                                 `line 3: consumer group "others": the hub has none of this name`,
	} {
		if a := reset(body); a.Status != 400 || !strings.Contains(a.Text(t, "Message"), "ErrorCode:ArgumentInvalid;") ||
			!strings.Contains(a.Text(t, "Message"), want) || strings.Contains(a.Body, key) {
			t.Errorf("the seed %q is refused with %s, want %s", body, a.Body, want)
		}
	}
	reset(strings.Repeat("#", 8<<20+1)).Want(t, 413, "")
	if diff := cmp.Diff([]string{"json"}, devices()); diff != "" {
		t.Errorf("devices after seeds that were refused (-want +got):\n%s", diff)
	}

	reset("{}").Want(t, 204, "")
	if list := devices(); len(list) != 0 {
		t.Errorf("after a seed without anything there is %v", list)
	}
	reset("").Want(t, 204, "")
	if diff := cmp.Diff(fresh, state(t, h.Node)); diff != "" {
		t.Errorf("reset to the seed of the start (-fresh +got):\n%s", diff)
	}
}

func TestResetToInGo(t *testing.T) {
	h := hubtest.New(t)
	h.ResetTo("devices: [{deviceId: d1}]")
	if _, err := h.Identity(hub.ID{Device: "d1"}); err != nil {
		t.Error(err)
	}
	if err := h.Controls.ResetTo(t.Context(), []byte("devices: [{}]")); !errors.Is(err, hub.ErrArgumentInvalid) {
		t.Errorf("a device without a name: %v", err)
	}
	h.ResetTo("")
	if _, err := h.Identity(hub.ID{Device: "d1"}); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Errorf("d1 is there behind a reset to nothing: %v", err)
	}
}
