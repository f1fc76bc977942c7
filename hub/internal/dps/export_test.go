package dps

import "github.com/iotdm/iotdm/hub"

// Routes are the operations of services, by method and path, and what each needs.
func Routes() map[string]hub.Permission {
	all := make(map[string]hub.Permission)
	for _, r := range routes {
		all[r.method+" /"+r.path] = r.need
	}
	return all
}

// DeviceRoutes are the operations of devices, by method and path.
func DeviceRoutes() (list []string) {
	for _, r := range deviceRoutes {
		list = append(list, r.method+" /{scope}/registrations/"+r.path)
	}
	return list
}
