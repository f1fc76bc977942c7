package bulk

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/iotdm/iotdm/cli/internal/condition"
	"github.com/iotdm/iotdm/hubrest"
)

// rehearse says what apply would do, by what the hub has now.
func (im *Import) rehearse(ctx context.Context, b outcome, todo []int) error {
	var devices []string
	modules := false
	for _, i := range todo {
		devices = append(devices, b.lines[i].entry.ID)
		modules = modules || b.lines[i].entry.ModuleID != ""
	}
	have := make(map[hubrest.Target]hubrest.Twin)
	collections := []string{"devices"}
	if modules {
		collections = append(collections, "devices.modules")
	}
	for _, from := range collections {
		err := im.throttle.do(ctx, func() error {
			for row, err := range im.Client.Query(ctx, "SELECT * FROM "+from+" WHERE "+condition.AnyOf(devices), 0) {
				if err != nil {
					return err
				}
				var t hubrest.Twin
				if err := json.Unmarshal(row, &t); err != nil {
					return fmt.Errorf("find what there is: the hub's answer is not as documented: %w", err)
				}
				have[hubrest.Target{DeviceID: t.DeviceID, ModuleID: t.ModuleID}] = t
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, i := range todo {
		e, r := b.lines[i].entry, &b.results[i]
		twin, found := have[hubrest.Target{DeviceID: e.ID, ModuleID: e.ModuleID}]
		r.rehearse(e, twin, found)
	}
	return nil
}

// rehearse says what would become of one entry.
func (r *LineResult) rehearse(e hubrest.BulkEntry, now hubrest.Twin, found bool) {
	isAnother := func(have, want string) bool { return want != "" && want != "*" && have != want }
	another := false
	switch e.ImportMode {
	case hubrest.ImportUpdateIfMatchETag, hubrest.ImportCreateOrUpdateIfMatchETag, hubrest.ImportDeleteIfMatchETag:
		another = isAnother(now.DeviceETag, e.ETag)
	case hubrest.ImportUpdateTwinIfMatchETag:
		another = isAnother(now.ETag, e.TwinETag)
	}
	creates := e.ImportMode == hubrest.ImportCreate || e.ImportMode == hubrest.ImportCreateOrUpdate || e.ImportMode == hubrest.ImportCreateOrUpdateIfMatchETag
	switch {
	case found && e.ImportMode == hubrest.ImportCreate:
		r.fail("would fail", 409001, reasonOf(409001, "", ""))
	case !found && !creates && e.ModuleID != "":
		r.fail("would fail", 404010, reasonOf(404010, "", ""))
	case !found && !creates:
		r.fail("would fail", 404001, reasonOf(404001, "", ""))
	case found && another:
		r.fail("would fail", 412001, reasonOf(412001, "", ""))
	case !found:
		r.Result = "would create"
	case deletes(e.ImportMode):
		r.Result = "would delete"
	case changesOnlyTwin(e.ImportMode):
		r.Result = "would update the twin"
	default:
		r.Result = "would update"
	}
}
