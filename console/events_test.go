package console_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/mqttdevice"
)

func TestEventsAreFiltered(t *testing.T) {
	s := newSite(t)
	for _, id := range []string{"d1", "d2", "e*"} {
		s.send(id, "from "+id, map[string]string{"n": id})
	}
	bodies := func(path string) string {
		t.Helper()
		d := s.get(path + "&past=yes") // however busy this machine is
		var all []string
		for _, pre := range d.all("pre", "class", "body") {
			all = append(all, textOf(pre))
		}
		return strings.Join(all, ", ")
	}
	for path, want := range map[string]string{
		"/events?source=Telemetry":                     "from e*, from d2, from d1",
		"/events?source=Telemetry&device=d1":           "from d1",
		"/events?source=Telemetry&device=d*":           "from d2, from d1",
		"/events?source=Telemetry&device=e*":           "from e*",
		"/events?source=Telemetry&device=x":            "",
		"/device/d2/events?source=Telemetry":           "from d2",
		"/device/d2/events?source=Telemetry&device=d1": "from d2",
	} {
		if got := bodies(path); got != want {
			t.Errorf("%s shows %q, want %q", path, got, want)
		}
	}
	until(t, func() bool { // what the hub tells itself comes a moment later
		return strings.Contains(strings.ReplaceAll(bodies("/events?source=deviceLifecycleEvents"), " ", ""), `"deviceId":"d1"`)
	})
	s.get("/device/d1/events?source=Telemetry&past=yes").says("n = d1")
	for _, odd := range []string{"/events?source=x", "/events?as=x"} {
		if d := s.try(odd); d.status != http.StatusBadRequest {
			t.Errorf("%s: status %d", odd, d.status)
		}
	}
}

func TestBodiesAreShownAsAsked(t *testing.T) {
	s := newSite(t)
	c := s.device("d1", nil)
	for _, m := range []mqttdevice.Message{
		{Payload: []byte(`{"t":21.50}`), ContentType: "application/json", ContentEncoding: "utf-8"},
		{Payload: []byte{0, 0xff, 'a'}},
	} {
		if err := c.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	s.get("/device/d1/events?source=Telemetry&past=yes&as=all").says(`"iothub-connection-device-id": "d1"`)
	for as, want := range map[string][]string{
		"json": {"00000000 00 ff 61 |..a|", `{"t":21.50}`},
		"raw":  {"\x00\uFFFDa", `{"t":21.50}`},
		"hex":  {"00000000 00 ff 61 |..a|", `00000000 7b 22 74 22 3a 32 31 2e 35 30 7d |{"t":21.50}|`},
	} {
		var got []string
		for _, pre := range s.get("/device/d1/events?source=Telemetry&past=yes&as="+as).all("pre", "class", "*") {
			got = append(got, strings.ReplaceAll(textOf(pre), "\uFFFD\uFFFDa", "\x00\uFFFDa"))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("as %s (-want +got):\n%s", as, diff)
		}
	}
}

func TestEventsAreSaved(t *testing.T) {
	s := newSite(t)
	s.send("d1", "one", nil)
	s.send("d2", "two", nil)
	d := s.get("/events/save?source=Telemetry&device=d1")
	var doc struct {
		Event struct{ Origin, Payload string }
	}
	if err := json.Unmarshal([]byte(d.body), &doc); err != nil || doc.Event.Origin != "d1" || doc.Event.Payload != "one" {
		t.Errorf("saved %q: %v", d.body, err)
	}
}

// A stream is what a browser hears of a page.
type stream struct {
	*testing.T
	lines *bufio.Scanner
}

// follow opens a stream, and returns when the console is reading.
func (s *site) follow(path string) *stream {
	s.Helper()
	answer, err := s.browser.Get(s.server.URL + path)
	if err != nil {
		s.Fatal(err)
	}
	stop := time.AfterFunc(time.Minute, func() { answer.Body.Close() }) // so that a test that waits in vain ends
	s.Cleanup(func() { stop.Stop(); answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		s.Fatalf("GET %s: status %d, %s", path, answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	f := &stream{s.T, bufio.NewScanner(answer.Body)}
	for !strings.Contains(f.next("status"), `"on":true`) {
	}
	return f
}

// next returns the data of the next event of a name; that of events without one is "".
func (f *stream) next(name string) string {
	f.Helper()
	now := ""
	for f.lines.Scan() {
		line := f.lines.Text()
		if line == "" {
			now = ""
		}
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			now = n
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok && now == name {
			return data
		}
	}
	f.Fatalf("the stream has ended: %v", f.lines.Err())
	return ""
}

func TestEventsComeLive(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	f := s.follow("/events/live?source=Telemetry&device=d1")
	s.send("d2", "another's", nil)
	s.send("d1", "<script>alert(1)</script>", nil)
	var event struct{ Key, HTML string }
	if err := json.Unmarshal([]byte(f.next("")), &event); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(event.HTML, "&lt;script&gt;alert(1)") || !strings.Contains(event.HTML, `href="/device/d1"`) || strings.Contains(event.HTML, "another") {
		t.Errorf("the row is %s", event.HTML)
	}
	// The page has the same row, by which the browser knows it.
	s.get("/events?source=Telemetry&device=d1&past=yes").one("tr", "data-key", event.Key)
}

func TestChangesOfATwinComeLive(t *testing.T) {
	s := newSite(t)
	s.create("d1")
	s.create("d2")
	s.patch("d1", `{"site":"A"}`, `{"a":1}`)
	f := s.follow("/device/d1/twin/live")
	s.patch("d2", `{"site":"B"}`, "")
	s.patch("d1", `{"site":"B"}`, `{"a":null,"b":2}`)
	type change struct {
		Path, Old, New string
	}
	var got struct {
		Version int
		By      string
		Changes []change
	}
	for len(got.Changes) == 0 {
		if err := json.Unmarshal([]byte(f.next("")), &got); err != nil {
			t.Fatal(err)
		}
	}
	want := []change{{"tags.site", `"A"`, `"B"`}, {"desired.a", "1", ""}, {"desired.b", "", "2"}}
	if diff := cmp.Diff(want, got.Changes); diff != "" || got.By != "policy iothubowner" {
		t.Errorf("by %q (-want +got):\n%s", got.By, diff)
	}
}
