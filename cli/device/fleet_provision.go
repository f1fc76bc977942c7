package device

import (
	"context"
	"crypto/tls"
	"strconv"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// registeringDevices are devices of an enrollment group: each registers before it connects.
func (o *deviceRunOptions) registeringDevices(s output.Streams, link target.Link) (*fleetDevices, error) {
	r, err := o.as.provision.Find(s, &o.as.hub, link, true)
	if err != nil {
		return nil, err
	}
	f := &fleetDevices{registration: r, target: r.Service, host: "their hubs"}
	shared := fleetLink(r.Service)
	for i := range o.fleet.count {
		id := o.fleet.prefix + strconv.Itoa(i+1)
		if err := mqttdevice.CheckRegistrationID(id); err != nil {
			return nil, fail.Usagef("--id-prefix: %v", err)
		}
		key, err := sas.DeriveKey(r.GroupKey, id)
		if err != nil {
			return nil, fail.Usagef("--enrollment-group-key: %v", err)
		}
		device := shared
		device.ConnectionString = sas.ConnectionString{DeviceID: id}
		// Where service and hub are one, the device resumes with the hub what it has begun with the service.
		device.TLS = shared.TLS.Clone()
		device.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		ask := r.RegistrationOptions
		ask.RegistrationID, ask.Key, ask.TLS = id, key, device.TLS
		device.Provision = func(ctx context.Context, _ error) (mqttdevice.Endpoint, error) {
			a, err := mqttdevice.Register(ctx, ask)
			if err != nil {
				return mqttdevice.Endpoint{}, err
			}
			e := mqttdevice.Endpoint{ConnectionString: a.ConnectionString(key)}
			e.Addr, e.WebSocketAddr = r.Dial(a)
			return e, nil
		}
		f.options = append(f.options, device)
	}
	return f, nil
}
