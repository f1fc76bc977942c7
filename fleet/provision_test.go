package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/iotdm/iotdm/fleet"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// registering returns devices of a group that register first.
func registering(t *testing.T, h *hubtest.Hub, group sas.Key, size int) []mqttdevice.Options {
	t.Helper()
	var all []mqttdevice.Options
	for i := range size {
		id := fmt.Sprintf("reg-%d", i)
		key, err := sas.DeriveKey(group, id)
		if err != nil {
			t.Fatal(err)
		}
		ask := mqttdevice.RegistrationOptions{Host: h.HostName, IDScope: h.IDScope(), RegistrationID: id, Key: key, Addr: h.MQTTSAddr, TLS: h.ClientTLS()}
		all = append(all, mqttdevice.Options{
			ConnectionString: sas.ConnectionString{DeviceID: id}, TLS: h.ClientTLS(),
			Provision: func(ctx context.Context, _ error) (mqttdevice.Endpoint, error) {
				a, err := mqttdevice.Register(ctx, ask)
				return mqttdevice.Endpoint{ConnectionString: a.ConnectionString(key), Addr: h.MQTTSAddr}, err
			},
		})
	}
	return all
}

func TestAFleetRegistersFirst(t *testing.T) {
	const size = 50
	h := hubtest.New(t)
	e := provisioning.Enrollment{GroupID: "g", Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}}
	e, err := h.Provisioning.PutEnrollment(e, hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	f, end := start(t, fleet.Options{Devices: registering(t, h, e.Attestation.SymmetricKey.Primary, size)})
	until(t, f, func(s fleet.Stats) bool { return s.Connected == size })
	if s := end(); s.Registrations != size || s.Connects != size || s.RegisterMs.P50 == 0 || len(s.RegisterFailures) != 0 {
		t.Errorf("statistics %+v", s)
	}
}

func TestAFleetThatMayNotRegister(t *testing.T) {
	h := hubtest.New(t)
	f, err := fleet.New(fleet.Options{Devices: registering(t, h, sas.NewKey(), 3)})
	if err != nil {
		t.Fatal(err)
	}
	err = f.Run(t.Context())
	if !errors.Is(err, mqttdevice.ErrNotEnrolled) && !errors.Is(err, mqttdevice.ErrUnauthorized) {
		t.Errorf("error %v", err)
	}
	s := f.Stats()
	if s.RegisterFailures[fleet.NotEnrolled]+s.RegisterFailures[fleet.Unauthorized] != 3 || s.Attempts != 0 {
		t.Errorf("statistics %+v", s)
	}
}
