package console

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
	"github.com/iotdm/iotdm/internal/phrase"
)

// exportPage is the data of the form for an export.
type exportPage struct {
	Of    string
	Where string
	Keys  bool // they may be asked for
}

func (c *Console) exportForm(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	p, err := c.newImportPage(v.Get("of"))
	if err != nil {
		return err
	}
	where := v.Get("where")
	if where == "*" {
		where = ""
	}
	c.render(w, r, page{Template: "export", Title: "Export", Section: sectionOf(p.Of),
		Data: exportPage{Of: p.Of, Where: where, Keys: c.mayReadKeys(r, p.Of)}})
	return nil
}

// mayReadKeys reports whether keys may be among what is exported.
func (c *Console) mayReadKeys(r *http.Request, of string) bool {
	m := c.may(r.Context())
	if of == ofDevices {
		return m.RegistryRead && !m.ReadOnly
	}
	return m.Enroll()
}

// export answers with a file. It is an action, although nothing changes, since keys may be in it.
func (c *Console) export(w http.ResponseWriter, r *http.Request) error {
	of, format, where := r.PostFormValue("of"), r.PostFormValue("format"), strings.TrimSpace(r.PostFormValue("where"))
	keys := r.PostFormValue("keys") != ""
	p, err := c.newImportPage(of)
	switch {
	case err != nil:
		return err
	case format != "csv" && format != "ndjson":
		return invalid("choose a format: csv or ndjson")
	case keys && !c.mayReadKeys(r, p.Of):
		return &problem{status: http.StatusForbidden, text: "this console may not read keys"}
	}
	name := p.Of
	if keys {
		name += "-with-keys"
	}
	download := c.newDownload(w, name, format)
	if p.Of == ofDevices {
		var lines bulk.Writer
		if lines, err = bulk.NewWriter(download, format, keys); err != nil {
			return err
		}
		ex := &bulk.Export{Client: c.opt.Client, Keys: keys, Writer: lines, Wrote: func() {}}
		if err = ex.Run(r.Context(), where); err == nil {
			err = lines.Flush()
		}
	} else {
		kind := phrase.Choose(p.Of == ofGroups, string(hubrest.Group), string(hubrest.Individual))
		ex := &bulk.EnrollmentExport{Client: c.opt.Provisioning, Kind: hubrest.EnrollmentKind(kind), Keys: keys, Wrote: func() {}}
		err = ex.Run(r.Context(), download, format)
	}
	return download.end(err)
}

// A download is a file that is answered as it is made. Until some of it is there, an error may still be shown as a page.
type download struct {
	w       http.ResponseWriter
	name    string
	kind    string
	started bool
}

func (c *Console) newDownload(w http.ResponseWriter, name, format string) *download {
	kind := phrase.Choose(format == "csv", "text/csv; charset=utf-8", "application/x-ndjson")
	return &download{w: w, name: fmt.Sprintf("%s-%s.%s", name, c.now().UTC().Format("20060102-150405"), format), kind: kind}
}

func (d *download) start() {
	if !d.started {
		d.started = true
		http.NewResponseController(d.w).SetWriteDeadline(time.Time{}) // it takes as long as it takes
		d.w.Header().Set("Content-Type", d.kind)
		d.w.Header().Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
	}
}

func (d *download) Write(p []byte) (int, error) {
	d.start()
	return d.w.Write(p)
}

// end ends the file. A file that is not whole breaks off, so that the browser does not take it for one that is.
func (d *download) end(err error) error {
	switch {
	case err == nil:
		d.start()
		return nil
	case !d.started:
		return err
	}
	panic(http.ErrAbortHandler) // which is how a handler breaks off an answer
}

var _ io.Writer = (*download)(nil)
