package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// The console is tried with Chromium, as its users do; "iotdm console" is a process of its own, and so is the hub.

// hostileText is what a device may send or report.
const hostileText = `</td></table></script><script>window.acted = 1; alert(1)</script><img src=x onerror="window.acted = 2"><a href="javascript:window.acted=3">x</a>`

// runDevice runs simulated devices of a hub, until the test ends.
func runDevice(t *testing.T, h *hubProcess, args ...string) *program {
	t.Helper()
	cmd := exec.Command("iotdm", append([]string{"device", "run"}, args...)...)
	cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data)
	return start(t, cmd)
}

// furnish gives a hub something to show on every page.
func furnish(t *testing.T, h *hubProcess) {
	t.Helper()
	evil, err := json.Marshal(hostileText)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for i := range 60 {
		fmt.Fprintf(&lines, `{"id":"pump-%02d","tags":{"site":%q,"floor":%d}}`+"\n", i, []string{"north", "south"}[i%2], i%5)
	}
	fmt.Fprintf(&lines, `{"id":"evil","tags":{"site":%s,"<b>":1}}`+"\n", evil)
	file := filepath.Join(t.TempDir(), "devices.ndjson")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	h.iotdm(t, "service", "device", "import", "--yes", file)
	h.iotdm(t, "service", "module", "create", "--device", "pump-01", "--module", "camera")
	h.iotdm(t, "service", "device", "update", "pump-59", "--status", "disabled")
	h.iotdm(t, "service", "configuration", "create", "eco", "--yes", "--where", "tags.site = 'north'", "--priority", "5", "--content", `{"deviceContent": {"properties.desired.interval": 60}}`)
	h.iotdm(t, "service", "job", "create", "--yes", "--job-id", "job-1", "--where", "tags.site = 'south'", "--desired", `{"mode": "eco"}`, "--wait")
	h.iotdm(t, "service", "enrollment-group", "create", "line-7")
	runDevice(t, h, "--count", "3", "--id-prefix", "pump-0", "--reboot-duration", "1s", "--telemetry-interval", "1s").await(t, "connected")
	h.iotdm(t, "device", "twin", "report", "--device", "evil", `{"text":`+string(evil)+`}`)
	h.iotdm(t, "device", "send", "--device", "evil", "--data", hostileText)
}

// consolePages are the pages of the console, of a hub that has been furnished.
var consolePages = []struct {
	name, path string
	wide       bool // it is one of those that a small or a large screen may be too much for
}{
	{"overview", "/", true},
	{"devices", "/devices", false},
	{"devices-found", "/devices?path=tags.site&operator=%3D&value=north&column=tags.site&column=tags.floor&count=1", true},
	{"act", "/devices/act?where=tags.site+%3D+%27north%27", false},
	{"import", "/devices/import", false},
	{"export", "/devices/export?where=*", false},
	{"device", "/device/pump-01", false},
	{"twin", "/device/pump-01/twin", true},
	{"twin-edit", "/device/pump-01/twin/edit", false},
	{"methods", "/device/pump-01/methods", false},
	{"messages", "/device/pump-01/messages", false},
	{"device-events", "/device/pump-01/events", false},
	{"modules", "/device/pump-01/modules", false},
	{"module", "/device/pump-01/module/camera", false},
	{"reboot", "/device/pump-01/reboot", false},
	{"mqtt", "/device/pump-01/mqtt", false},
	{"evil", "/device/evil/twin", false},
	{"new-device", "/devices/new", false},
	{"events", "/events", true},
	{"queries", "/queries?query=SELECT+*+FROM+devices", false},
	{"queries-json", "/queries?view=json&query=SELECT+*+FROM+devices", false},
	{"jobs", "/jobs", false},
	{"job", "/job/job-1", true},
	{"configurations", "/configurations", false},
	{"configuration", "/configuration/eco", false},
	{"configurations-new", "/configurations/new", false},
	{"enrollments", "/enrollments", false},
	{"enrollment", "/enrollment/group/line-7", false},
	{"enrollments-new", "/enrollments/new?kind=individual", false},
	{"settings", "/settings", false},
	{"no-page", "/no-such-page", false},
}

