package rest

func (d *Door) deviceStatistics(*request) (reply, error) {
	n, err := d.hub.DeviceStatistics()
	return reply{body: n}, err
}

func (d *Door) serviceStatistics(*request) (reply, error) {
	return reply{body: struct {
		Connected int `json:"connectedDeviceCount"`
	}{d.hub.ConnectedDevices()}}, nil
}
