package console_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hub/hubtest/clustertest"
	"github.com/iotdm/iotdm/hubrest"
)

func TestTheOverviewShowsWhatTheHubDoes(t *testing.T) {
	s := newSite(t)
	s.hub.Device("d1")
	d := s.get("/")
	d.says("Devices connected")
	d.says("now 0, between 0 and 0")
	if got := len(d.all("svg")); got == 0 {
		t.Error("there is no picture")
	}
	for _, n := range d.all("svg") {
		if class, _ := attribute(n.Parent, "aria-hidden"); class != "true" {
			t.Error("a picture is read aloud, beside its words")
		}
	}
	if _, err := s.service.CreateJob(t.Context(), hubrest.JobRequest{ID: "j1", Condition: "*", Method: &hubrest.Method{Name: "m", ConnectTimeout: 60e9}}); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return strings.Contains(s.get("/").text("main"), "j1") })
	until(t, func() bool { return strings.Contains(s.get("/").text("main"), "1 counted") })
}

func TestTheOverviewShowsTheNodesOfAHub(t *testing.T) {
	c := clustertest.New(t, 2)
	s := startSiteOf(t, c.Nodes[1].Hub, "iothubowner", func(*site, *console.Options) {})
	until(t, func() bool {
		text := s.get("/").text("main")
		return strings.Contains(text, "leads") && strings.Contains(text, "serves, and has answered")
	})
	if text := newSite(t).get("/").text("main"); strings.Contains(text, "Nodes") {
		t.Errorf("a hub of one node has nodes: %s", text)
	}
}

func TestTheOverviewShowsANodeThatIsLost(t *testing.T) {
	s := newSiteBehind(t, nil, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/iotdm/nodes" {
			return false
		}
		w.Header().Set("Server", "iotdm")
		fmt.Fprint(w, `[{"name":"a","leads":true,"silentInSeconds":5},{"name":"b","silentInSeconds":4},{"name":"c","self":true,"silentInSeconds":1}]`)
		return true
	})
	d := s.get("/")
	d.says("silent for 5 s, and leads")
	d.says("silent for 4 s")
	d.says("serves, and has answered")
}

func TestTheOverviewStaysSmall(t *testing.T) {
	s := newSite(t)
	d := s.get("/")
	total := len(d.body)
	for _, kind := range []string{"link", "script"} {
		for _, n := range d.all(kind) {
			for _, name := range []string{"href", "src"} {
				if path, ok := attribute(n, name); ok {
					if !strings.HasPrefix(path, "/static/") {
						t.Errorf("the page fetches %s", path)
					}
					total += len(s.get(path).body)
				}
			}
		}
	}
	if most := 60 << 10; total > most {
		t.Errorf("the first load is %d bytes, more than %d", total, most)
	}
	t.Log(fmt.Sprint(total, " bytes before compression"))
}