// A look is how a page is looked at.
type look struct {
	scheme        string
	width, height int64
}

// TestConsolePages looks at every page: whether axe-core finds it accessible, whether it fits into a phone and a large
// screen, and whether nothing of it is refused by its own policy. It takes pictures.
func TestConsolePages(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.81")
	furnish(t, h)
	b.enter(consoleLink(t, h))
	for _, p := range consolePages {
		looks := []look{{"light", 320, 640}, {"dark", 320, 640}, {"light", 1440, 900}, {"dark", 1440, 900}}
		if p.wide {
			looks = append(looks, look{"light", 800, 1000}, look{"light", 3840, 2160})
		}
		for _, l := range looks {
			b.scheme(l.scheme)
			b.size(l.width, l.height)
			b.open(p.path)
			if wide := ask[int64](b, "document.documentElement.scrollWidth"); wide > l.width {
				t.Errorf("%s is %d px wide on a screen of %d: %s", p.path, wide, l.width, ask[string](b, widest))
			}
			b.shot(fmt.Sprintf("%s_%s_%d", p.name, l.scheme, l.width))
			if l.scheme == "light" && l.width == 320 || l.scheme == "dark" && l.width == 1440 {
				b.accessible(fmt.Sprintf("%s in %s at %d px", p.path, l.scheme, l.width))
			}
		}
		b.noScriptOfOthers()
	}
}

// widest names the elements that reach beyond the window.
const widest = `[...document.querySelectorAll("main *, header *, nav *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".table, pre")).slice(0, 3).map(e => e.outerHTML.slice(0, 200)).join("\n")`

// noScriptOfOthers fails if anything that a device wrote has acted.
func (b *browser) noScriptOfOthers() {
	b.Helper()
	if acted := ask[bool](b, `window.acted !== undefined || !!document.querySelector("img, script:not([src^='/static/']), a[href^='javascript:']")`); acted {
		b.Errorf("%s has markup of a device's", b.address())
	}
}

// TestConsoleShowsHostileTextAsText opens the pages that show what a device has written, while it goes on writing.
func TestConsoleShowsHostileTextAsText(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.82")
	furnish(t, h)
	b.enter(consoleLink(t, h))
	for _, path := range []string{"/device/evil", "/device/evil/twin", "/device/evil/twin/edit", "/device/evil/events", "/events", "/", "/queries?query=SELECT+*+FROM+devices", "/devices?prefix=evil&column=tags.site&column=reported.text"} {
		b.open(path)
		if strings.HasSuffix(path, "events") {
			b.until(`document.querySelector("[data-live-state]").textContent === "live"`)
		}
		h.iotdm(t, "device", "send", "--device", "evil", "--data", hostileText+path)
		if strings.HasSuffix(path, "events") {
			b.says("</script><script>window.acted = 1; alert(1)</script>")
			b.until(`document.body.innerText.includes("x</a>" + ` + quoteJS(path) + `)`)
		}
		b.noScriptOfOthers()
	}
}

// TestConsoleSession logs in by the link, which is good once, and out again.
func TestConsoleSession(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.83")
	link := consoleLink(t, h)
	b.enter(link)
	if strings.Contains(b.address(), "t=") {
		t.Errorf("the token stays in the address: %s", b.address())
	}
	b.says("Devices connected")
	b.shot("overview")
	b.click("header button")
	b.says("Sign in")
	b.accessible("the login")
	b.shot("login")
	b.open("/devices")
	b.says("Open the link that the console printed")
	_, query, _ := strings.Cut(link, "/?")
	b.open("/?" + query)
	b.says("This link has been used already")
}

