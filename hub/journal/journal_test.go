package journal_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub/journal"
)

var begin = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)

func newJournal() *journal.Journal { return journal.New(func() time.Time { return begin }) }

func TestReadersAreToldWhatTheyMissed(t *testing.T) {
	j := newJournal()
	for range journal.MaxEntries + 7 {
		j.Add(journal.Entry{On: journal.REST})
	}
	page := j.Read(journal.Filter{}, 2, 3)
	if len(page.Entries) != 3 || page.Entries[0].Number != 8 || page.Last != 10 || page.Lost != 5 {
		t.Errorf("%d entries up to %d, %d lost, want 3 up to 10, 5 lost", len(page.Entries), page.Last, page.Lost)
	}
	j.Clear()
	j.Add(journal.Entry{On: journal.Twin})
	page = j.Read(journal.Filter{}, 2, 0)
	if want := uint64(journal.MaxEntries + 8); len(page.Entries) != 1 || page.Entries[0].Number != want || page.Lost != 0 {
		t.Errorf("after Clear: %+v, want entry %d", page, want)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	j := newJournal()
	body := journal.NewBody(make([]byte, journal.MaxBody))
	for range 3 * journal.MaxBytes / journal.MaxBody {
		j.Add(journal.Entry{On: journal.Telemetry, Body: body})
	}
	if n := j.Clear(); n == 0 || n > journal.MaxBytes/journal.MaxBody {
		t.Errorf("%d bodies of %d bytes are kept", n, journal.MaxBody)
	}
}

func TestWait(t *testing.T) {
	j := newJournal()
	j.Add(journal.Entry{On: journal.Twin, Device: "d1"})
	found := make(chan journal.Page)
	go func() {
		found <- j.Wait(t.Context(), journal.Filter{Device: "d1", On: []journal.Kind{journal.Telemetry}}, 0, 0)
	}()
	j.Add(journal.Entry{On: journal.Telemetry, Device: "d2"})
	j.Add(journal.Entry{On: journal.Telemetry, Device: "d1", Module: "m"})
	if page := <-found; len(page.Entries) != 1 || page.Entries[0].Number != 3 || page.Entries[0].ID() != "d1/m" {
		t.Errorf("%+v, want entry 3 of d1/m", page)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if page := j.Wait(ctx, journal.Filter{What: "never"}, 1, 0); len(page.Entries) != 0 || page.Last != 3 {
		t.Errorf("%+v, want nothing up to 3", page)
	}
}

func TestBodies(t *testing.T) {
	long := strings.Repeat("ä", journal.MaxBody)
	for body, want := range map[string]string{
		`{"a": 1}`: `"body":{"a": 1}`, "text": `"body":"text"`, "\xff\x00": `"bodyBase64":"/wA="`,
		long: `"bodySize":32768`, "": `"what":""}`,
	} {
		doc, err := json.Marshal(journal.Entry{Body: journal.NewBody([]byte(body))})
		if err != nil || !strings.Contains(strings.ReplaceAll(string(doc), " ", ""), strings.ReplaceAll(want, " ", "")) {
			t.Errorf("%.20q is %.300s (%v), want something with %s", body, doc, err, want)
		}
	}
}

func secretBody(text string) []byte {
	var r journal.Recorder
	r.Write([]byte(text))
	return r.SecretBody().Bytes()
}

func TestNoSecretIsKept(t *testing.T) {
	for text, want := range map[string]string{
		`{"authentication":{"symmetricKey":{"primaryKey":"c2VjcmV0", "secondaryKey": null}},"n":1.0}`: `{"authentication":{"symmetricKey":{"primaryKey":"***","secondaryKey":"***"}},"n":1.0}`,
		`[{"Primary\u004bey":["c2VjcmV0"]}, 2]`:                                                       `[{"Primary\u004bey":"***"},2]`,
		`primaryKey: c2VjcmV0`:                                                                        ``, `{"primaryKey":"c2VjcmV0"`: ``, "7": "7",
		`{"a":"` + strings.Repeat("x", journal.MaxBody) + `"}`: ``,
	} {
		if got := secretBody(text); string(got) != want {
			t.Errorf("%.80s is kept as %s, want %s", text, got, want)
		}
	}
	if got, want := journal.WithoutSecrets("api-version=1&sig=abc&%53ig=d&x"), "api-version=1&sig=***&%53ig=***&x"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzSecretBody(f *testing.F) {
	f.Add(`{"a":{"primaryKey":"s3cr3t"},"b":[{"PASSWORD":"s3cr3t"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		got := secretBody(text)
		if got == nil {
			return
		}
		if !json.Valid(got) {
			t.Errorf("%q becomes %q, which is not JSON", text, got)
		}
		if again := secretBody(string(got)); string(again) != string(got) {
			t.Errorf("%q becomes %q and then %q", text, got, again)
		}
		doc, err := json.Marshal(journal.Entry{Body: journal.NewBody([]byte(text))})
		if err != nil || !utf8.Valid(doc) {
			t.Errorf("%q is printed as %q (%v)", text, doc, err)
		}
	})
}
