package hubrest

import "strings"

// ScopeDevice returns the id of the IoT Edge device that has scope, as DeviceScope and ParentScopes name it
// ("ms-azure-iot-edge://ID-GENERATION"), or "" if it isn't such a scope.
func ScopeDevice(scope string) string {
	name, ok := strings.CutPrefix(scope, "ms-azure-iot-edge://")
	dash := strings.LastIndexByte(name, '-')
	if !ok || dash <= 0 {
		return ""
	}
	return name[:dash]
}
