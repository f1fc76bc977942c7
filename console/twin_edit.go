package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/twinedit"
	"github.com/iotdm/iotdm/twin"
)

// A twinEditPage is the form of a twin, or what is about to be saved. All that an edit has to remember is in the form, so
// that many may be open at once.
type twinEditPage struct {
	deviceHead
	Text string // as it stands in the form
	Base string // what Text is a change of, as one line of JSON
	ETag string // of the twin that Base is

	Problem   string        // what is wrong with Text
	Theirs    []changeRow   // what somebody else has changed meanwhile, and is merged
	Conflicts []conflictRow // what both have changed
	Review    []changeRow   // what will be saved; none: the form is shown
	Patch     string        // the same as the hub gets it
}

func (c *Console) editTwin(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	if err := c.refusal(r.Context(), operate); err != nil {
		return err
	}
	t, err := c.opt.Client.Twin(r.Context(), on)
	if err != nil {
		return about(on, err)
	}
	p := twinEditPage{deviceHead: headOfTwin(on, t, "twin")}
	if err := p.begin(t); err != nil {
		return err
	}
	p.Text = indented([]byte(p.Base))
	c.renderTwinEdit(w, r, p, http.StatusOK)
	return nil
}

// begin makes a twin what the edit is a change of.
func (p *twinEditPage) begin(t hubrest.Twin) error {
	base, err := twinedit.Of(t).JSON()
	p.Base, p.ETag = string(base), t.ETag
	return err
}

func (c *Console) renderTwinEdit(w http.ResponseWriter, r *http.Request, p twinEditPage, status int) {
	c.render(w, r, page{Template: "twin_edit", Title: titleOf(p.On, "Edit twin"), Section: "Devices", Status: status, Data: p})
}

// saveTwin takes the form: it shows what would change, and saves that once it was looked at. When somebody else has
// written in between, both changes are merged and looked at again.
func (c *Console) saveTwin(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	p := twinEditPage{Text: r.PostFormValue("text"), Base: r.PostFormValue("base"), ETag: r.PostFormValue("etag")}
	base, err := twinedit.Parse([]byte(p.Base))
	if err != nil || p.ETag == "" {
		return invalid("the form is not whole; open the editor again")
	}
	if p.deviceHead, err = c.head(r.Context(), on, "twin"); err != nil {
		return err
	}
	mine, err := parseTwin(p.Text)
	if err == nil {
		err = p.review(base, mine)
	}
	if err != nil {
		p.Problem = sentence(err.Error())
		c.renderTwinEdit(w, r, p, http.StatusUnprocessableEntity)
		return nil
	}
	switch r.PostFormValue("step") {
	case "edit":
		p.Review = nil
		c.renderTwinEdit(w, r, p, http.StatusOK)
		return nil
	case "save":
		return c.patchTwin(w, r, p, base, mine)
	}
	if len(p.Review) == 0 {
		return c.done(w, r, p.Path("twin"), "Nothing was changed.")
	}
	c.renderTwinEdit(w, r, p, http.StatusOK)
	return nil
}

// review fills in what leads from base to mine.
func (p *twinEditPage) review(base, mine twinedit.Document) error {
	change, err := twinedit.Patch(base, mine)
	if err != nil {
		return err
	}
	p.Review = changeRows(twinedit.Diff(base, mine))
	var patch []byte
	if patch, err = patchDocument(change); err == nil {
		p.Patch = indented(patch)
	}
	return err
}

// patchDocument is a change as the hub gets it.
func patchDocument(change hubrest.TwinChange) ([]byte, error) {
	doc := map[string]any{}
	if change.Tags != nil {
		doc["tags"] = change.Tags
	}
	if change.Desired != nil {
		doc["properties"] = map[string]any{"desired": change.Desired}
	}
	return jsontext.Marshal(doc)
}

// patchTwin sends what was looked at.
func (c *Console) patchTwin(w http.ResponseWriter, r *http.Request, p twinEditPage, base, mine twinedit.Document) error {
	change, err := twinedit.Patch(base, mine)
	if err != nil {
		return err
	}
	if change.Tags == nil && change.Desired == nil {
		return c.done(w, r, p.Path("twin"), "Nothing was changed.")
	}
	change.ETag = p.ETag
	changed, err := c.opt.Client.PatchTwin(r.Context(), p.On, change)
	if err == nil {
		return c.done(w, r, p.Path("twin"), "The twin is now version "+number(changed.Version)+".")
	}
	if !errors.Is(err, hubrest.ErrPreconditionFailed) {
		if refusal, ok := errors.AsType[*hubrest.Error](err); ok && (refusal.Status == http.StatusBadRequest || refusal.Code == 403100) {
			p.Problem, p.Review = sentence(refusal.Message), nil // of what the user wrote
			c.renderTwinEdit(w, r, p, http.StatusUnprocessableEntity)
			return nil
		}
		return about(p.On, err)
	}
	now, err := c.opt.Client.Twin(r.Context(), p.On)
	if err != nil {
		return about(p.On, err)
	}
	theirs := twinedit.Of(now)
	merged, conflicts := twinedit.Reconcile(base, mine, theirs)
	p.Theirs, p.Conflicts = changeRows(twinedit.Diff(base, theirs)), conflictRows(conflicts)
	if err := p.begin(now); err != nil {
		return err
	}
	text, err := merged.JSON()
	if err != nil {
		return err
	}
	p.Text = indented(text)
	if err := p.review(theirs, merged); err != nil {
		return err
	}
	if len(p.Review) == 0 {
		return c.done(w, r, p.Path("twin"), "Somebody else has made the same change already.")
	}
	if len(conflicts) > 0 { // decide first
		p.Review = nil
	}
	c.renderTwinEdit(w, r, p, http.StatusConflict)
	return nil
}

// parseTwin reads what the user has written.
func parseTwin(text string) (twinedit.Document, error) {
	if err := json.Unmarshal([]byte(text), new(any)); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			above := text[:min(max(int(syntax.Offset)-1, 0), len(text))]
			return twinedit.Document{}, invalid("line " + number(1+strings.Count(above, "\n")) + ": " + syntax.Error())
		}
		return twinedit.Document{}, err
	}
	d, err := twinedit.Parse([]byte(text))
	if refused, ok := errors.AsType[*twin.Error](err); ok {
		return d, invalid(refused.Message)
	}
	return d, err
}
