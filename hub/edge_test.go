package hub_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/iotdm/iotdm/hub"
)

func TestEdgeDevices(t *testing.T) {
	h := startREST(t, hub.Options{})
	const scope = "ms-azure-iot-edge://gateway-639090772135897932"
	edge := h.do(call{method: "PUT", path: "/devices/gateway", body: `{"capabilities":{"iotEdge":true},"deviceScope":"mine"}`})
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
	h.do(call{method: "GET", path: "/twins/gateway/modules/$edgeHub"}).want(t, 200, "")
	for _, method := range []string{"PUT", "DELETE"} {
		h.do(call{method: method, path: "/devices/gateway/modules/$edgeAgent", body: `{}`}).
			wantError(t, 401, "SystemModuleModifyUnauthorizedAccess", "*")
	}

	// A child by its device scope, as the Azure CLI and C# say it.
	child := h.do(call{method: "PUT", path: "/devices/leaf", body: `{"deviceScope":"` + scope + `"}`})
	tail := `"deviceScope":"` + scope + `","parentScopes":["` + scope + `"]}`
	if !strings.HasSuffix(child.Body, tail) {
		t.Fatalf("leaf device: %s", child.Body)
	}
	if got := h.do(call{method: "GET", path: "/twins/leaf"}).Body; !strings.HasSuffix(got, tail) {
		t.Errorf("leaf twin: %s", got)
	}
	orphan := strings.Replace(child.Body, `"deviceScope":"`+scope+`"`, `"deviceScope":""`, 1)
	if got := h.do(call{method: "PUT", path: "/devices/leaf", body: orphan, header: map[string]string{"If-Match": "*"}}); !strings.HasSuffix(got.Body, `"capabilities":{"iotEdge":false},"parentScopes":[]}`) {
		t.Errorf("leaf without a parent: %s", got.Body)
	}

	// Gateways nest; scopes must exist.
	inner := h.do(call{method: "PUT", path: "/devices/inner-1", body: `{"capabilities":{"iotEdge":true},"parentScopes":["` + scope + `"]}`})
	if !strings.HasSuffix(inner.Body, `"deviceScope":"ms-azure-iot-edge://inner-1-639090772135897932","parentScopes":["`+scope+`"]}`) {
		t.Errorf("inner gateway: %s", inner.Body)
	}
	for _, wrong := range []string{"nonsense", "ms-azure-iot-edge://gateway-1", "ms-azure-iot-edge://leaf-639090772135897932", "ms-azure-iot-edge://"} {
		h.do(call{method: "PUT", path: "/devices/other", body: `{"deviceScope":"` + wrong + `"}`}).wantError(t, 400, "InvalidDeviceScope", "*")
	}

	// A parent that is gone does not keep its child from being disabled.
	h.do(call{method: "PUT", path: "/devices/leaf", body: child.Body, header: map[string]string{"If-Match": "*"}}).want(t, 200, "")
	h.do(call{method: "DELETE", path: "/devices/gateway"}).want(t, 204, "")
	h.do(call{method: "GET", path: "/twins/gateway/modules/$edgeHub"}).want(t, 404, "")
	h.do(call{method: "PUT", path: "/devices/leaf", body: strings.Replace(child.Body, "enabled", "disabled", 1), header: map[string]string{"If-Match": "*"}}).want(t, 200, "")
}

func TestADeviceBecomesAnEdgeDeviceAndBack(t *testing.T) {
	h := startREST(t, hub.Options{})
	put := func(body string) answer {
		return h.do(call{method: "PUT", path: "/devices/d", body: body, header: map[string]string{"If-Match": "*"}})
	}
	plain := h.do(call{method: "PUT", path: "/devices/d", body: `{}`}).Body
	edge := put(strings.Replace(plain, `"iotEdge":false`, `"iotEdge":true`, 1)).want(t, 200, "").Body
	if !strings.Contains(edge, `"deviceScope":"ms-azure-iot-edge://d-`) {
		t.Errorf("edge device: %s", edge)
	}
	h.do(call{method: "GET", path: "/devices/d/modules/$edgeAgent"}).want(t, 200, "")
	h.do(call{method: "PUT", path: "/devices/d/modules/m", body: `{}`}).want(t, 200, "")
	put(strings.Replace(edge, `"iotEdge":true`, `"iotEdge":false`, 1)).wantError(t, 400, "InvalidOperation", "*")
	h.do(call{method: "DELETE", path: "/devices/d/modules/m"}).want(t, 204, "")
	back := put(strings.Replace(edge, `"iotEdge":true`, `"iotEdge":false`, 1)).want(t, 200, "").Body
	if strings.Contains(back, "deviceScope") {
		t.Errorf("plain device again: %s", back)
	}
	h.do(call{method: "GET", path: "/devices/d/modules"}).want(t, 200, "[]")
}
