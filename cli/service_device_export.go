package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
)

type deviceExportOptions struct {
	serviceOptions
	file   string // "" and "-" are standard output
	format string
	where  string
	keys   bool
}

func deviceExportCommand(s streams) *urfave.Command {
	var o deviceExportOptions
	return leaf(&urfave.Command{
		Name:      "export",
		Usage:     "write all devices and modules, with their twins, to a file",
		ArgsUsage: "[FILE]",
		Description: "Writes a line of JSON for each, in the format of the export jobs of IoT Hub,\n" +
			"or CSV. FILE is replaced when all is written; without it the lines go to\n" +
			"standard output. Devices come before their modules and parents before their\n" +
			"children, as \"iotdm service device import\" wants them. For example:\n" +
			"   iotdm service device export devices.ndjson --keys\n" +
			"   iotdm service device export north.csv --where \"tags.site = 'north'\"\n\n" +
			"Only with --keys the file has the keys, and who manages a module: that takes\n" +
			"one more request for each of them.",
		Flags: concat([]urfave.Flag{
			&urfave.BoolFlag{Name: "keys", Destination: &o.keys, DisableDefaultText: true, Usage: "with the keys of the devices; only you may read FILE then"},
			&urfave.StringFlag{Name: "where", Destination: &o.where, Usage: "only the devices and modules that meet the query `CONDITION`"},
			bulkFormatFlag(&o.format),
		}, o.hubFlags()),
		Action: func(ctx *urfave.Context) error {
			o.file = ctx.Args().First()
			if err := checkBulkFormat(o.format); err != nil {
				return err
			}
			if o.format == "" && strings.EqualFold(filepath.Ext(o.file), ".csv") {
				o.format = "csv"
			}
			return exportDevices(ctx.Context, s, o)
		},
	})
}

// A bulkWriter writes the entries of an export.
type bulkWriter interface {
	write(*hubrest.BulkEntry) error
	flush() error
}

func newBulkWriter(w io.Writer, format string, keys bool) (bulkWriter, error) {
	if format == "csv" {
		return newCSVWriter(w, keys)
	}
	return &ndjsonWriter{bufio.NewWriterSize(w, 64<<10)}, nil
}

type ndjsonWriter struct{ w *bufio.Writer }

func (n *ndjsonWriter) write(e *hubrest.BulkEntry) error {
	line, err := jsontext.Marshal(e)
	if err != nil {
		return err
	}
	n.w.Write(line)
	return n.w.WriteByte('\n')
}

func (n *ndjsonWriter) flush() error { return n.w.Flush() }

func exportDevices(ctx context.Context, s streams, o deviceExportOptions) (err error) {
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	out, toFile := s.out, o.file != "" && o.file != "-"
	var file *os.File
	if toFile {
		if file, err = createBeside(o.file, o.keys); err != nil {
			return failf(statusFailed, "%v", plainPathError(err))
		}
		defer func() {
			file.Close()
			os.Remove(file.Name()) // when it is renamed it is gone
		}()
		out = file
	}
	w, err := newBulkWriter(out, o.format, o.keys)
	if err != nil {
		return err
	}
	progress := newTally(s)
	ex := &bulkExport{client: client, keys: o.keys, writer: w, throttle: newThrottle(progress)}
	ex.wrote = func() { progress.show(ex.count, identities(ex.count)) }
	err = ex.run(ctx, o.where)
	progress.clear()
	written := identities(ex.count)
	switch {
	case ctx.Err() != nil && toFile:
		return failf(statusFailed, "interrupted after %s; %s is as it was", written, o.file)
	case ctx.Err() != nil:
		return failf(statusFailed, "interrupted after %s", written)
	case err != nil:
		return t.explain(ctx, err, noIdentity)
	}
	if err := w.flush(); err != nil {
		return failf(statusFailed, "%v", plainPathError(err))
	}
	if !toFile {
		s.note("Exported %s", written)
		return nil
	}
	if err := firstError(file.Sync(), file.Close()); err != nil { // not all of it is on disk
		return failf(statusFailed, "%v", plainPathError(err))
	}
	if err := os.Rename(file.Name(), o.file); err != nil {
		return failf(statusFailed, "%v", plainPathError(err))
	}
	s.note("Exported %s to %s", written, o.file)
	return nil
}

// identities is a number of devices and modules for people.
func identities(n int) string {
	if n == 1 {
		return "1 identity"
	}
	return fmt.Sprint(n, " identities")
}