// TestConsoleRefusesOtherSites has pages of other sites, and of names that lead to this machine, ask for changes.
func TestConsoleRefusesOtherSites(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.84")
	h.iotdm(t, "service", "device", "create", "d1")
	b.enter(consoleLink(t, h))
	b.open("/device/d1")
	// A form of another site, which the browser sends along with what it knows.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, `<form method="post" action="`+html.EscapeString(b.base+r.URL.Path)+`"><input name="confirm" value="d1"><input name="status" value="disabled"><button>Win</button></form>`)
	}))
	defer other.Close()
	for _, site := range []string{other.URL, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)} {
		for _, path := range []string{"/device/d1/delete", "/device/d1/status", "/logout"} {
			b.do("open another site", navigate(site+path))
			b.click("button")
			b.until(`location.href.startsWith(` + quoteJS(b.base) + `)`)
			b.until(`document.body.innerText.includes("another site") || document.body.innerText.includes("Sign in")`)
		}
	}
	if out := h.iotdm(t, "service", "device", "get", "d1", "-o", "json"); !strings.Contains(out, `"enabled"`) {
		t.Errorf("the device is now: %s", out)
	}
	b.open("/devices") // and nobody was logged out
	b.says("d1")
	// A name of somebody else's that leads here.
	u, err := url.Parse(b.base)
	if err != nil {
		t.Fatal(err)
	}
	b.do("open by another name", navigate("http://rebound.example.com:"+u.Port()+"/devices"))
	b.says("not called by that name")
}

// TestConsoleFindsAndEdits finds a device by a tag and edits its twin while the command line edits it too.
func TestConsoleFindsAndEdits(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.85")
	furnish(t, h)
	b.enter(consoleLink(t, h))
	b.click(`nav a[href="/devices"]`)
	b.until(`document.querySelector("#path-0")`)
	b.fill("#path-0", "tags.floor")
	b.fill("#value-0", "3")
	b.press(kb.Enter)
	b.until(`location.search.includes("tags.floor")`)
	b.says("pump-03")
	if b.text(); strings.Contains(b.text(), "pump-04") {
		t.Errorf("the condition does not count:\n%s", b.text())
	}
	b.click(`a[href="/device/pump-03"]`)
	b.click(`a[href="/device/pump-03/twin"]`)
	b.click(`a[href="/device/pump-03/twin/edit"]`)
	b.until(`document.querySelector("#text")`)
	b.setText("#text", `"floor": 3`, `"floor": 30, "mine": true`)
	// Meanwhile somebody else writes, the same and more.
	h.iotdm(t, "service", "twin", "patch", "--device", "pump-03", "--tags", `{"floor": 31, "theirs": true}`)
	b.click(`button[value="review"]`)
	b.until(`document.querySelector("button[value='save'], [role=alert]")`)
	if ask[bool](b, `!!document.querySelector("button[value='save']")`) {
		b.click(`button[value="save"]`)
	}
	b.says("Somebody else has written meanwhile")
	b.says("What you both have changed")
	b.says("31")
	b.accessible("a conflict")
	b.shot("conflict")
	b.click(`button[value="review"]`)
	b.click(`button[value="save"]`)
	b.until(`location.pathname === "/device/pump-03/twin"`)
	var twin struct {
		Tags struct {
			Floor        int
			Mine, Theirs bool
		}
	}
	if err := json.Unmarshal([]byte(h.iotdm(t, "service", "twin", "get", "--device", "pump-03", "-o", "json")), &twin); err != nil {
		t.Fatal(err)
	}
	if twin.Tags.Floor != 30 || !twin.Tags.Mine || !twin.Tags.Theirs {
		t.Errorf("the tags are %+v", twin.Tags)
	}
	// What the command line changes shows on the page, which nobody loads anew.
	b.until(`document.querySelector("[data-live-state]").textContent === "live"`)
	h.iotdm(t, "service", "twin", "patch", "--device", "pump-03", "--desired", `{"live": "from the command line"}`)
	b.until(`document.querySelector("[data-live-list]").innerText.includes("from the command line")`)
	b.shot("live")
}

