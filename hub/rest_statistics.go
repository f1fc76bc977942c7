package hub

func (s *Server) restDeviceStatistics(*restRequest) (reply, error) {
	n, err := s.DeviceStatistics()
	return reply{body: n}, err
}

func (s *Server) restServiceStatistics(*restRequest) (reply, error) {
	return reply{body: struct {
		Connected int `json:"connectedDeviceCount"`
	}{s.ConnectedDevices()}}, nil
}
