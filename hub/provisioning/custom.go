package provisioning

import (
	"cmp"
	"context"
	"encoding/json"

	"github.com/iotdm/iotdm/hub/internal/linked"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// An allocationRequest is what a webhook is asked; see "How to use custom allocation
// policies".
type allocationRequest struct {
	Individual *Enrollment    `json:"individualEnrollment,omitempty"`
	Group      *Enrollment    `json:"enrollmentGroup,omitempty"`
	Device     runtimeContext `json:"deviceRuntimeContext"`
	Hubs       []string       `json:"linkedHubs"`
}

type runtimeContext struct {
	RegistrationID string          `json:"registrationId"`
	Hub            string          `json:"currentIotHubHostName,omitempty"`
	Device         string          `json:"currentDeviceId,omitempty"`
	X509           *struct{}       `json:"x509,omitempty"`
	SymmetricKey   *struct{}       `json:"symmetricKey,omitempty"`
	Payload        json.RawMessage `json:"payload,omitempty"`
}

// ask has the webhook choose one of the hubs.
//
// Errors: errAllocation.
func (g *registering) ask(ctx context.Context, all []choice) (choice, error) {
	failed := func(format string, args ...any) (choice, error) {
		return choice{}, errAllocation.Because("webhook: "+format, args...)
	}
	if g.by.Custom == nil {
		return failed("there is none")
	}
	enrollment := g.by.Enrollment
	enrollment.Attestation = enrollment.Attestation.shown()
	r := allocationRequest{Device: runtimeContext{RegistrationID: g.peer.ID, Payload: g.request.Payload}, Hubs: []string{}}
	if enrollment.Kind() == Group {
		r.Group = &enrollment
	} else {
		r.Individual = &enrollment
	}
	if g.before.Device != "" {
		r.Device.Hub, r.Device.Device = cmp.Or(g.stored.Shown.Hub, g.before.Hub, g.here()), g.before.Device
	}
	var shown Registration
	shown.attestedBy(g.by)
	r.Device.X509, r.Device.SymmetricKey = shown.X509, shown.SymmetricKey
	for _, c := range all {
		r.Hubs = append(r.Hubs, c.name)
	}
	answer, err := linked.Ask(ctx, g.by.Custom.URL, g.opt.WebhookHosts, words.MustMarshal(r))
	if err != nil {
		return failed("%v", err)
	}
	var a struct {
		Hub     string          `json:"iotHubHostName"`
		Twin    *Twin           `json:"initialTwin"`
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return failed("its answer is not the JSON of an allocation")
	}
	if err := a.Twin.change("").Validate(g.now); err != nil {
		return failed("its initialTwin: %v", err)
	}
	c := g.find(a.Hub)
	if c == nil || !among(all, *c) {
		return failed("%q is none of the hubs", words.Clip(a.Hub))
	}
	c.twin, c.payload = a.Twin, words.Present(a.Payload)
	return *c, nil
}

// among reports whether a hub is one of those in list, by whatever name.
func among(list []choice, c choice) bool {
	for _, one := range list {
		if one.linked == c.linked {
			return true
		}
	}
	return false
}
