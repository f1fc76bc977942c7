package hub

import (
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
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
	prefix := []byte(disk.Device)
	err := s.store.Scan(prefix, store.PrefixEnd(prefix), func(_, v []byte) error {
		n.Total++
		if storedStatus(v) == StatusDisabled {
			n.Disabled++
		} else {
			n.Enabled++
		}
		return nil
	})
	return n, err
}