// createBeside creates a file with a name of its own in the folder of name, to
// be renamed to it.
func createBeside(name string, secret bool) (*os.File, error) {
	mode := os.FileMode(0o666)
	if secret {
		mode = 0o600
	}
	for n := 0; ; n++ {
		f, err := os.OpenFile(fmt.Sprintf("%s.%d-%d.tmp", name, os.Getpid(), n), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if !errors.Is(err, os.ErrExist) {
			return f, err
		}
	}
}

// A bulkExport reads the devices and modules of a hub as bulk entries.
type bulkExport struct {
	client   *hubrest.Client
	keys     bool
	writer   bulkWriter
	throttle *throttle
	wrote    func()
	count    int
}

// exportWindow is how many identities are read at a time for their keys.
const exportWindow = 16

// run writes the IoT Edge devices first, as parents have to be there before
// their children, then the other devices, then the modules.
func (ex *bulkExport) run(ctx context.Context, where string) error {
	edges, err := ex.edges(ctx, where)
	if err != nil {
		return err
	}
	if err := ex.write(ctx, edges); err != nil {
		return err
	}
	for _, query := range []string{
		"SELECT * FROM devices WHERE capabilities.iotEdge = false" + and(where),
		"SELECT * FROM devices.modules" + strings.Replace(and(where), " AND", " WHERE", 1),
	} {
		var window []hubrest.BulkEntry
		err := ex.query(ctx, query, func(e hubrest.BulkEntry) error {
			if window = append(window, e); len(window) < exportWindow {
				return nil
			}
			err := ex.write(ctx, window)
			window = window[:0]
			return err
		})
		if err == nil {
			err = ex.write(ctx, window)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func and(condition string) string {
	if condition == "" || strings.TrimSpace(condition) == "*" {
		return ""
	}
	return " AND (" + condition + ")"
}

// edges returns the IoT Edge devices, parents before their children.
func (ex *bulkExport) edges(ctx context.Context, where string) ([]hubrest.BulkEntry, error) {
	var all []hubrest.BulkEntry
	at := make(map[string]int)
	err := ex.query(ctx, "SELECT * FROM devices WHERE capabilities.iotEdge = true"+and(where), func(e hubrest.BulkEntry) error {
		at[e.ID] = len(all)
		all = append(all, e)
		return nil
	})
	sorted := make([]hubrest.BulkEntry, 0, len(all))
	taken := make([]bool, len(all))
	for i := range all {
		// From the device up to an ancestor that is written already.
		var line []int
		for more := true; more && !taken[i]; {
			line, taken[i] = append(line, i), true
			i, more = at[parentOf(all[i])]
		}
		for _, i := range slices.Backward(line) {
			sorted = append(sorted, all[i])
		}
	}
	return sorted, err
}

// query calls fn with an entry for each row.
func (ex *bulkExport) query(ctx context.Context, query string, fn func(hubrest.BulkEntry) error) error {
	for row, err := range ex.client.Query(ctx, query, 0) {
		if err != nil {
			return err
		}
		e, err := twinEntry(row)
		if err != nil {
			return fmt.Errorf("read the devices: the hub's answer is not as documented: %w", err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// twinEntry is the entry of a twin, which shows all of its identity but keys.
func twinEntry(row json.RawMessage) (hubrest.BulkEntry, error) {
	var t struct {
		hubrest.BulkEntry
		DeviceID           string                     `json:"deviceId"`
		TwinETag           string                     `json:"etag"`
		DeviceETag         string                     `json:"deviceEtag"`
		AuthenticationType hubrest.AuthenticationType `json:"authenticationType"`
		X509Thumbprint     hubrest.X509Thumbprint     `json:"x509Thumbprint"`
	}
	if err := json.Unmarshal(row, &t); err != nil {
		return hubrest.BulkEntry{}, err
	}
	e := t.BulkEntry
	e.ID, e.ETag, e.TwinETag = t.DeviceID, t.DeviceETag, t.TwinETag
	e.Authentication = hubrest.Authentication{Type: t.AuthenticationType, X509Thumbprint: t.X509Thumbprint}
	if e.ModuleID != "" {
		e.Status = "" // that of its device
	}
	return e, nil
}

// write writes entries in their order, with their keys if these are wanted.
func (ex *bulkExport) write(ctx context.Context, entries []hubrest.BulkEntry) error {
	for len(entries) > 0 {
		window := entries[:min(len(entries), exportWindow)]
		entries = entries[len(window):]
		if err := ex.readKeys(ctx, window); err != nil {
			return err
		}
		for i := range window {
			if window[i].ID == "" {
				continue // gone since the query
			}
			if err := ex.writer.write(&window[i]); err != nil {
				return err
			}
			ex.count++
			ex.wrote()
		}
	}
	return ctx.Err()
}

// readKeys reads the identities of entries side by side.
func (ex *bulkExport) readKeys(ctx context.Context, entries []hubrest.BulkEntry) error {
	if !ex.keys {
		return nil
	}
	errs := make([]error, len(entries))
	var wg sync.WaitGroup
	for i := range entries {
		e := &entries[i]
		if e.ModuleID == "" && e.Authentication.Type != hubrest.AuthSAS {
			continue
		}
		wg.Go(func() {
			errs[i] = ex.throttle.do(ctx, func() error { return ex.readIdentity(ctx, e) })
		})
	}
	wg.Wait()
	return firstError(errs...)
}

func (ex *bulkExport) readIdentity(ctx context.Context, e *hubrest.BulkEntry) error {
	var err error
	if e.ModuleID == "" {
		var d hubrest.Device
		d, err = ex.client.Device(ctx, e.ID)
		e.Authentication = d.Authentication
	} else {
		var m hubrest.Module
		m, err = ex.client.Module(ctx, hubrest.Target{DeviceID: e.ID, ModuleID: e.ModuleID})
		e.Authentication, e.ManagedBy = m.Authentication, m.ManagedBy
	}
	if errors.Is(err, hubrest.ErrNotFound) {
		*e, err = hubrest.BulkEntry{}, nil
	}
	return err
}
