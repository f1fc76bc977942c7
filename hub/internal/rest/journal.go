package rest

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
)

// maxJournalWait is how long a request may wait for an entry. Who wants to wait longer asks again.
const maxJournalWait = 5 * time.Minute

// A journalQuery is what the query of a request asks for: ?device=d1&on=telemetry,twin&what=received&after=17&limit=10&wait=10s.
type journalQuery struct {
	filter journal.Filter
	after  uint64
	limit  int
	wait   time.Duration
}

// parseJournalQuery reads it. "latest" as after is the last number there is, which last returns.
func parseJournalQuery(values map[string][]string, last func() uint64) (q journalQuery, err error) {
	for name, list := range values {
		text := list[0]
		switch name {
		case "device":
			q.filter.Device = text
		case "what":
			q.filter.What = text
		case "on":
			q.filter.On, err = journal.ParseKinds(text)
		case "after":
			if text == "latest" {
				q.after = last()
			} else {
				q.after, err = strconv.ParseUint(text, 10, 64)
			}
		case "limit":
			if q.limit, err = strconv.Atoi(text); err == nil && q.limit < 1 {
				err = strconv.ErrRange
			}
		case "wait":
			q.wait, err = parseWait(text)
		case "api-version":
		default:
			return q, hub.ErrArgumentInvalid.With("the journal has no parameter %q, but device, on, what, after, limit and wait", words.Clip(name))
		}
		if err != nil {
			return q, hub.ErrArgumentInvalid.With("%s cannot be %q", name, words.Clip(text))
		}
	}
	return q, nil
}

// parseWait reads a duration such as "10s", or a number of seconds.
func parseWait(text string) (time.Duration, error) {
	if !strings.ContainsFunc(text, func(r rune) bool { return r >= 'a' && r <= 'z' }) {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	return min(max(d, 0), maxJournalWait), err
}

// readJournal answers with entries, and waits for one if it is asked to.
func (d *Door) readJournal(r *request) (reply, error) {
	j := d.hub.Journal()
	q, err := parseJournalQuery(r.URL.Query(), j.Last)
	if err != nil {
		return reply{}, err
	}
	if q.wait == 0 {
		return reply{body: j.Read(q.filter, q.after, q.limit)}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), q.wait)
	defer cancel()
	defer context.AfterFunc(d.following, cancel)()
	page := j.Wait(ctx, q.filter, q.after, q.limit)
	return reply{body: page}, r.Context().Err()
}

func (d *Door) clearJournal(*request) (reply, error) {
	return reply{body: cleared{d.hub.Journal().Clear()}}, nil
}
