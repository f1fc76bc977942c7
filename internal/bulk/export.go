package bulk

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// A writerOf writes the entries of an export. Flush writes what it still has.
type writerOf[E any] interface {
	write(*E) error
	Flush() error
}

// A Writer writes devices and modules.
type Writer = writerOf[hubrest.BulkEntry]

// NewWriter returns a writer of a format: "csv", or else lines of JSON. A table
// has columns for keys only if they are wanted.
func NewWriter(w io.Writer, format string, keys bool) (Writer, error) {
	if format == "csv" {
		return newCSVWriter(w, identityTable, keys)
	}
	return &ndjsonWriter[hubrest.BulkEntry]{bufio.NewWriterSize(w, 64<<10)}, nil
}

type ndjsonWriter[E any] struct{ w *bufio.Writer }

func (n *ndjsonWriter[E]) write(e *E) error {
	line, err := jsontext.Marshal(e)
	if err != nil {
		return err
	}
	n.w.Write(line)
	return n.w.WriteByte('\n')
}

func (n *ndjsonWriter[E]) Flush() error { return n.w.Flush() }

// An Export writes the devices and modules of a hub.
type Export struct {
	Client *hubrest.Client
	Keys   bool // read the keys too, and who manages a module: a request for each
	Writer Writer
	Paused func(time.Duration) // hears of each pause that a busy hub makes it take; nil: nobody
	Wrote  func()              // called for each identity
	Count  int                 // of the identities that are written

	throttle *throttle
}

// Run writes what meets the condition where; "" is all. The IoT Edge devices come
// first, as parents have to be there before their children, then the other
// devices, then the modules.
func (ex *Export) Run(ctx context.Context, where string) error {
	ex.throttle = &throttle{paused: ex.Paused}
	edges, err := ex.edges(ctx, where)
	if err != nil {
		return err
	}
	if err := ex.write(ctx, edges); err != nil {
		return err
	}
	for _, query := range []string{
		"SELECT * FROM devices WHERE capabilities.iotEdge = false" + condition.And(where),
		"SELECT * FROM devices.modules" + strings.Replace(condition.And(where), " AND", " WHERE", 1),
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

// edges returns the IoT Edge devices, parents before their children.
func (ex *Export) edges(ctx context.Context, where string) ([]hubrest.BulkEntry, error) {
	var all []hubrest.BulkEntry
	at := make(map[string]int)
	err := ex.query(ctx, "SELECT * FROM devices WHERE capabilities.iotEdge = true"+condition.And(where), func(e hubrest.BulkEntry) error {
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
func (ex *Export) query(ctx context.Context, query string, fn func(hubrest.BulkEntry) error) error {
	for row, err := range ex.Client.Query(ctx, query, 0) {
		if err != nil {
			return err
		}
		e, _, err := twinEntry(row)
		if err != nil {
			return fmt.Errorf("read the devices: the hub's answer is not as documented: %w", err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// write writes entries in their order, with their keys if these are wanted.
func (ex *Export) write(ctx context.Context, entries []hubrest.BulkEntry) error {
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
			if err := ex.Writer.write(&window[i]); err != nil {
				return err
			}
			ex.Count++
			ex.Wrote()
		}
	}
	return ctx.Err()
}

// readKeys reads the identities of entries side by side.
func (ex *Export) readKeys(ctx context.Context, entries []hubrest.BulkEntry) error {
	if !ex.Keys {
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
			errs[i] = ex.throttle.do(ctx, func() error { return readIdentity(ctx, ex.Client, e) })
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// readIdentity fills in what no twin shows. Of what has gone nothing is left.
func readIdentity(ctx context.Context, client *hubrest.Client, e *hubrest.BulkEntry) error {
	var err error
	if e.ModuleID == "" {
		var d hubrest.Device
		d, err = client.Device(ctx, e.ID)
		e.Authentication = d.Authentication
	} else {
		var m hubrest.Module
		m, err = client.Module(ctx, hubrest.Target{DeviceID: e.ID, ModuleID: e.ModuleID})
		e.Authentication, e.ManagedBy = m.Authentication, m.ManagedBy
	}
	if errors.Is(err, hubrest.ErrNotFound) {
		*e, err = hubrest.BulkEntry{}, nil
	}
	return err
}

// exportWindow is how many identities are read at a time for their keys.
const exportWindow = 16

// IdentityOf is the entry of a twin, a row of "SELECT * FROM devices", without the twin's own sections: what an update of
// the identity takes.
func IdentityOf(row json.RawMessage) (hubrest.BulkEntry, error) {
	e, _, err := twinEntry(row)
	e.Tags, e.Properties, e.TwinETag = nil, hubrest.BulkProperties{}, ""
	return e, err
}

// twinEntry is the entry of a twin, which shows all of its identity but keys, and
// whether it is connected.
func twinEntry(row json.RawMessage) (e hubrest.BulkEntry, connected bool, err error) {
	var t struct {
		hubrest.BulkEntry
		DeviceID           string                     `json:"deviceId"`
		TwinETag           string                     `json:"etag"`
		DeviceETag         string                     `json:"deviceEtag"`
		AuthenticationType hubrest.AuthenticationType `json:"authenticationType"`
		X509Thumbprint     hubrest.X509Thumbprint     `json:"x509Thumbprint"`
		ConnectionState    string                     `json:"connectionState"`
	}
	if err := json.Unmarshal(row, &t); err != nil {
		return hubrest.BulkEntry{}, false, err
	}
	e = t.BulkEntry
	e.ID, e.ETag, e.TwinETag = t.DeviceID, t.DeviceETag, t.TwinETag
	e.Authentication = hubrest.Authentication{Type: t.AuthenticationType, X509Thumbprint: t.X509Thumbprint}
	if e.ModuleID != "" {
		e.Status = "" // that of its device
	}
	return e, t.ConnectionState == "Connected", nil
}
