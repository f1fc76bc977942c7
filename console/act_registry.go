package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
)

// actDelete removes the identities of the form.
func (c *Console) actDelete(w http.ResponseWriter, r *http.Request) error {
	where, sc, err := c.admitted(r)
	if err != nil {
		return c.showAct(w, r, r.PostFormValue("where"), err)
	}
	return c.actRun(w, r, where, "Delete "+devicesNoun(sc.Devices), "deviceId", func(twin json.RawMessage) (hubrest.BulkEntry, bool, error) {
		var id struct{ DeviceID string }
		err := json.Unmarshal(twin, &id)
		return hubrest.BulkEntry{ID: id.DeviceID, ImportMode: hubrest.ImportDelete}, true, err
	})
}

// actStatus enables or disables the devices of the form.
func (c *Console) actStatus(w http.ResponseWriter, r *http.Request) error {
	status, reason := hubrest.Status(r.PostFormValue("status")), strings.TrimSpace(r.PostFormValue("reason"))
	where, sc, err := c.admitted(r)
	if err == nil && status != hubrest.Enabled && status != hubrest.Disabled {
		err = invalid("are they to be enabled or disabled? choose one")
	}
	if err != nil {
		return c.showAct(w, r, r.PostFormValue("where"), err)
	}
	title := phrase.Choose(status == hubrest.Enabled, "Enable ", "Disable ") + devicesNoun(sc.Devices)
	return c.actRun(w, r, where, title, "*", func(twin json.RawMessage) (hubrest.BulkEntry, bool, error) {
		e, err := bulk.IdentityOf(twin)
		if e.Status == status && e.StatusReason == reason {
			return e, false, err
		}
		e.Status, e.StatusReason, e.ImportMode = status, reason, hubrest.ImportUpdateIfMatchETag
		return e, true, err
	})
}

func devicesNoun(n int) string {
	return number(n) + phrase.Choose(n == 1, " device", " devices")
}

// actRun starts a run that makes a line of import of these fields of each twin that meets the condition, and imports the
// lines. All are looked for first: what is changed meanwhile would shift the pages.
func (c *Console) actRun(w http.ResponseWriter, r *http.Request, where, title, fields string, lineOf func(twin json.RawMessage) (hubrest.BulkEntry, bool, error)) error {
	run, err := c.begin(r, title, register, false, func(ctx context.Context, run *run) error {
		lines, err := spool()
		if err != nil {
			return err
		}
		defer unspool(lines)
		if err := c.collect(ctx, run, lines, "SELECT "+fields+" FROM devices"+condition.Where(where), lineOf); err != nil {
			return err
		}
		size, err := lines.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		u := &upload{file: lines, size: size, name: "the list of devices", of: ofDevices, format: "ndjson", mode: hubrest.ImportUpdate}
		return c.importFile(ctx, run, u)
	})
	if err != nil {
		return c.showAct(w, r, where, err)
	}
	return c.done(w, r, "/run/"+run.id, "")
}

func (c *Console) collect(ctx context.Context, run *run, lines *os.File, query string, lineOf func(json.RawMessage) (hubrest.BulkEntry, bool, error)) error {
	out := bufio.NewWriterSize(lines, 64<<10)
	for row, err := range c.opt.Client.Query(ctx, query, pageSizes[len(pageSizes)-1]) {
		if err != nil {
			return err
		}
		entry, changes, err := lineOf(row)
		if err != nil {
			return errors.New("look for the devices: the hub's answer is not as documented")
		}
		run.change(func(s *runState) { s.Looked++ })
		if !changes {
			continue
		}
		line, err := jsontext.Marshal(entry)
		if err != nil {
			return err
		}
		out.Write(line)
		out.WriteByte('\n')
	}
	return out.Flush()
}
