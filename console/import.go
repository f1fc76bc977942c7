package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
	"github.com/iotdm/iotdm/internal/phrase"
)

const (
	maxUpload     = 1 << 30   // of a file to be imported, in bytes
	uploadTime    = time.Hour // that one may take
	maxField      = 1 << 10
	importWorkers = 4 // requests at a time
)

// What a file is about, in forms and addresses.
const (
	ofDevices     = "devices"
	ofEnrollments = "enrollments"
	ofGroups      = "groups"
)

// An upload is a file to be imported, and how.
type upload struct {
	file       *os.File
	size       int64
	name       string // as the browser calls it
	of         string
	mode       hubrest.ImportMode
	format     string // "ndjson", "csv", or "" for what it looks like
	rehearsing bool
}

func (u *upload) close() {
	if u != nil {
		unspool(u.file)
	}
}

// kind is what enrollments the file has.
func (u *upload) kind() hubrest.EnrollmentKind {
	if u.of == ofGroups {
		return hubrest.Group
	}
	return hubrest.Individual
}

// importPage is the data of the form for an import.
type importPage struct {
	Of      string
	Modes   []hubrest.ImportMode
	Problem string
}

func (c *Console) newImportPage(of string) (importPage, error) {
	p := importPage{Of: of, Modes: []hubrest.ImportMode{hubrest.ImportCreateOrUpdate, hubrest.ImportCreate, hubrest.ImportUpdate, hubrest.ImportUpdateIfMatchETag}}
	switch of {
	case "", ofDevices:
		p.Of = ofDevices
		p.Modes = append(p.Modes, hubrest.ImportCreateOrUpdateIfMatchETag, hubrest.ImportUpdateTwin, hubrest.ImportUpdateTwinIfMatchETag, hubrest.ImportDelete, hubrest.ImportDeleteIfMatchETag)
	case ofEnrollments, ofGroups:
		p.Modes = append(p.Modes, hubrest.ImportDelete)
		if c.opt.Provisioning == nil {
			return p, errNoProvisioning
		}
	default:
		return p, invalid(fmt.Sprintf("%q is nothing that can be imported", phrase.Clip(of)))
	}
	return p, nil
}

func (c *Console) importForm(w http.ResponseWriter, r *http.Request) error {
	p, err := c.newImportPage(r.URL.Query().Get("of"))
	if err != nil {
		return err
	}
	c.render(w, r, page{Template: "import", Title: "Import", Section: sectionOf(p.Of), Data: p})
	return nil
}

func sectionOf(of string) string {
	if of == ofDevices {
		return "Devices"
	}
	return "Enrollments"
}

// needOf is the right that an import needs.
func needOf(of string) need {
	if of == ofDevices {
		return register
	}
	return enroll
}

// rehearseImport takes a file and finds out what it would do. Nothing is done before the user has seen it.
func (c *Console) rehearseImport(w http.ResponseWriter, r *http.Request) error {
	if err := c.refusal(r.Context(), register); err != nil && c.refusal(r.Context(), enroll) != nil {
		return err // before a large file is read
	}
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(uploadTime))
	u, err := readUpload(r)
	if err == nil {
		err = c.refusal(r.Context(), needOf(u.of))
	}
	if err != nil {
		u.close()
		return err
	}
	p, err := c.newImportPage(u.of)
	if err == nil {
		err = u.check()
	}
	if err != nil {
		u.close()
		p.Problem = c.explain(r.Context(), err)
		c.render(w, r, page{Template: "import", Title: "Import", Section: sectionOf(p.Of), Status: http.StatusUnprocessableEntity, Data: p})
		return nil
	}
	u.rehearsing = true
	return c.beginImport(w, r, u)
}

// check finds out whether the file can be read at all, and settles the mode.
func (u *upload) check() error {
	var known bool
	if u.of == ofDevices {
		u.mode, known = bulk.ModeNamed(string(u.mode))
	} else {
		u.mode, known = bulk.EnrollmentModeNamed(string(u.mode))
	}
	switch {
	case !known:
		return invalid("choose what is to be done with the lines of the file")
	case u.size == 0:
		return invalid("choose a file that is not empty")
	case u.format != "" && u.format != "csv" && u.format != "ndjson":
		return invalid(fmt.Sprintf("the format %q is neither csv nor ndjson", phrase.Clip(u.format)))
	}
	var err error
	if in := io.NewSectionReader(u.file, 0, u.size); u.of == ofDevices {
		_, err = bulk.NewReader(in, u.format)
	} else {
		_, err = bulk.NewEnrollmentReader(in, u.format, u.kind())
	}
	return u.unreadable(err)
}

// unreadable says of what file err is, which words what stands behind its name.
func (u *upload) unreadable(err error) error {
	if err == nil {
		return nil
	}
	return invalid(u.name + " " + err.Error())
}