// TestConsoleReboots has a simulated device reboot, and watches it.
func TestConsoleReboots(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.86")
	runDevice(t, h, "--device", "d1", "--reboot-duration", "1s").await(t, "onnected")
	b.enter(consoleLink(t, h))
	b.open("/device/d1/reboot")
	b.click("form button.danger")
	b.until(`document.querySelector("#reboots article")`)
	loaded := ask[float64](b, "performance.timeOrigin")
	b.until(`/rebooted/i.test(document.querySelector("#reboots").innerText) && document.querySelector("#reboots .state.ok, #reboots .state.on")`)
	if ask[float64](b, "performance.timeOrigin") != loaded {
		t.Error("the page was loaded anew")
	}
	b.accessible("a reboot")
	b.shot("rebooted")
	b.open("/device/d1/twin")
	b.says("rebootTime")
}

// TestConsoleActsOnMany creates a job for the devices that a condition chooses, and follows it.
func TestConsoleActsOnMany(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.87")
	furnish(t, h)
	b.enter(consoleLink(t, h))
	b.open("/devices/act?where=" + url.QueryEscape("tags.site = 'north'"))
	b.says("30 devices")
	b.open("/devices/act?where=" + url.QueryEscape("tags.site = 'north'"))
	ask[bool](b, `(() => { document.querySelector("form[action='/devices/act/twin']").closest("details").open = true; return true })()`)
	b.fill("#desired", `{"speed": 7}`)
	b.fill("#confirm-twin", "29") // not as many as there are
	b.click("form[action='/devices/act/twin'] button")
	b.says("Nothing was done")
	b.open("/devices/act?where=" + url.QueryEscape("tags.site = 'north'"))
	ask[bool](b, `(() => { document.querySelector("form[action='/devices/act/twin']").closest("details").open = true; return true })()`)
	b.fill("#desired", `{"speed": 7}`)
	b.fill("#confirm-twin", "30")
	b.click("form[action='/devices/act/twin'] button")
	b.until(`location.pathname.startsWith("/job/")`)
	b.says("completed")
	b.shot("job")
	if out := h.iotdm(t, "service", "query", "SELECT COUNT() AS n FROM devices WHERE properties.desired.speed = 7", "--jq", ".[].n"); out != "30" {
		t.Errorf("%s devices have the property", out)
	}
}

// TestConsoleWithoutScript does the same as a browser that runs no script.
func TestConsoleWithoutScript(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.88")
	furnish(t, h)
	b.enter(consoleLink(t, h))
	b.scripts(false)
	b.open("/devices")
	b.typeInto("#prefix", "pump-07")
	b.press(kb.Enter)
	b.says("pump-07")
	b.clickByMouse(`a[href="/device/pump-07"]`)
	b.clickByMouse(`a[href="/device/pump-07/methods"]`)
	b.typeInto("#name", "nothing-there")
	b.press(kb.Enter)
	b.says("is not connected")
	b.open("/device/pump-01/reboot")
	b.clickByMouse("form button.danger")
	for !strings.Contains(strings.ToLower(b.text()), "rebooted") { // the test's own time ends it
		b.open("/device/pump-01/reboot")
	}
	b.open("/events")
	b.says("telemetry")
	b.shot("events")
}

