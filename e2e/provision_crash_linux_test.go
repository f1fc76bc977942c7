package e2e

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/sas"
)

// provisioning is what is needed to ask a hub's provisioning service.
type crashProvisioning struct {
	*crashHub
	scope string
	owner string // a token
}

func provisioningOf(h *crashHub) (p crashProvisioning, err error) {
	p.crashHub = h
	var info struct{ IDScope string }
	text, err := os.ReadFile(filepath.Join(h.seen, "hub.json"))
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	if err != nil {
		return p, err
	}
	p.scope = info.IDScope
	var stored []struct{ Name, PrimaryKey string }
	text, err = os.ReadFile(filepath.Join(h.seen, "policies.json"))
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	if err != nil {
		return p, err
	}
	for _, policy := range stored {
		if policy.Name == "provisioningserviceowner" {
			p.owner, err = sas.Sign("localhost", policy.Name, sas.Key(policy.PrimaryKey), time.Now().Add(time.Hour))
		}
	}
	return p, err
}

// ask makes a request to the service API.
func (p crashProvisioning) ask(method, path, body string, headers ...string) (crashAnswer, error) {
	return p.do(method, path, body, append([]string{"Authorization", p.owner}, headers...)...)
}

// register has a device ask for its hub.
func (p crashProvisioning) register(id string, key sas.Key) (crashAnswer, error) {
	path := p.scope + "/registrations/" + id
	token, err := sas.Sign(path, "registration", key, time.Now().Add(time.Hour))
	if err != nil {
		return crashAnswer{}, err
	}
	return p.do("PUT", "/"+path+"/register", fmt.Sprintf(`{"registrationId":%q}`, id), "Authorization", token)
}