// beginImport starts a run for the file, which is its own from now on.
func (c *Console) beginImport(w http.ResponseWriter, r *http.Request, u *upload) error {
	verb := phrase.Choose(u.rehearsing, "Look what %s would do", "Import %s")
	run, err := c.begin(r, fmt.Sprintf(verb, u.name), needOf(u.of), u.rehearsing, func(ctx context.Context, run *run) error {
		err := c.importFile(ctx, run, u)
		if u.rehearsing && err == nil && ctx.Err() == nil {
			run.offer(u)
		} else {
			u.close()
		}
		return err
	})
	if err != nil {
		u.close()
		return err
	}
	return c.done(w, r, "/run/"+run.id, "")
}

// offer keeps what may be imported, unless nothing would come of it.
func (r *run) offer(u *upload) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.state.Counts; n.Created+n.Updated+n.Deleted == 0 {
		u.close()
		return
	}
	r.next = u
}

func (c *Console) importFile(ctx context.Context, run *run, u *upload) error {
	run.change(func(s *runState) { s.Total = u.size })
	in := &meter{Reader: io.NewSectionReader(u.file, 0, u.size)}
	im, err := u.importer(c, in, run)
	if err != nil {
		return u.unreadable(err)
	}
	err = run.follow(ctx, im, in)
	if broken := *im.broken; broken != nil && errors.Is(err, broken) {
		return u.unreadable(broken)
	}
	return err
}

// importer returns the import of the file's text. An error tells why it cannot be read, as what stands behind its name.
func (u *upload) importer(c *Console, in io.Reader, r *run) (importer, error) {
	if u.of == ofDevices {
		lines, err := bulk.NewReader(in, u.format)
		if err != nil {
			return importer{}, err
		}
		im := &bulk.Import{Client: c.opt.Client, Lines: lines, Mode: u.mode, DryRun: u.rehearsing, FromLine: 1, Parallel: importWorkers, Paused: c.paused(r)}
		return importer{im.Run, &im.Report, &im.Counts, &im.Broken}, nil
	}
	lines, err := bulk.NewEnrollmentReader(in, u.format, u.kind())
	if err != nil {
		return importer{}, err
	}
	im := &bulk.EnrollmentImport{Client: c.opt.Provisioning, Kind: u.kind(), Lines: lines, Mode: u.mode, DryRun: u.rehearsing, FromLine: 1, Parallel: importWorkers, Paused: c.paused(r)}
	return importer{im.Run, &im.Report, &im.Counts, &im.Broken}, nil
}

// applyImport imports the file of a rehearsal.
func (c *Console) applyImport(w http.ResponseWriter, r *http.Request) error {
	run, err := c.runOf(r)
	if err != nil {
		return err
	}
	if err := c.refusal(r.Context(), run.need); err != nil {
		return err
	}
	if p := c.runPage(r, run); p.Question != "" {
		if err := confirmed(r, fmt.Sprint(p.Want)); err != nil {
			return c.failed(w, r, "/run/"+run.id, err)
		}
	}
	u := run.takeUpload()
	if u == nil {
		return c.failed(w, r, "/run/"+run.id, invalid("the file is no longer kept: it is imported already, or newer ones have taken its place; choose it again"))
	}
	u.rehearsing = false
	return c.beginImport(w, r, u)
}

// readUpload reads the form of an import, whose file goes to a file of ours as it comes. The caller closes what it
// returns, also with an error.
func readUpload(r *http.Request) (*upload, error) {
	form, err := r.MultipartReader()
	if err != nil {
		return nil, invalid("this form needs a file")
	}
	u := &upload{of: ofDevices}
	for {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF) && u.file == nil:
			return nil, invalid("choose a file")
		case errors.Is(err, io.EOF):
			return u, nil
		case err != nil:
			return u.orNil(), uploadError(err)
		}
		if err := u.readPart(part); err != nil {
			return u.orNil(), uploadError(err)
		}
	}
}

// orNil is the upload if there is a file to be closed.
func (u *upload) orNil() *upload {
	if u.file == nil {
		return nil
	}
	return u
}

// uploadError is err, unless it is one of a form that breaks off or is none.
func uploadError(err error) error {
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	if _, ours := errors.AsType[*problem](err); ours || tooLarge {
		return err
	}
	return invalid("the file could not be read to its end; try again")
}

func (u *upload) readPart(part *multipart.Part) error {
	if part.FormName() == "file" {
		if u.file != nil {
			return invalid("choose one file at a time")
		}
		f, err := spool()
		if err != nil {
			return &problem{status: http.StatusInsufficientStorage, text: err.Error()}
		}
		u.file, u.name = f, phrase.Clip(part.FileName())
		if u.name == "" {
			u.name = "the file"
		}
		u.size, err = io.Copy(f, part)
		if pathError, ok := errors.AsType[*os.PathError](err); ok {
			return &problem{status: http.StatusInsufficientStorage, text: "there is no room for the file: " + pathError.Err.Error()}
		}
		return err
	}
	text, err := io.ReadAll(io.LimitReader(part, maxField))
	if err != nil {
		return err
	}
	value := strings.TrimSpace(string(text))
	switch part.FormName() {
	case "of":
		u.of = value
	case "mode":
		u.mode = hubrest.ImportMode(value)
	case "format":
		u.format = value
	}
	return nil
}
