package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// rows are the devices in the table of a page.
func (b *browser) rows() []string {
	b.Helper()
	return ask[[]string](b, `[...document.querySelectorAll("tbody th[scope=row] a")].map(a => a.textContent)`)
}

// TestConsoleRebootsSelectedDevices reboots devices that were ticked, and watches.
func TestConsoleRebootsSelectedDevices(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.93")
	runDevice(t, h, "--count", "20", "--id-prefix", "sim-", "--reboot-duration", "1s").await(t, "All 20 devices are connected")
	h.iotdm(t, "service", "device", "create", "--device", "other")
	b.enter(consoleLink(t, h))
	b.open("/devices")
	b.fill("#prefix", "sim-\r")
	b.until("location.search === '?prefix=sim-&size=50'") // what is empty is left out
	b.until(`document.querySelector("button[data-selected]").disabled`)
	b.click(`input[name=id][value="sim-1"]`)
	b.says("With 1 selected device…")
	b.click("[data-select-all] input")
	b.says("With 20 selected devices…")
	b.click("button[data-selected]")
	b.says("20 devices, 20 of them connected")
	b.accessible("many devices")

	b.click("details:has(#confirm-reboot) summary")
	b.fill("#confirm-reboot", "19\r")
	b.says("type 20 to confirm")
	b.click("details:has(#confirm-reboot) summary")
	b.fill("#confirm-reboot", "20\r")
	b.until("location.pathname.startsWith('/job/')")
	loaded := ask[float64](b, "performance.timeOrigin")
	b.says("20 of 20")
	b.says("completed")
	b.until(`!document.querySelector("form[action$='/cancel']")`)
	if ask[float64](b, "performance.timeOrigin") != loaded {
		t.Error("the page was loaded anew")
	}
	if rows := b.rows(); len(rows) != 20 {
		t.Errorf("the job has %d rows", len(rows))
	}
	b.accessible("a job")
	b.shot("job")
	if text := h.iotdm(t, "service", "job", "list", "--jq", ".[0].status"); !strings.Contains(text, "completed") {
		t.Errorf("the job is %s", text)
	}
}

// TestConsoleImportsAFile looks what a file would do before it is imported.
func TestConsoleImportsAFile(t *testing.T) {
	b := newBrowser(t, "")
	h := startHub(t, "127.0.0.94")
	h.iotdm(t, "service", "device", "create", "--device", "old")
	name := filepath.Join(t.TempDir(), "devices.csv")
	if err := os.WriteFile(name, []byte("id,tags.site\nnew,north\nold,south\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.enter(consoleLink(t, h))
	b.open("/devices")
	b.click(`a[href="/devices/import"]`)
	b.until("document.querySelector('#file')")
	b.do("choose a file", chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{name}))
	b.click("form[enctype] button")
	b.says("Change 1 identity (tags of 1) and create 1")
	b.accessible("what an import would do")
	b.shot("rehearsal")
	b.fill("#confirm-import", "1\r")
	b.until(`document.querySelector("h1")?.innerText === "Import devices.csv" && document.body.innerText.includes("1 created, 1 updated")`)
	b.until(`!document.querySelector("form[action$='/cancel']")`)
	b.shot("import")
	if text := h.iotdm(t, "service", "twin", "get", "--device", "old", "--jq", ".tags.site"); !strings.Contains(text, "south") {
		t.Errorf("the tag of old is %s", text)
	}
}