// connect has a device connect with its key, as it does once it is provisioned.
func (p crashProvisioning) connect(id string, key sas.Key) error {
	token, err := sas.Sign("localhost/devices/"+id, "", key, time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	nc, err := p.dial()
	if err != nil {
		return err
	}
	defer nc.Close()
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.Keepalive, c.CleanSession = "MQTT", 4, 60, true
	c.ClientIdentifier, c.Username, c.UsernameFlag = id, "localhost/"+id+"/?api-version=2021-04-12", true
	c.Password, c.PasswordFlag = []byte(token), true
	d := &crashDevice{nc, id}
	if err := d.send(c); err != nil {
		return err
	}
	answer, err := d.read()
	if ack, ok := answer.(*packets.ConnackPacket); err == nil && (!ok || ack.ReturnCode != 0) {
		err = fmt.Errorf("%s cannot connect with the key that it was provisioned with: %v", id, answer)
	}
	return err
}

// keyOf is the key of a device for a number, or for a name that counts as its group's
// key does.
func keyOf(group, text string) sas.Key {
	mac := hmac.New(sha256.New, []byte(group))
	mac.Write([]byte(text))
	return sas.Key(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// A provisionedState is what is kept of a device that is provisioned: its enrollment,
// what it has got by that, and that it has.
type provisionedState struct {
	enrolled int    // the number of its enrollment; 0: there is none
	key      int    // that of the enrollment by which it is in the hub; 0: it is not
	twin     int    // that of the one whose initial twin it has
	record   string // the etag of its registration; "" there is none; "new" nobody has been told
}

// A provisionWriter has one device enrolled, with a number in its key and in its
// initial twin, and registered, so that its twin begins anew; and takes all of that
// away again. Key, twin and record of a registration are one step.
type provisionWriter struct {
	id    string
	state register[provisionedState]
	n     int
	acked int
}

func (w *provisionWriter) setup(*crashHub) error {
	w.state.can = []provisionedState{{}}
	return nil
}

func (w *provisionWriter) key(n int) sas.Key { return keyOf(w.id, fmt.Sprint(n)) }

func (w *provisionWriter) enrollment(n int) string {
	return fmt.Sprintf(`{"registrationId":%q,"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":%q,"secondaryKey":%q}},
		"initialTwin":{"tags":{"n":%d},"properties":{"desired":{"n":%d}}},"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":false}}`,
		w.id, string(w.key(n)), string(w.key(-n)), n, n)
}

func (w *provisionWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	p, err := provisioningOf(h)
	if err != nil {
		h.t.Error(err)
		return
	}
	for ctx.Err() == nil {
		now := w.state.can[0] // there is one
		var a crashAnswer
		var change func(provisionedState) provisionedState
		what := r.IntN(10)
		switch {
		case now.enrolled == 0 || what < 3:
			w.n++
			n, match := w.n, []string{}
			if now.enrolled != 0 {
				match = []string{"If-Match", "*"}
			}
			a, err = p.ask("PUT", "/enrollments/"+w.id, w.enrollment(n), match...)
			change = func(s provisionedState) provisionedState { s.enrolled = n; return s }
		case what < 7 || now.record == "":
			a, err = p.register(w.id, w.key(now.enrolled))
			record := "new"
			if err == nil && a.ok() {
				var op struct {
					Status            string
					RegistrationState struct{ ETag, AssignedHub, DeviceID string }
				}
				if err := a.decode(&op); err != nil || op.Status != "assigned" || op.RegistrationState.DeviceID != w.id {
					h.t.Errorf("register %s: %v", w.id, a)
					return
				}
				record = op.RegistrationState.ETag
			}
			change = func(s provisionedState) provisionedState {
				if s.key == 0 || s.record != "" { // one that is there without a registration keeps its twin
					s.twin = s.enrolled
				}
				s.key, s.record = s.enrolled, record
				return s
			}
		case what == 7:
			a, err = p.ask("DELETE", "/registrations/"+w.id, "")
			change = func(s provisionedState) provisionedState { s.record = ""; return s }
		case what == 8:
			a, err = p.ask("DELETE", "/enrollments/"+w.id, "")
			change = func(s provisionedState) provisionedState { s.enrolled, s.record = 0, ""; return s }
		case now.key != 0:
			a, err = h.do("DELETE", "/devices/"+w.id, "", "If-Match", "*")
			change = func(s provisionedState) provisionedState { s.key, s.twin = 0, 0; return s }
		default:
			continue
		}
		switch {
		case err == nil && a.ok():
			w.state.acked(change)
			w.acked++
		case err == nil && a.refused():
			h.t.Errorf("%s, which was %+v: step %d: %v", w.id, now, what, a)
			return
		default:
			w.state.unknown(change)
			return
		}
	}
}

func (w *provisionWriter) check(h *crashHub) error {
	p, err := provisioningOf(h)
	if err != nil {
		return err
	}
	is, err := w.read(p)
	if err != nil {
		return err
	}
	// A record that is none of those that were told of is one of those that were not.
	if !slices.ContainsFunc(w.state.can, func(s provisionedState) bool { return s.record == is.record }) {
		told := is.record
		is.record = "new"
		err = w.state.is(is)
		w.state.can[0].record = told
	} else {
		err = w.state.is(is)
	}
	if err != nil {
		return fmt.Errorf("%s, which is provisioned, %w", w.id, err)
	}
	if is.key != 0 {
		return p.connect(w.id, w.key(is.key))
	}
	return nil
}

// read reads enrollment, device and record, each of which has to agree with itself.
func (w *provisionWriter) read(p crashProvisioning) (s provisionedState, err error) {
	enrollment, err := p.ask("GET", "/enrollments/"+w.id, "")
	if err != nil {
		return s, err
	}
	if enrollment.status != 404 {
		var e struct {
			InitialTwin struct{ Tags struct{ N int } }
		}
		var mechanism struct{ SymmetricKey struct{ PrimaryKey sas.Key } }
		keys, err := p.ask("POST", "/enrollments/"+w.id+"/attestationmechanism", "")
		err = cmp.Or(err, enrollment.decode(&e), keys.decode(&mechanism))
		s.enrolled = e.InitialTwin.Tags.N
		if err != nil || mechanism.SymmetricKey.PrimaryKey != w.key(s.enrolled) {
			return s, cmp.Or(err, fmt.Errorf("enrollment %s has the initial twin of number %d and another key", w.id, s.enrolled))
		}
	}
	record, err := p.ask("GET", "/registrations/"+w.id, "")
	if err != nil {
		return s, err
	}
	if record.status != 404 {
		var registration struct{ ETag, Status string }
		if err := record.decode(&registration); err != nil || registration.Status != "assigned" {
			return s, cmp.Or(err, fmt.Errorf("the registration of %s: %v", w.id, record))
		}
		s.record = registration.ETag
	}
	device, err := p.do("GET", "/devices/"+w.id, "")
	if err != nil || device.status == 404 {
		return s, err
	}
	var identity struct {
		Authentication struct{ SymmetricKey struct{ PrimaryKey sas.Key } }
	}
	if err := device.decode(&identity); err != nil {
		return s, err
	}
	doc, err := readTwin(p.crashHub, w.id)
	if err != nil {
		return s, err
	}
	s.twin = doc.Tags.N
	if doc.Properties.Desired.N != s.twin {
		return s, fmt.Errorf("%s has the tag of number %d, and desired properties of %d", w.id, s.twin, doc.Properties.Desired.N)
	}
	for s.key = 1; s.key <= w.n; s.key++ {
		if identity.Authentication.SymmetricKey.PrimaryKey == w.key(s.key) {
			return s, nil
		}
	}
	return s, fmt.Errorf("%s has a key that it was never enrolled with", w.id)
}
