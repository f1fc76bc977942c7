package hub

import "github.com/iotdm/iotdm/hub/query"

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
		if string(query.JSON(v).Get("status").Chars()) == string(StatusDisabled) {
			n.Disabled++
		} else {
			n.Enabled++
		}
		return nil
	})
	return n, err
}
