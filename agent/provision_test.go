package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// enrolled returns a machine whose agent is to register as r1, which becomes the device d1.
func enrolled(t *testing.T, h *hubtest.Hub) (*machine, provisioning.Enrollment) {
	t.Helper()
	e := provisioning.Enrollment{RegistrationID: "r1", DeviceID: "d1", Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}}
	e, err := h.Provisioning.PutEnrollment(e, hub.Match{})
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, h)
	m.opt.Device = mqttdevice.Options{TLS: h.ClientTLS()}
	m.opt.Provision = &Provision{
		Registration: mqttdevice.RegistrationOptions{
			Host: h.HostName, IDScope: h.IDScope(), RegistrationID: "r1", Key: e.Attestation.SymmetricKey.Primary, Addr: h.MQTTSAddr, TLS: h.ClientTLS(),
		},
		Reach: func(mqttdevice.Assignment) (string, string) { return h.MQTTSAddr, h.HTTPSAddr },
	}
	return m, e
}

func TestAnAgentRegistersOnceAndRemembers(t *testing.T) {
	h := hubtest.New(t)
	m, e := enrolled(t, h)
	a := m.start()
	if got := m.call("unknown"); got.Status != 404 {
		t.Errorf("an unknown method is answered %d", got.Status)
	}
	a.Close()
	file := filepath.Join(m.opt.Folder, assignmentFile)
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), string(e.Attestation.SymmetricKey.Primary)) {
		t.Errorf("the file holds %s, error %v", text, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, error %v", info.Mode(), err)
	}
	// Nobody answers for the service now, and it is not missed.
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	m.opt.Provision.Registration.Addr = closed.Addr().String()
	m.start().Close()

	// With another registration, what is kept is not that one's.
	other := m.opt.Provision.Registration
	other.RegistrationID = "r2"
	if kept, err := KeptAssignment(m.opt.Folder, other); err != nil || kept.Hub != "" {
		t.Errorf("of r2 %+v is kept, error %v", kept, err)
	}
	if kept, err := KeptAssignment(m.opt.Folder, m.opt.Provision.Registration); err != nil || kept.DeviceID != "d1" || kept.Hub == "" {
		t.Errorf("of r1 %+v is kept, error %v", kept, err)
	}
}

func TestADamagedAssignmentIsMadeAnew(t *testing.T) {
	h := hubtest.New(t)
	m, _ := enrolled(t, h)
	if err := os.MkdirAll(m.opt.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{"{", `{"provisioningHost":"` + h.HostName + `","idScope":"` + h.IDScope() + `","registrationId":"r1","assignedHub":"a;b","deviceId":"d"}`} {
		if err := os.WriteFile(filepath.Join(m.opt.Folder, assignmentFile), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		m.start().Close()
		if kept, err := KeptAssignment(m.opt.Folder, m.opt.Provision.Registration); err != nil || kept.DeviceID != "d1" {
			t.Errorf("after %s: %+v is kept, error %v", damage, kept, err)
		}
	}
}

func TestAnAgentWhoseRegistrationIsRefused(t *testing.T) {
	h := hubtest.New(t)
	m, _ := enrolled(t, h)
	m.opt.Provision.Registration.Key = sas.NewKey()
	a, err := New(m.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	err = a.Connect(t.Context())
	if _, ok := errors.AsType[*mqttdevice.RegistrationError](err); !ok || !errors.Is(err, mqttdevice.ErrUnauthorized) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(m.opt.Folder, assignmentFile)); err == nil {
		t.Error("an assignment is kept")
	}
}
