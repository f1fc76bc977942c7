package rest

import (
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The parameters of a read of events are those that were asked for, or refused;
// printed they ask for the same.
func FuzzParseEventQuery(f *testing.F) {
	for _, query := range []string{"", "device=a%2Bb&source=Telemetry&source=x&from=7&follow=true", "from=latest", "from=2026-03-14T09:26:53.5897932%2B01:00", "from=-1", "from=9223372036854775808", "from=x", "%zz&follow=1;a"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/iotdm/events", nil)
		r.URL.RawQuery = query
		q, err := parseEventQuery(r)
		if err != nil {
			return
		}
		values := url.Values{"device": {q.Device}, "follow": {strconv.FormatBool(q.Follow)}}
		for _, source := range q.Sources {
			values.Add("source", string(source))
		}
		switch {
		case q.Latest:
			values.Set("from", "latest")
		case !q.Since.IsZero():
			values.Set("from", q.Since.Format(time.RFC3339Nano))
		case q.Offset != 0:
			values.Set("from", strconv.FormatInt(q.Offset, 10))
		}
		r.URL.RawQuery = values.Encode()
		again, err := parseEventQuery(r)
		if diff := cmp.Diff(q, again); diff != "" || err != nil {
			t.Errorf("%q as %q: %v (-read +again):\n%s", query, r.URL.RawQuery, err, diff)
		}
	})
}
