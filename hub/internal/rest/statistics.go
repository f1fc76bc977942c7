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

// traffic tells what goes through the hub. IoT Hub has nothing like it: there it is in Azure Monitor.
func (d *Door) traffic(r *request) (reply, error) {
	return reply{body: d.hub.Traffic(r.Context())}, nil
}

// listNodes tells of which nodes the hub consists.
func (d *Door) listNodes(*request) (reply, error) { return reply{body: d.hub.Nodes()}, nil }
