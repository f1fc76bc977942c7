package hubrest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A JournalQuery says which entries of the journal of a hub under test are wanted. What is empty is all.
type JournalQuery struct {
	Device string   // a device with its modules, or a module as "device/module"
	On     []string // kinds of entries: rest, connection, subscription, telemetry, twin, method, message
	What   string   // what happened, such as "connected"

	After  uint64 // only those with a higher number
	Latest bool   // only those from now on, instead
	Limit  int    // at most so many; 0 is as many as the hub gives at a time, which is 1000

	// Wait is how long to wait for an entry if there is none: up to 5 minutes.
	Wait time.Duration
}

// A JournalPage is entries of a journal.
type JournalPage struct {
	Entries []json.RawMessage `json:"entries"`
	Last    uint64            `json:"last"` // JournalQuery.After for those behind them
	Lost    uint64            `json:"lost"` // entries behind After that had to make room for newer ones
}

// Journal returns what was asked of a hub under test and what it did.
func (c *Client) Journal(ctx context.Context, q JournalQuery) (JournalPage, error) {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("device", q.Device)
	set("on", strings.Join(q.On, ","))
	set("what", q.What)
	if q.Latest {
		set("after", "latest")
	} else if q.After > 0 {
		set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Limit > 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	if q.Wait > 0 {
		set("wait", q.Wait.String())
	}
	return control[JournalPage](ctx, c, request{
		what: "read the journal", method: http.MethodGet, path: controlPath("journal"), query: v, repeat: repeatAlways, timeout: defaultTimeout + q.Wait,
	})
}

// ClearJournal empties the journal, whose numbers go on, and returns how many entries there were.
func (c *Client) ClearJournal(ctx context.Context) (int, error) {
	a, err := control[clearedAnswer](ctx, c, request{what: "clear the journal", method: http.MethodDelete, path: controlPath("journal"), repeat: repeatAlways})
	return a.Cleared, err
}
