package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
)

// A modulesPage lists the modules of a device; of an IoT Edge device with what its agent reports of them.
type modulesPage struct {
	deviceHead
	Modules []moduleRow
	Agent   *edgeAgent // nil: it is no IoT Edge device, or $edgeAgent has never been there
	NoAgent string     // why the agent's report is not known
}

// A moduleRow is a module identity, a module that an IoT Edge device is to run, or both.
type moduleRow struct {
	On         hubrest.Target
	Registered bool
	State      string // of the connection
	ManagedBy  string
	Activity   hubrest.Time
	Edge       *edgeModule
}

// An edgeAgent is what $edgeAgent reports of itself.
type edgeAgent struct {
	Version     string // of the runtime
	Code        int64  // 200 when it did as it was told; 0 if it has not reported
	Description string
	Applied     int64 // the version of its desired properties that it has carried out
	Wanted      int64 // the version that there is
}

// An edgeModule is what the twin of $edgeAgent has about a module.
type edgeModule struct {
	Image       string
	Wanted      string // running or stopped; empty: it is to go
	Policy      string // when it is started again
	Runtime     string // as the agent reports: running, stopped, failed, backoff, unhealthy, ...
	Description string
	Exit        string // the code with which it ended last
	Restarts    string
	Started     time.Time
}

const edgeAgentID = "$edgeAgent"

func (c *Console) modules(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	h, err := c.head(r.Context(), on, "modules")
	if err != nil {
		return err
	}
	p := modulesPage{deviceHead: h}
	if p.Modules, err = c.moduleRows(r.Context(), on.DeviceID); err != nil {
		return about(on, err)
	}
	if h.Edge {
		p.addEdge(c.edgeAgentTwin(r.Context(), on.DeviceID))
	}
	c.render(w, r, page{Template: "modules", Title: titleOf(on, "Modules"), Section: "Devices", Data: p})
	return nil
}

// moduleRows returns the module identities, from the registry or else by a query.
func (c *Console) moduleRows(ctx context.Context, device string) ([]moduleRow, error) {
	var rows []moduleRow
	if c.may(ctx).RegistryRead {
		list, err := c.opt.Client.Modules(ctx, device)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			rows = append(rows, moduleRow{On: hubrest.Target{DeviceID: device, ModuleID: m.ModuleID}, Registered: true,
				State: m.ConnectionState, ManagedBy: m.ManagedBy, Activity: m.LastActivityTime})
		}
	} else {
		where := condition.Where("deviceId = " + condition.Quote(device))
		for row, err := range c.opt.Client.Query(ctx, "SELECT moduleId, connectionState, lastActivityTime FROM devices.modules"+where, 0) {
			if err != nil {
				return nil, err
			}
			var m hubrest.Module
			if err := json.Unmarshal(row, &m); err != nil {
				return nil, err
			}
			rows = append(rows, moduleRow{On: hubrest.Target{DeviceID: device, ModuleID: m.ModuleID}, Registered: true,
				State: m.ConnectionState, Activity: m.LastActivityTime})
		}
	}
	sortModules(rows)
	return rows, nil
}

func sortModules(rows []moduleRow) {
	slices.SortFunc(rows, func(a, b moduleRow) int { return strings.Compare(a.On.ModuleID, b.On.ModuleID) })
}

// edgeAgentTwin returns the twin of $edgeAgent, or why it is not known.
func (c *Console) edgeAgentTwin(ctx context.Context, device string) (hubrest.Twin, string) {
	if !c.may(ctx).ServiceConnect {
		return hubrest.Twin{}, "The twin of $edgeAgent tells what runs on the device; the credential of this console lacks ServiceConnect to read it"
	}
	t, err := c.opt.Client.Twin(ctx, hubrest.Target{DeviceID: device, ModuleID: edgeAgentID})
	switch {
	case errors.Is(err, hubrest.ErrNotFound):
		return t, "The device has no module $edgeAgent yet: the runtime of IoT Edge makes it when it first connects, or a configuration"
	case err != nil:
		return t, c.explain(ctx, err)
	}
	return t, ""
}

// addEdge adds what the twin of $edgeAgent has.
func (p *modulesPage) addEdge(t hubrest.Twin, none string) {
	if none != "" {
		p.NoAgent = none
		return
	}
	desired, reported := gjson.ParseBytes(t.Desired), gjson.ParseBytes(t.Reported)
	p.Agent = &edgeAgent{
		Version: reported.Get("version.version").String(), Code: reported.Get("lastDesiredStatus.code").Int(),
		Description: reported.Get("lastDesiredStatus.description").String(),
		Applied:     reported.Get("lastDesiredVersion").Int(), Wanted: t.DesiredVersion,
	}
	edges := map[string]*edgeModule{}
	edge := func(id string) *edgeModule {
		if edges[id] == nil {
			edges[id] = &edgeModule{}
		}
		return edges[id]
	}
	for _, group := range []struct{ name, prefix string }{{"systemModules", "$"}, {"modules", ""}} {
		desired.Get(group.name).ForEach(func(name, m gjson.Result) bool {
			e := edge(group.prefix + name.String())
			e.Image, e.Policy = m.Get("settings.image").String(), m.Get("restartPolicy").String()
			e.Wanted = cmp.Or(m.Get("status").String(), "running")
			return true
		})
		reported.Get(group.name).ForEach(func(name, m gjson.Result) bool {
			e := edge(group.prefix + name.String())
			e.Runtime, e.Description = m.Get("runtimeStatus").String(), m.Get("statusDescription").String()
			e.Exit, e.Restarts = m.Get("exitCode").String(), m.Get("restartCount").String()
			e.Image = cmp.Or(e.Image, m.Get("settings.image").String())
			e.Started, _ = time.Parse(time.RFC3339Nano, m.Get("lastStartTimeUtc").String())
			return true
		})
	}
	for i := range p.Modules {
		row := &p.Modules[i]
		row.Edge = edges[row.On.ModuleID]
		delete(edges, row.On.ModuleID)
	}
	for id, e := range edges { // that have no identity, or none yet
		p.Modules = append(p.Modules, moduleRow{On: hubrest.Target{DeviceID: p.On.DeviceID, ModuleID: id}, Edge: e})
	}
	sortModules(p.Modules)
}

// createModule registers a module.
func (c *Console) createModule(w http.ResponseWriter, r *http.Request) error {
	device := targetOf(r)
	on := hubrest.Target{DeviceID: device.DeviceID, ModuleID: strings.TrimSpace(r.PostFormValue("module"))}
	if on.ModuleID == "" {
		return c.failed(w, r, identityPath(device, "modules"), invalid("give the module an id"))
	}
	if _, err := c.opt.Client.CreateModule(r.Context(), hubrest.Module{DeviceID: on.DeviceID, ModuleID: on.ModuleID}); err != nil {
		return c.failed(w, r, identityPath(device, "modules"), about(on, err))
	}
	return c.done(w, r, identityPath(on), "Module "+on.ModuleID+" is created.")
}
