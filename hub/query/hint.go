package query

import (
	"fmt"
	"slices"
	"strings"
)

// words are the values that fields with a few values have, as the documents of the service's types list them.
var words = map[Field][]string{
	Status:             {"enabled", "disabled"},
	ConnectionState:    {"Connected", "Disconnected"},
	AuthenticationType: {"sas", "selfSigned", "certificateAuthority", "none"},
}

// rowStatuses and configurationStatuses are the same for a row of devices.jobs, and for a configuration in a twin.
var (
	rowStatuses           = []string{"pending", "scheduled", "running", "completed", "failed", "canceled"}
	configurationStatuses = []string{"Targeted", "Applied"}
)

// Hints returns what in the query is allowed and yet reads like a mistake, because it finds nothing or means something
// else: a sentence for each.
func (q *Query) Hints() []string {
	h := hints{from: q.from}
	if q.where != nil {
		h.condition(q.where, "WHERE")
	}
	for i := range q.items {
		if p := q.items[i].path; p != nil {
			h.path(p)
		}
	}
	if q.group != nil {
		h.path(q.group)
	}
	return h.list
}

type hints struct {
	from Collection
	list []string
}

func (h *hints) add(format string, args ...any) {
	if hint := fmt.Sprintf(format, args...); !slices.Contains(h.list, hint) {
		h.list = append(h.list, hint)
	}
}

// condition looks at what has to be true or false for the word that stands before or behind it.
func (h *hints) condition(e expr, word string) {
	switch e := e.(type) {
	case *logic:
		word = "AND"
		if e.or {
			word = "OR"
		}
		h.condition(e.l, word)
		h.condition(e.r, word)
	case *not:
		h.condition(e.x, "NOT")
	case literal:
		if e.kind != boolean {
			h.add("%s stands alone at %s and is never true: compare it with something, several values by IN [...]", clip(e), word)
		}
	case *arithmetic, *negative, *list:
		h.add("%s at %s is never true: compare it with something", clip(e), word)
	default:
		h.value(e)
	}
}

// value looks at everything else.
func (h *hints) value(e expr) {
	switch e := e.(type) {
	case *path:
		h.path(e)
	case *logic, *not:
		h.condition(e, "")
	case *comparison:
		h.compared(e.l, e.op, e.r)
		h.compared(e.r, e.op, e.l)
		e.each(h.value)
	case *in:
		for _, el := range e.list.elements {
			h.compared(e.x, "=", el)
		}
		e.each(h.value)
	default:
		e.each(h.value)
	}
}

func (h *hints) path(p *path) {
	switch {
	case p.field == Unknown && h.from == Jobs:
		h.add("%s is no member of a row of devices.jobs, and a text stands in quotes", clip(p))
	case p.field == Unknown:
		h.add("%s is no member of a twin: properties begin with tags, properties.desired or properties.reported, and a text stands in quotes", clip(p))
	case p.field == Properties && len(p.steps) > 0:
		h.add("%s is never there: below properties are desired and reported", clip(p))
	}
	for _, s := range p.steps {
		if n := strings.LastIndexByte(s.key, '-'); n > 0 && strings.Trim(s.key[n+1:], "0123456789") == "" {
			h.add("%s is one name: a minus has blanks around it", quote(s.key))
		}
	}
}

// compared looks at a constant that e is compared with.
func (h *hints) compared(e expr, op string, constant expr) {
	l, ok := constant.(literal)
	if !ok {
		return
	}
	if l.kind == undefined {
		h.add("nothing compares with undefined: IS_DEFINED(%s) asks whether it is there", clip(e))
		return
	}
	p, ok := e.(*path)
	if !ok || op != "=" && op != "!=" {
		return
	}
	if known := h.words(p); known != nil && (l.kind != text || !slices.Contains(known, string(l.raw))) {
		h.add("%s is never %s, but one of %s", clip(p), clip(l), strings.Join(known, ", "))
	}
}

// words returns the values that a field has, if they are few.
func (h *hints) words(p *path) []string {
	switch {
	case p.field == Configurations && len(p.steps) == 2 && p.steps[1].key == "status":
		return configurationStatuses
	case len(p.steps) > 0:
		return nil
	case h.from == Jobs && p.field == Status:
		return rowStatuses
	}
	return words[p.field]
}

// clip returns the text of an expression, if it is short.
func clip(e expr) string {
	const most = 60
	text := string(e.print(nil))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
