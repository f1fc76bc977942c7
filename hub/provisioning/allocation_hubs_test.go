package provisioning_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/provisioning"
)

func TestStaticAllocation(t *testing.T) {
	h := newTwoHubs(t)
	twin := initialTwin(`{"site":"berlin"}`, `{"rate":5}`)
	const want = `[{"site":"berlin"},{"rate":5},{}]`
	for n, tt := range []struct {
		hostName string
		hubs     []string
		to       string // as the device is told
		in       devices
	}{
		{there, nil, there, h.there},
		{"", []string{there}, there, h.there},
		{"", []string{there, here}, there, h.there},
		{"", []string{here, there}, here, h.here},
		{here, nil, here, h.here},
		{"Alias.example", nil, "Alias.example", h.here},
	} {
		e := h.group(fmt.Sprintf("static-%d", n), func(e *provisioning.Enrollment) {
			e.Allocation, e.HostName, e.Hubs, e.InitialTwin = provisioning.Static, tt.hostName, tt.hubs, twin
		})
		id := fmt.Sprintf("device-%d", n)
		h.assigned(e, id, tt.to, "initialAssignment")
		h.only(tt.in, e, id, want)
		h.assigned(e, id, tt.to, "initialAssignment") // again, and nothing changes
		h.only(tt.in, e, id, want)
	}
}

func TestHashedAllocationSpreadsDevicesAndKeepsThem(t *testing.T) {
	h := newTwoHubs(t)
	e := h.group("fleet", func(*provisioning.Enrollment) {})
	first := make(map[string]string)
	count := make(map[string]int)
	for n := range 60 {
		id := fmt.Sprintf("Device-%d", n)
		r := h.register(e, id)
		if r.Status != provisioning.Assigned {
			t.Fatalf("%s: %+v", id, r)
		}
		first[id] = r.Hub
		count[r.Hub]++
		h.only(map[string]devices{here: h.here, there: h.there}[r.Hub], e, id, `[{},{},{}]`)
	}
	if count[here] < 15 || count[there] < 15 || len(count) != 2 {
		t.Errorf("devices by hub: %v", count)
	}
	for id, hubName := range first {
		if r := h.register(e, id); r.Hub != hubName {
			t.Errorf("%s was assigned to %s, and then to %s", id, hubName, r.Hub)
		}
		if err := h.DeleteRegistration(id, hub.Match{}); err != nil {
			t.Fatal(err)
		}
		// The hash is of the id and nothing else: not of the time, and not of its case.
		if r := h.register(e, strings.ToLower(id)); r.Hub != hubName {
			t.Errorf("%s was assigned to %s, and as a new one to %s", id, hubName, r.Hub)
		}
	}
	e = h.group("fleet", func(e *provisioning.Enrollment) { e.Hubs = []string{there} })
	for n := range 8 {
		h.assigned(e, fmt.Sprintf("more-%d", n), there, "initialAssignment")
	}
	e = h.group("fleet", func(e *provisioning.Enrollment) {
		e.Hubs, e.Allocation = []string{here, "unknown.example"}, provisioning.GeoLatency
	})
	for n := range 8 {
		h.assigned(e, fmt.Sprintf("latency-%d", n), here, "initialAssignment")
	}
}

func TestHubsThatAreNotLinked(t *testing.T) {
	h := newTwoHubs(t)
	for n, tt := range []provisioning.Enrollment{
		{Allocation: provisioning.Static, HostName: "other.azure-devices.net"},
		{Allocation: provisioning.Static, Hubs: []string{"other.azure-devices.net", here}},
		{Allocation: provisioning.Hashed, Hubs: []string{"other.azure-devices.net", "another.azure-devices.net"}},
		{Allocation: provisioning.Static, HostName: there + ".example"},
	} {
		e := h.group(fmt.Sprintf("group-%d", n), func(e *provisioning.Enrollment) {
			e.Allocation, e.HostName, e.Hubs = tt.Allocation, tt.HostName, tt.Hubs
		})
		h.failed(e, fmt.Sprintf("device-%d", n), "not linked")
		// Once the enrollment is mended it works, as an initial assignment.
		e = h.group(e.GroupID, func(e *provisioning.Enrollment) { e.Allocation, e.HostName = provisioning.Static, here })
		h.assigned(e, fmt.Sprintf("device-%d", n), here, "initialAssignment")
		h.only(h.here, e, fmt.Sprintf("device-%d", n), `[{},{},{}]`)
	}
}

