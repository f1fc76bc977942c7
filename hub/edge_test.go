package hub_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestEdgeDevices(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	const scope = "ms-azure-iot-edge://gateway-639090772135897932"
	edge := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/gateway", Body: `{"capabilities":{"iotEdge":true},"deviceScope":"mine"}`})
	if !strings.HasSuffix(edge.Body, `"capabilities":{"iotEdge":true},"deviceScope":"`+scope+`","parentScopes":[]}`) {
		t.Fatalf("edge device: %s", edge.Body)
	}
	var names []string
	modules, err := h.Modules("gateway")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		names = append(names, m.Module)
	}
	if diff := cmp.Diff([]string{"$edgeAgent", "$edgeHub"}, names); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/gateway/modules/$edgeHub"}).Want(t, 200, "")
	for _, method := range []string{"PUT", "DELETE"} {
		h.Do(wiretest.Call{Method: method, Path: "/devices/gateway/modules/$edgeAgent", Body: `{}`}).
			WantError(t, 401, "SystemModuleModifyUnauthorizedAccess", "*")
	}

	// A child by its device scope, as the Azure CLI and C# say it.
	child := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/leaf", Body: `{"deviceScope":"` + scope + `"}`})
	tail := `"deviceScope":"` + scope + `","parentScopes":["` + scope + `"]}`
	if !strings.HasSuffix(child.Body, tail) {
		t.Fatalf("leaf device: %s", child.Body)
	}
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/twins/leaf"}).Body; !strings.HasSuffix(got, tail) {
		t.Errorf("leaf twin: %s", got)
	}
	orphan := strings.Replace(child.Body, `"deviceScope":"`+scope+`"`, `"deviceScope":""`, 1)
	if got := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/leaf", Body: orphan, Header: map[string]string{"If-Match": "*"}}); !strings.HasSuffix(got.Body, `"capabilities":{"iotEdge":false},"parentScopes":[]}`) {
		t.Errorf("leaf without a parent: %s", got.Body)
	}

	// Gateways nest; scopes must exist.
	inner := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/inner-1", Body: `{"capabilities":{"iotEdge":true},"parentScopes":["` + scope + `"]}`})
	if !strings.HasSuffix(inner.Body, `"deviceScope":"ms-azure-iot-edge://inner-1-639090772135897932","parentScopes":["`+scope+`"]}`) {
		t.Errorf("inner gateway: %s", inner.Body)
	}
	for _, wrong := range []string{"nonsense", "ms-azure-iot-edge://gateway-1", "ms-azure-iot-edge://leaf-639090772135897932", "ms-azure-iot-edge://"} {
		h.Do(wiretest.Call{Method: "PUT", Path: "/devices/other", Body: `{"deviceScope":"` + wrong + `"}`}).WantError(t, 400, "InvalidDeviceScope", "*")
	}

	// In bulk they are taken as they are, from nobody else.
	h.Do(wiretest.Call{Method: "POST", Path: "/devices", Body: `[{"id":"other","importMode":"create","deviceScope":"nonsense"}]`}).Want(t, 200, "")
	if got := h.Do(wiretest.Call{Method: "GET", Path: "/devices/other"}).Body; !strings.HasSuffix(got, `"deviceScope":"nonsense","parentScopes":["nonsense"]}`) {
		t.Errorf("a device with a scope that is nobody's: %s", got)
	}
	h.Do(wiretest.Call{Method: "POST", Path: "/devices", Body: `[{"id":"other","importMode":"update","deviceScope":"nothing"}]`}).
		Want(t, 400, `{"isSuccessful":false,"errors":[{"deviceId":"other","errorCode":400028,"errorStatus":"'nothing' is not the scope of an IoT Edge device","moduleId":null,"operation":null}],"warnings":[]}`)

	// A parent that is gone does not keep its child from being disabled.
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/leaf", Body: child.Body, Header: map[string]string{"If-Match": "*"}}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/gateway"}).Want(t, 204, "")
	h.Do(wiretest.Call{Method: "GET", Path: "/twins/gateway/modules/$edgeHub"}).Want(t, 404, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/leaf", Body: strings.Replace(child.Body, "enabled", "disabled", 1), Header: map[string]string{"If-Match": "*"}}).Want(t, 200, "")
}

func TestADeviceBecomesAnEdgeDeviceAndBack(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	put := func(body string) wiretest.Answer {
		return h.Do(wiretest.Call{Method: "PUT", Path: "/devices/d", Body: body, Header: map[string]string{"If-Match": "*"}})
	}
	plain := h.Do(wiretest.Call{Method: "PUT", Path: "/devices/d", Body: `{}`}).Body
	edge := put(strings.Replace(plain, `"iotEdge":false`, `"iotEdge":true`, 1)).Want(t, 200, "").Body
	if !strings.Contains(edge, `"deviceScope":"ms-azure-iot-edge://d-`) {
		t.Errorf("edge device: %s", edge)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/d/modules/$edgeAgent"}).Want(t, 200, "")
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/d/modules/m", Body: `{}`}).Want(t, 200, "")
	put(strings.Replace(edge, `"iotEdge":true`, `"iotEdge":false`, 1)).WantError(t, 400, "InvalidOperation", "*")
	h.Do(wiretest.Call{Method: "DELETE", Path: "/devices/d/modules/m"}).Want(t, 204, "")
	back := put(strings.Replace(edge, `"iotEdge":true`, `"iotEdge":false`, 1)).Want(t, 200, "").Body
	if strings.Contains(back, "deviceScope") {
		t.Errorf("plain device again: %s", back)
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/d/modules"}).Want(t, 200, "[]")
}
