package provisioning

import (
	"cmp"
	"context"
	"encoding/json"
	"hash/fnv"
	"net"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/linked"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// maxHubs is how many hubs an enrollment may name: assumed.
const maxHubs = 100

// A choice is the hub that a device goes to.
type choice struct {
	name    string          // as the device is told it
	linked  *linked.Hub     // nil is this hub
	stays   bool            // it is where the device is
	twin    *Twin           // in place of the enrollment's, if a webhook says so
	payload json.RawMessage // for the device, if a webhook says so
}

// settleAllocation checks what an enrollment says about hubs, and completes it. That
// hubs are linked shows when a device registers.
func (s *Service) settleAllocation(e *Enrollment) (err error) {
	first := Hashed
	if e.HostName != "" {
		first = Static // as api-versions without policies
	}
	if e.Allocation, err = oneOf("allocationPolicy", e.Allocation, first, Hashed, Static, GeoLatency, Custom); err != nil {
		return err
	}
	if len(e.Hubs) > maxHubs {
		return ErrBadRequest.With("iotHubs may name at most %d", maxHubs)
	}
	for _, name := range append(e.Hubs, e.HostName) {
		if len(name) > 253 || strings.ContainsAny(name, " /\t\r\n") {
			return ErrBadRequest.With("%q is not the host name of a hub", words.Clip(name))
		}
	}
	if e.Allocation != Custom {
		return nil
	}
	if e.Custom == nil || e.Custom.URL == "" {
		return ErrBadRequest.With("allocationPolicy custom needs customAllocationDefinition with a webhookUrl")
	}
	if err := linked.CheckWebhook(e.Custom.URL, s.opt.WebhookHosts); err != nil {
		return ErrBadRequest.With("customAllocationDefinition: %v", err)
	}
	return nil
}

// choose chooses the hub of the device.
//
// Errors: errAllocation.
func (g *registering) choose(ctx context.Context) (choice, error) {
	again := g.before.Device != ""
	if again && (g.by.Reprovision == nil || !g.by.Reprovision.UpdateHub) {
		c := choice{stays: true, name: g.here(), payload: g.stored.Shown.Payload}
		name := g.stored.Shown.Hub // empty if it has failed since
		switch {
		case g.before.Hub != "":
			c.name, c.linked = cmp.Or(name, g.before.Hub), g.linkedHub(g.before.Hub)
		case name != "" && g.named(name):
			c.name = name
		}
		return c, nil
	}
	all := g.candidates()
	switch g.by.Allocation {
	case Static:
		name := g.by.HostName
		if name == "" && len(g.by.Hubs) > 0 {
			name = g.by.Hubs[0]
		}
		if name == "" {
			return choice{name: g.here()}, nil
		}
		c := g.find(name)
		if c == nil {
			return choice{}, errAllocation.With("The enrollment's IoT hub is not linked").Because("hub %q", words.Clip(name))
		}
		return *c, nil
	case Custom:
		return g.ask(ctx, all)
	}
	if len(all) == 0 {
		return choice{}, errAllocation.With("None of the enrollment's IoT hubs is linked").Because("hubs %q", g.by.Hubs)
	}
	h := fnv.New64a()
	h.Write([]byte(strings.ToLower(g.peer.ID)))
	return all[h.Sum64()%uint64(len(all))], nil
}

// candidates returns the hubs that the device may go to: those that its enrollment
// names and that are linked, or all.
func (g *registering) candidates() (list []choice) {
	for _, name := range g.by.Hubs {
		if c := g.find(name); c != nil {
			list = append(list, *c)
		}
	}
	if len(g.by.Hubs) > 0 {
		return list
	}
	list = append(list, choice{name: g.here()})
	for _, h := range g.opt.Linked {
		list = append(list, choice{name: h.Name(), linked: h})
	}
	return list
}

// named reports whether the enrollment names the hub so.
func (g *registering) named(name string) bool {
	for _, one := range append([]string{g.by.HostName}, g.by.Hubs...) {
		if strings.EqualFold(one, name) {
			return true
		}
	}
	return false
}

// find returns the hub of a name that an enrollment or a webhook has written, or nil.
func (s *Service) find(name string) *choice {
	if h := s.linkedHub(name); h != nil {
		return &choice{name: name, linked: h}
	}
	if name != "" && (s.hub.IsName(name) || s.opt.HostName != nil && strings.EqualFold(name, s.opt.HostName())) {
		return &choice{name: name}
	}
	return nil
}

func (s *Service) linkedHub(name string) *linked.Hub {
	for _, h := range s.opt.Linked {
		if strings.EqualFold(h.Name(), name) {
			return h
		}
	}
	return nil
}

// here returns the name of this hub for the device: the one under which it has
// reached the hub, since it trusts that.
func (g *registering) here() string {
	host := g.peer.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host = strings.Trim(host, "[]"); host != "" && g.hub.IsName(host) {
		return host
	}
	if g.opt.HostName == nil {
		return "localhost"
	}
	return cmp.Or(g.opt.HostName(), "localhost")
}