// webhook makes a group whose hub a webhook chooses.
func (h *twoHubs) webhook(id string, answer http.HandlerFunc) provisioning.Enrollment {
	h.t.Helper()
	s := httptest.NewServer(answer)
	h.t.Cleanup(s.Close)
	return h.group(id, func(e *provisioning.Enrollment) {
		e.Allocation, e.Hubs = provisioning.Custom, []string{here, there}
		e.Custom = &provisioning.CustomAllocation{URL: s.URL + "/allocate?code=topsecret", APIVersion: "2021-10-01"}
		e.InitialTwin = initialTwin(`{"from":"enrollment"}`, `{"rate":5}`)
	})
}

func TestCustomAllocation(t *testing.T) {
	h := newTwoHubs(t)
	var asked map[string]any
	answer := `{"iotHubHostName":"` + there + `","initialTwin":{"tags":{"from":"webhook"},"properties":{"desired":{"rate":9}}},"payload":{"welcome":[1,2]}}`
	e := h.webhook("custom", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			asked = nil
			err = json.Unmarshal(body, &asked)
		}
		if err != nil {
			t.Error(err)
		}
		for _, key := range []string{string(e0(h, "custom").Primary), string(e0(h, "custom").Secondary)} {
			if strings.Contains(string(body), key) {
				t.Error("the webhook is told a key of the group")
			}
		}
		io.WriteString(w, answer)
	})
	r := h.registerWith(e, "d1", `{"model":"T-1000"}`)
	if r.Status != provisioning.Assigned || r.Hub != there || string(r.Payload) != `{"welcome":[1,2]}` {
		t.Errorf("registered as %+v, %s\n%s", r, r.Payload, h.log)
	}
	h.only(h.there, e, "d1", `[{"from":"webhook"},{"rate":9},{}]`)
	device := map[string]any{"registrationId": "d1", "payload": map[string]any{"model": "T-1000"}, "symmetricKey": map[string]any{}}
	if diff := cmp.Diff(device, asked["deviceRuntimeContext"]); diff != "" {
		t.Errorf("the device as the webhook is told (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{here, there}, asked["linkedHubs"]); diff != "" {
		t.Errorf("hubs (-want +got):\n%s", diff)
	}
	if g, ok := asked["enrollmentGroup"].(map[string]any); !ok || g["enrollmentGroupId"] != "custom" || asked["individualEnrollment"] != nil {
		t.Errorf("the enrollment is told as %v", asked)
	}
	if stored, err := h.Registration("d1"); err != nil || string(stored.Payload) != `{"welcome":[1,2]}` {
		t.Errorf("stored: %+v, %v", stored, err)
	}

	// The next time it is told where the device is. It stays, and so does its twin,
	// unless the webhook gives another one.
	h.write(h.there, "d1", `{"note":"mine"}`, `{}`, `{"firmware":"2"}`)
	answer = `{"iotHubHostName":"` + strings.ToUpper(there) + `"}`
	if r := h.register(e, "d1"); r.Status != provisioning.Assigned || !strings.EqualFold(r.Hub, there) || r.Payload != nil {
		t.Errorf("again: %+v, %s", r, r.Payload)
	}
	h.only(h.there, e, "d1", `[{"from":"webhook","note":"mine"},{"rate":9},{"firmware":"2"}]`)
	device = map[string]any{"registrationId": "d1", "currentIotHubHostName": there, "currentDeviceId": "d1", "symmetricKey": map[string]any{}}
	if diff := cmp.Diff(device, asked["deviceRuntimeContext"]); diff != "" {
		t.Errorf("the device, again (-want +got):\n%s", diff)
	}

	// Without a twin of the webhook a new device has the enrollment's.
	answer = `{"iotHubHostName":"` + here + `"}`
	h.assigned(e, "d2", here, "initialAssignment")
	h.only(h.here, e, "d2", `[{"from":"enrollment"},{"rate":5},{}]`)
}