// TestConsoleByKeyboard goes from the first page to a changed device without a mouse, and looks whether one sees where one
// is.
func TestConsoleByKeyboard(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.89")
	furnish(t, h)
	b.enter(consoleLink(t, h))
	b.press(kb.Tab)
	b.until(`document.activeElement.textContent === "Skip to the content" && document.activeElement.getBoundingClientRect().left >= 0`)
	b.shot("skip")
	b.press(kb.Enter)
	b.until(`location.hash === "#main" && document.activeElement.id === "main"`)
	b.press("g")
	b.press("d")
	b.until(`location.pathname === "/devices"`)
	b.press("/")
	b.until(`document.activeElement.id === "prefix"`)
	b.fill("#prefix", "") // a key that is sent so types, although the page has prevented it
	b.press("pump-05" + kb.Enter)
	b.until(`location.search.includes("pump-05")`)
	b.tabTo(`a[href="/device/pump-05"]`)
	b.press(kb.Enter)
	b.until(`location.pathname === "/device/pump-05"`)
	b.tabTo(`a[href="/device/pump-05/twin"]`)
	b.press(kb.Enter)
	b.tabTo(`a[href="/device/pump-05/twin/edit"]`)
	b.press(kb.Enter)
	b.tabTo("#text")
	b.setText("#text", `"floor": 0`, `"floor": 55`)
	b.tabTo(`button[value="review"]`)
	b.press(kb.Enter)
	b.until(`document.querySelector("button[value='save']")`)
	b.tabTo(`button[value="save"]`)
	b.press(kb.Enter)
	b.until(`location.pathname === "/device/pump-05/twin" && document.body.innerText.includes("55")`)
	if out := h.iotdm(t, "service", "twin", "get", "--device", "pump-05", "--jq", ".tags.floor"); out != "55" {
		t.Errorf("the tag is %s", out)
	}
}

// TestConsoleOutlivesTheHub stops the hub under an open page and starts it again.
func TestConsoleOutlivesTheHub(t *testing.T) {
	b := newBrowser(t, "")
	h := startHubOn(t, "127.0.0.79", "8443") // a port that the next one gets, too
	h.iotdm(t, "service", "device", "create", "d1")
	b.enter(consoleLink(t, h))
	b.open("/events")
	b.until(`document.querySelector("[data-live-state]").textContent === "live"`)
	h.kill(t)
	b.until(`document.querySelector("[data-live-state]").textContent !== "live"`)
	b.shot("away")
	again := startHubIn(t, h)
	b.until(`document.querySelector("[data-live-state]").textContent === "live"`)
	again.iotdm(t, "device", "send", "--device", "d1", "--data", "here again")
	b.says("here again")
	b.shot("back")
	// Pages say so while it is away, and go on afterwards.
	b.open("/")
	again.kill(t)
	b.says("The hub does not answer")
	b.shot("overview_away")
	b.open("/device/d1")
	b.until(`document.querySelector("[role=alert]")`)
	b.shot("device_away")
	startHubIn(t, h)
	b.open("/")
	b.until(`!document.body.innerText.includes("The hub does not answer")`)
	b.open("/device/d1")
	b.says("disconnected")
}

// TestConsoleOfManyDevices pages through 100,000 devices.
func TestConsoleOfManyDevices(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.78", "--ephemeral")
	const devices = 100_000
	var lines bytes.Buffer
	for i := range devices {
		fmt.Fprintf(&lines, `{"id":"m-%06d","tags":{"site":"s%d"}}`+"\n", i, i%1000)
	}
	file := filepath.Join(t.TempDir(), "devices.ndjson")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	h.iotdm(t, "service", "device", "import", "--yes", "--failed-only", file)
	b.enter(consoleLink(t, h))
	b.until(`document.body.innerText.replaceAll("\u202f", "").includes("100000")`) // the overview has counted them
	b.shot("overview")
	b.open("/devices")
	for page := 1; page <= 3; page++ {
		b.says(fmt.Sprintf("m-%06d", (page-1)*50))
		if took := ask[float64](b, `performance.getEntriesByType("navigation")[0].responseEnd`); true {
			t.Logf("page %d took %.0f ms", page, took)
		}
		b.click(`.pager a[rel="next"]`)
	}
	b.says("m-000150")
	b.open("/devices?prefix=m-0999")
	b.says("m-099900")
	b.open("/devices?path=tags.site&operator=%3D&value=s77&count=1")
	b.says("100 devices that match")
	b.shot("found")
	b.open("/devices/act?where=" + url.QueryEscape("STARTSWITH(deviceId, 'm-')"))
	b.until(`document.body.innerText.replaceAll("\u202f", "").includes("100000")`)
	b.shot("act")
}
