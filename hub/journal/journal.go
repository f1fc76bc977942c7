// Package journal is what was asked of a hub under test and what it did, for tests to assert on: requests, connections,
// messages, twins and direct methods, in the order in which they came, each with a number. It holds the newest entries and
// no credential.
package journal

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a journal, whichever is reached first.
const (
	MaxEntries = 10_000
	MaxBytes   = 32 << 20
)

// A Journal holds the newest entries. Its methods may be called concurrently.
type Journal struct {
	now func() time.Time

	mu      sync.Mutex // guards what follows
	entries []Entry    // the oldest first
	size    int        // of them, in bytes
	last    uint64     // the last number that was given
	cleared uint64     // the last number of those that were cleared
	added   chan struct{}
}

// New returns an empty journal. now is the hub's clock.
func New(now func() time.Time) *Journal { return &Journal{now: now, added: make(chan struct{})} }

// Add adds an entry and gives it its number and time.
func (j *Journal) Add(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	e.Number, e.Time = j.last, j.now()
	j.entries = append(j.entries, e)
	j.size += e.cost()
	drop := 0
	for len(j.entries)-drop > MaxEntries || j.size > MaxBytes && drop < len(j.entries)-1 {
		j.size -= j.entries[drop].cost()
		drop++
	}
	clear(j.entries[:drop])
	j.entries = j.entries[drop:]
	close(j.added)
	j.added = make(chan struct{})
}

// cost is about what an entry takes in memory.
func (e *Entry) cost() int {
	n := 512 + len(e.Body.kept) + len(e.Path) + len(e.Query) + len(e.Name) + len(e.Reason) + len(e.UserAgent)
	for _, m := range []map[string]string{e.System, e.Properties} {
		for name, value := range m {
			n += 64 + len(name) + len(value)
		}
	}
	return n
}

// Clear removes all entries and returns how many there were. Numbers go on, so that who reads on misses nothing.
func (j *Journal) Clear() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.entries)
	j.entries, j.size, j.cleared = nil, 0, j.last
	return n
}

// A Filter says which entries are wanted. What is empty is all.
type Filter struct {
	Device string // a device with its modules, or a module as "device/module"
	On     []Kind
	What   string

	// Match is asked about entries that all else of the filter lets pass.
	Match func(Entry) bool
}

// ErrKind is returned for a kind that no entry has.
var ErrKind = errors.New("the journal has no such kind of entry")

// ParseKinds reads kinds with commas between them. Nothing is all.
//
// Errors: ErrKind.
func ParseKinds(text string) (kinds []Kind, err error) {
	if text == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		kind := Kind(strings.ToLower(strings.TrimSpace(word)))
		if !slices.Contains(Kinds, kind) {
			return nil, ErrKind
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

func (f *Filter) matches(e *Entry) bool {
	device, module, one := strings.Cut(f.Device, "/")
	switch {
	case device != "" && (device != e.Device || one && module != e.Module):
		return false
	case len(f.On) > 0 && !slices.Contains(f.On, e.On):
		return false
	case f.What != "" && f.What != e.What:
		return false
	}
	return f.Match == nil || f.Match(*e)
}

// A Page is entries of a journal.
type Page struct {
	Entries []Entry `json:"entries"`

	// Last is the number up to which the journal was looked at: what to ask for next comes after it.
	Last uint64 `json:"last"`

	// Lost is how many entries behind the number that was asked for had to make room for newer ones, whatever they were.
	Lost uint64 `json:"lost,omitempty"`
}

// MaxPage is how many entries a page has at most.
const MaxPage = 1000

// Read returns up to limit entries behind the number after. 0 is from the first one on, and a limit of 0 is MaxPage.
func (j *Journal) Read(f Filter, after uint64, limit int) Page {
	page, _ := j.read(f, after, limit)
	return page
}

// read is Read that also returns a channel, closed when there is more.
func (j *Journal) read(f Filter, after uint64, limit int) (Page, <-chan struct{}) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	// They are copied, so that Match may take its time and look at the journal itself.
	j.mu.Lock()
	oldest := j.last + 1 - uint64(len(j.entries))
	page, added := Page{Entries: []Entry{}, Last: max(after, j.last)}, j.added
	if from := max(after, j.cleared) + 1; from < oldest {
		page.Lost = oldest - from
	}
	var list []Entry
	if after < j.last {
		list = slices.Clone(j.entries[max(after+1, oldest)-oldest:])
	}
	j.mu.Unlock()
	for i := range list {
		if !f.matches(&list[i]) {
			continue
		}
		page.Entries = append(page.Entries, list[i])
		if len(page.Entries) == limit {
			page.Last = list[i].Number
			break
		}
	}
	return page, added
}

// Wait is Read that returns when there is an entry, or when ctx ends: without one then.
func (j *Journal) Wait(ctx context.Context, f Filter, after uint64, limit int) Page {
	var lost uint64
	for {
		page, added := j.read(f, after, limit)
		if page.Lost += lost; len(page.Entries) > 0 {
			return page
		}
		select {
		case <-added:
			after, lost = page.Last, page.Lost
		case <-ctx.Done():
			return page
		}
	}
}

// Last returns the number of the newest entry, 0 before the first one.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}
