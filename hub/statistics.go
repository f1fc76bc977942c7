package hub

import (
	"github.com/tidwall/gjson"
)

// DeviceStatistics counts the device identities of the registry.
type DeviceStatistics struct {
	Total    int `json:"totalDeviceCount"`
	Enabled  int `json:"enabledDeviceCount"`
	Disabled int `json:"disabledDeviceCount"`
}

// DeviceStatistics counts the devices by reading all of them.
func (s *Server) DeviceStatistics() (DeviceStatistics, error) {
	var n DeviceStatistics
	prefix := []byte(devicePrefix)
	err := s.store.Scan(prefix, prefixEnd(prefix), func(_, v []byte) error {
		n.Total++
		if gjson.GetBytes(v, "status").Str == string(StatusDisabled) {
			n.Disabled++
		} else {
			n.Enabled++
		}
		return nil
	})
	return n, err
}
