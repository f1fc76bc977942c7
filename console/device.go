package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
)

// deviceRoutes are the pages and actions about one device, its modules, and about events. A module has the tabs that make
// sense for it, below /device/ID/module/MODULE.
func (c *Console) deviceRoutes() []route {
	routes := []route{
		get("/device/{id}/messages", c.messages),
		post("/device/{id}/messages", operate, c.sendMessage),
		post("/device/{id}/purge", operate, c.purgeMessages),
		get("/device/{id}/modules", c.modules),
		post("/device/{id}/modules", register, c.createModule),
		get("/device/{id}/reboot", c.reboots),
		post("/device/{id}/reboot", operate, c.reboot),
		post("/device/{id}/status", register, c.setStatus),
		get("/events", c.events),
		get("/events/live", c.followEvents),
		get("/events/save", c.saveEvents),
	}
	for _, of := range []string{"/device/{id}", "/device/{id}/module/{module}"} {
		routes = append(routes,
			get(of, c.identity),
			post(of+"/keys", nothing, c.showKeys),
			post(of+"/token", nothing, c.makeToken),
			post(of+"/renew", register, c.renewKeys),
			post(of+"/delete", register, c.deleteIdentity),
			get(of+"/twin", c.twin),
			get(of+"/twin/edit", c.editTwin),
			post(of+"/twin/edit", operate, c.saveTwin),
			get(of+"/twin/live", c.followTwin),
			get(of+"/methods", c.methods),
			post(of+"/methods", operate, c.callMethod),
			get(of+"/events", c.events),
			get(of+"/events/live", c.followEvents),
			get(of+"/events/save", c.saveEvents),
			get(of+"/mqtt", c.mqttSettings),
			post(of+"/mqtt", nothing, c.mqttPassword),
		)
	}
	return routes
}

// targetOf is the device or module that a path names.
func targetOf(r *http.Request) hubrest.Target {
	return hubrest.Target{DeviceID: pathID(r, "id"), ModuleID: pathID(r, "module")}
}

// identityPath is the address of the page of a device or module, or of one of its tabs.
func identityPath(on hubrest.Target, tab ...string) string {
	if on.ModuleID == "" {
		return devicePath(on.DeviceID, tab...)
	}
	return devicePath(on.DeviceID, append([]string{"module", idPath(on.ModuleID)}, tab...)...)
}

// A deviceHead is what every tab of a device or module begins with.
type deviceHead struct {
	On              hubrest.Target
	Tab             string
	Tabs            []deviceTab
	ConnectionState string
	Status          hubrest.Status // empty for a module, which follows its device
	Edge            bool
	Waiting         int // cloud-to-device messages
}

// A deviceTab is an entry of the tabs.
type deviceTab struct {
	Path, Name string
	Current    bool
}

// ID is what the page calls the identity.
func (h deviceHead) ID() string { return cmp.Or(h.On.ModuleID, h.On.DeviceID) }

// Path is the address of a tab, or of an action.
func (h deviceHead) Path(tab ...string) string { return identityPath(h.On, tab...) }

// Device is the address of the device that a module is of.
func (h deviceHead) Device() string { return devicePath(h.On.DeviceID) }

// head asks the hub for what a tab begins with. It fails with ErrNotFound if there is no such identity.
func (c *Console) head(ctx context.Context, on hubrest.Target, tab string) (deviceHead, error) {
	if c.may(ctx).ServiceConnect {
		t, err := c.opt.Client.Twin(ctx, on)
		if err != nil {
			return deviceHead{}, about(on, err)
		}
		return headOfTwin(on, t, tab), nil
	}
	i, err := c.lookUp(ctx, on)
	if err != nil {
		return deviceHead{}, err
	}
	return headOf(on, i, tab), nil
}

func headOfTwin(on hubrest.Target, t hubrest.Twin, tab string) deviceHead {
	h := newHead(on, tab)
	h.ConnectionState, h.Edge, h.Waiting = t.ConnectionState, t.Capabilities.IoTEdge, t.CloudToDeviceMessageCount
	if on.ModuleID == "" {
		h.Status = t.Status
	}
	return h
}

func headOf(on hubrest.Target, i hubrest.Device, tab string) deviceHead {
	h := newHead(on, tab)
	h.ConnectionState, h.Edge, h.Waiting = i.ConnectionState, i.Capabilities.IoTEdge, i.CloudToDeviceMessageCount
	if on.ModuleID == "" {
		h.Status = i.Status
	}
	return h
}

func newHead(on hubrest.Target, tab string) deviceHead {
	h := deviceHead{On: on, Tab: tab}
	tabs := []string{"", "twin", "methods", "messages", "events", "modules", "reboot", "mqtt"}
	if on.ModuleID != "" {
		tabs = []string{"", "twin", "methods", "events", "mqtt"}
	}
	for _, name := range tabs {
		t := deviceTab{Path: identityPath(on), Name: "Identity", Current: name == tab}
		if name != "" {
			t.Path, t.Name = identityPath(on, name), strings.ToUpper(name[:1])+name[1:]
		}
		if name == "mqtt" {
			t.Name = "MQTT"
		}
		h.Tabs = append(h.Tabs, t)
	}
	return h
}

// lookUp returns the identity of a device, or that of a module as if it were one.
func (c *Console) lookUp(ctx context.Context, on hubrest.Target) (hubrest.Device, error) {
	if on.ModuleID == "" {
		d, err := c.opt.Client.Device(ctx, on.DeviceID)
		return d, about(on, err)
	}
	m, err := c.opt.Client.Module(ctx, on)
	return hubrest.Device{
		DeviceID: m.DeviceID, GenerationID: m.GenerationID, ETag: m.ETag, ConnectionState: m.ConnectionState,
		ConnectionStateUpdatedTime: m.ConnectionStateUpdatedTime, LastActivityTime: m.LastActivityTime,
		CloudToDeviceMessageCount: m.CloudToDeviceMessageCount, Authentication: m.Authentication,
	}, about(on, err)
}

// titleOf is the title of a tab.
func titleOf(on hubrest.Target, tab string) string {
	title := on.String()
	if tab != "" {
		title = tab + " · " + title
	}
	return title
}

// changedMeanwhile words the refusal of a change whose etag is no longer that of the hub.
func changedMeanwhile(err error) error {
	if errors.Is(err, hubrest.ErrPreconditionFailed) {
		return &problem{status: http.StatusConflict, text: "somebody else has changed it since this page was loaded; look at what is there now, and try again"}
	}
	return err
}
