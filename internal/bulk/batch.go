package bulk

import (
	"context"
	"errors"

	"github.com/iotdm/iotdm/hubrest"
)

// A batchBuilder collects the lines of a request.
type batchBuilder struct {
	im      *Import
	lines   []Line
	names   map[string]bool
	blocked map[string]bool // devices with a line held back
	bytes   int
}

func (b *batchBuilder) full() bool {
	return len(b.lines) >= hubrest.MaxBulk || b.bytes >= maxBatchBytes
}

// add takes the line into the request, or holds it back.
func (b *batchBuilder) add(ctx context.Context, l Line) error {
	e := &l.entry
	if b.full() {
		b.hold(l)
		return nil
	}
	if l.err != nil {
		b.lines = append(b.lines, l) // so that it is reported in its turn
		return nil
	}
	if e.ImportMode == "" {
		e.ImportMode = b.im.Mode
	}
	parent := parentOf(*e)
	if b.busy(e.ID) || parent != "" && b.busy(parent) {
		b.hold(l)
		return nil
	}
	room := len(b.im.parked) < maxParked
	if b.im.waiting[e.ID] && room {
		b.im.park(l)
		return nil
	}
	if parent != "" && !b.im.DryRun {
		scope, err := b.im.scopeOf(ctx, parent)
		switch {
		case err != nil:
			return err
		case scope == "" && room:
			b.im.park(l)
			return nil
		case scope == "":
			b.lines = append(b.lines, orphan(l))
			return nil
		}
		setParent(e, scope)
	}
	if b.names == nil {
		b.names = make(map[string]bool, hubrest.MaxBulk)
	}
	b.names[e.ID] = true
	b.bytes += 512 + len(e.Tags) + len(e.Properties.Desired) + len(e.Properties.Reported)
	b.lines = append(b.lines, l)
	return nil
}

func (b *batchBuilder) busy(device string) bool {
	return b.names[device] || b.blocked[device] || b.im.devices[device] > 0
}

func (b *batchBuilder) hold(l Line) {
	b.im.held = append(b.im.held, l)
	b.blocked[l.entry.ID] = true
}

// parentOf returns the id of the IoT Edge device that an entry is to be a child
// of; "" is none.
func parentOf(e hubrest.BulkEntry) string {
	if e.ModuleID != "" || changesOnlyTwin(e.ImportMode) || deletes(e.ImportMode) {
		return ""
	}
	scope := ""
	if len(e.ParentScopes) > 0 {
		scope = e.ParentScopes[0]
	} else if e.Capabilities == nil || !e.Capabilities.IoTEdge {
		scope = e.DeviceScope // an edge device's is its own
	}
	return hubrest.ScopeDevice(scope)
}

// setParent makes e a child of the device with scope: that in the file has the
// generation id that its parent had where it was exported.
func setParent(e *hubrest.BulkEntry, scope string) {
	e.ParentScopes = []string{scope}
	e.DeviceScope = ""
	if e.Capabilities == nil || !e.Capabilities.IoTEdge {
		e.DeviceScope = scope
	}
}

// scopeOf returns the scope of an IoT Edge device of the hub, "" if there is
// none.
func (im *Import) scopeOf(ctx context.Context, device string) (string, error) {
	if scope, known := im.scopes[device]; known {
		return scope, nil
	}
	var parent hubrest.Device
	err := im.throttle.do(ctx, func() (err error) {
		parent, err = im.Client.Device(ctx, device)
		return err
	})
	if err != nil && !errors.Is(err, hubrest.ErrNotFound) {
		return "", err
	}
	scope := ""
	if parent.Capabilities.IoTEdge {
		scope = parent.DeviceScope
	}
	if scope != "" && len(im.scopes) < maxScopes {
		im.scopes[device] = scope
	}
	return scope, nil
}

func deletes(m hubrest.ImportMode) bool {
	return m == hubrest.ImportDelete || m == hubrest.ImportDeleteIfMatchETag
}

func changesOnlyTwin(m hubrest.ImportMode) bool {
	return m == hubrest.ImportUpdateTwin || m == hubrest.ImportUpdateTwinIfMatchETag
}