// e0 returns the keys of a group.
func e0(h *twoHubs, id string) provisioning.SymmetricKey {
	a, err := h.AttestationMechanism(provisioning.Group, id)
	if err != nil {
		h.t.Error(err)
		return provisioning.SymmetricKey{Primary: "none", Secondary: "none"}
	}
	return *a.SymmetricKey
}

func TestWebhooksThatFail(t *testing.T) {
	h := newTwoHubs(t)
	big := fmt.Sprintf(`{"iotHubHostName":%q,"initialTwin":{"tags":{"x":%q}}}`, here, strings.Repeat("x", 9000))
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		logged string
	}{
		"refuses":          {status(500, "secret of the webhook"), "500"},
		"has no such path": {status(404, ""), "404"},
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		}, "redirects"},
		"answers nothing":      {status(200, ""), "JSON"},
		"answers no JSON":      {status(200, "here"), "JSON"},
		"answers an array":     {status(200, "[]"), "JSON"},
		"names no hub":         {status(200, "{}"), "none of the hubs"},
		"names an unknown":     {status(200, `{"iotHubHostName":"other.example"}`), "other.example"},
		"names a number":       {status(200, `{"iotHubHostName":5}`), "JSON"},
		"has too large a twin": {status(200, big), "initialTwin"},
		"has no twin":          {status(200, `{"iotHubHostName":"here.example","initialTwin":{"tags":5}}`), "initialTwin"},
		"hangs up":             {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			e := h.webhook(id, tt.answer)
			h.failed(e, "device-"+id, tt.logged)
			for _, text := range []string{h.log.String(), h.register(e, "device-"+id).ErrorMessage} {
				if strings.Contains(text, "topsecret") || strings.Contains(text, "secret of the webhook") {
					t.Errorf("somebody is told a secret: %s", text)
				}
			}
			if _, err := h.here.Identity(hub.ID{Device: "device-" + id}); !errors.Is(err, hub.ErrDeviceNotFound) {
				t.Errorf("the device is there: %v", err)
			}
		})
	}
	t.Run("is nobody's", func(t *testing.T) {
		for _, url := range []string{"http://169.254.169.254/latest", "https://hook.example/", "ftp://localhost/", "http://user:word@localhost/"} {
			e := provisioning.Enrollment{GroupID: "elsewhere", Attestation: provisioning.Attestation{Type: provisioning.BySymmetricKey}, Allocation: provisioning.Custom}
			e.Custom = &provisioning.CustomAllocation{URL: url}
			if _, err := h.PutEnrollment(e, hub.Match{}); !errors.Is(err, provisioning.ErrBadRequest) {
				t.Errorf("%s: %v, want a bad request", url, err)
			}
		}
	})
	t.Run("is waited for by a device that goes", func(t *testing.T) {
		gone := errors.New("the device has gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		release := make(chan struct{})
		e := h.webhook("slow", func(http.ResponseWriter, *http.Request) { cancel(gone); <-release })
		t.Cleanup(func() { close(release) })
		if op, err := h.Register(ctx, h.peer(e, "impatient"), provisioning.Request{}); !errors.Is(err, gone) {
			t.Errorf("registered as %+v, %v", op.Registration, err)
		}
	})
}

func status(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}
