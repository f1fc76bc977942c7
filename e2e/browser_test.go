package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A browser is a page of Chromium that a test drives. It ends with the test.
type browser struct {
	*testing.T
	ctx   context.Context
	base  string // of the console
	shots string // folder for pictures
	axe   string // the source of axe-core; empty: not loaded yet
}

// browserWait is how long something on a page may take on a busy machine.
const browserWait = 60 * time.Second

// newBrowser starts Chromium for the console at base, or skips the test.
func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" {
		skip(t, "no chromium in PATH")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox,
		chromedp.Flag("force-prefers-reduced-motion", true), chromedp.Flag("disable-lcd-text", true),
		chromedp.Flag("host-resolver-rules", "MAP rebound.example.com 127.0.0.1"))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancelPage := chromedp.NewContext(allocator)
	t.Cleanup(cancelPage)
	b := &browser{T: t, ctx: ctx, base: strings.TrimSuffix(base, "/"), shots: os.Getenv("IOTDM_SCREENSHOTS")}
	if b.shots == "" {
		b.shots = t.TempDir()
	} else if err := os.MkdirAll(b.shots, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1440, 900)); err != nil {
		t.Fatalf("start %s: %v", chromium, err)
	}
	return b
}

// do runs actions, which have to succeed.
func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserWait)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.shot("failed")
		b.Fatalf("%s: %v\nat %s:\n%s", what, err, b.address(), b.text())
	}
}

// open loads a page of the console. Where the page before is still on its way, the browser may take that one instead: then
// it is asked again.
func (b *browser) open(path string) {
	b.Helper()
	want, _, _ := strings.Cut(b.base+path, "?")
	for end := time.Now().Add(browserWait); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(b.ctx, browserWait)
		err := chromedp.Do(ctx, chromedp.Navigate(b.base+path))
		cancel()
		if err != nil && !strings.Contains(err.Error(), "net::ERR_ABORTED") {
			break
		}
		if err == nil && strings.HasPrefix(b.address(), want) {
			return
		}
	}
	b.do("open "+path, chromedp.Navigate(b.base+path))
}

// ask evaluates an expression of JavaScript.
func ask[T any](b *browser, expression string) T {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserWait)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// until waits until an expression of JavaScript holds on a page that is loaded. The page may be loaded anew meanwhile.
func (b *browser) until(expression string) {
	b.Helper()
	for end := time.Now().Add(browserWait); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(b.ctx, browserWait)
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("document.readyState === 'complete' && !!("+expression+")"))
		cancel()
		if err == nil && holds {
			return
		}
		if time.Now().After(end) {
			b.shot("failed")
			b.Fatalf("%s does not hold (%v) at %s:\n%s", expression, err, b.address(), b.text())
		}
	}
}

// says waits until one reads the words in the page.
func (b *browser) says(words string) {
	b.Helper()
	b.until("document.body && document.body.innerText.includes(" + quoteJS(words) + ")")
}

// text is what one reads in the page.
func (b *browser) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, browserWait)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body ? document.body.innerText : ''"))
	return text
}

// address is what stands in the address bar.
func (b *browser) address() string {
	ctx, cancel := context.WithTimeout(b.ctx, browserWait)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href"))
	return text
}

// fill types text into a field, in place of what is there.
func (b *browser) fill(selector, text string) {
	b.Helper()
	b.until("document.querySelector(" + quoteJS(selector) + ")")
	ask[bool](b, fmt.Sprintf("(() => { const f = document.querySelector(%s); f.scrollIntoView({block: 'center'}); f.focus(); f.value = ''; return true })()", quoteJS(selector)))
	b.do("type into "+selector, chromedp.KeyEvent(text))
}

// click clicks on what a selector finds first.
func (b *browser) click(selector string) {
	b.Helper()
	b.until("document.querySelector(" + quoteJS(selector) + ")")
	b.do("click on "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// press presses keys, on what has the focus.
func (b *browser) press(keys string) {
	b.Helper()
	b.do("press a key", chromedp.KeyEvent(keys))
}

// size makes the window so wide, and high enough for a screen of that width.
func (b *browser) size(width, height int64) {
	b.Helper()
	b.do("resize", chromedp.EmulateViewport(width, height))
}

// scheme has the system prefer "dark" or "light".
func (b *browser) scheme(name string) {
	b.Helper()
	b.do("prefer "+name, func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return chromedp.Void{}, err
	})
}

// shot takes a picture of the whole page, which is kept in the folder that IOTDM_SCREENSHOTS names.
func (b *browser) shot(name string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserWait)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.Errorf("take a picture: %v", err)
		return
	}
	file := filepath.Join(b.shots, strings.ReplaceAll(b.Name(), "/", "_")+"_"+name+".png")
	if err := os.WriteFile(file, picture, 0o644); err != nil {
		b.Error(err)
	}
}

// accessible fails for what axe-core finds wrong with the page, but for what it calls minor.
func (b *browser) accessible(name string) {
	b.Helper()
	if b.axe == "" {
		b.axe = axeSource(b.T)
	}
	ctx, cancel := context.WithTimeout(b.ctx, browserWait)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](b.axe+`;axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatalf("run axe-core: %v", err)
	}
	var violations []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML string }
	}
	if err := json.Unmarshal([]byte(text), &violations); err != nil {
		b.Fatal(err)
	}
	for _, v := range violations {
		if v.Impact == "minor" {
			continue
		}
		var where []string
		for _, n := range v.Nodes[:min(3, len(v.Nodes))] {
			where = append(where, n.HTML)
		}
		b.Errorf("%s: %s: %s (%s):\n%s", name, v.Impact, v.Help, v.ID, strings.Join(where, "\n"))
	}
}

// axeSource returns the program of axe-core, or skips the test.
func axeSource(t *testing.T) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("NODE_PATH")), filepath.Join("sdk", "node", "node_modules")) {
		if text, err := os.ReadFile(filepath.Join(dir, "axe-core", "axe.min.js")); err == nil {
			return string(text)
		}
	}
	skip(t, "no axe-core in NODE_PATH; npm installs it from e2e/sdk/node/package.json")
	return ""
}

func quoteJS(text string) string {
	b, _ := json.Marshal(text) // of text there is no error
	return string(b)
}

// enter opens the link of a console, which it is about from now on.
func (b *browser) enter(link string) {
	b.Helper()
	b.base, _, _ = strings.Cut(link, "/?")
	b.do("open the link", navigate(link))
	b.until("location.pathname === '/' && location.search === '' && document.querySelector('nav')")
}

func navigate(address string) chromedp.Action[chromedp.Void] { return chromedp.Navigate(address) }

// setText replaces a part of what stands in a text area.
func (b *browser) setText(selector, old, text string) {
	b.Helper()
	if !ask[bool](b, fmt.Sprintf("(() => { const f = document.querySelector(%s), had = f.value; f.value = had.replace(%s, %s); return f.value !== had })()",
		quoteJS(selector), quoteJS(old), quoteJS(text))) {
		b.Fatalf("%s has no %q in it: %s", selector, old, ask[string](b, "document.querySelector("+quoteJS(selector)+").value"))
	}
}

// scripts says whether pages may run any. The test's own still do.
func (b *browser) scripts(may bool) {
	b.Helper()
	b.do("turn scripts off", func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !may})
		return chromedp.Void{}, err
	})
}

// typeInto clicks on a field and types.
func (b *browser) typeInto(selector, text string) {
	b.Helper()
	b.clickByMouse(selector)
	b.press(text)
}

// clickByMouse clicks on what a selector finds first, without any script.
func (b *browser) clickByMouse(selector string) {
	b.Helper()
	b.do("click on "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// tabTo presses the tab key until an element has the focus, and fails where one would not see what has it.
func (b *browser) tabTo(selector string) {
	b.Helper()
	b.until("document.querySelector(" + quoteJS(selector) + ")")
	for range 200 {
		b.press(kb.Tab)
		if !ask[bool](b, `(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
			return e === document.body || s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 && r.width > 0 && r.height > 0 })()`) {
			b.Errorf("at %s one does not see that this has the focus: %s", b.address(), ask[string](b, "document.activeElement.outerHTML.slice(0, 200)"))
		}
		if ask[bool](b, "document.activeElement.matches("+quoteJS(selector)+")") {
			return
		}
	}
	b.Fatalf("the tab key does not come to %s at %s", selector, b.address())
}

// consoleLink runs "iotdm console" for a hub and returns the link that it prints.
func consoleLink(t *testing.T, h *hubProcess, flags ...string) string {
	t.Helper()
	cmd := exec.Command("iotdm", slices.Concat([]string{"console", "--addr", "127.0.0.1:0"}, flags)...)
	cmd.Env = append(os.Environ(), "IOTDM_DATA="+h.data)
	return start(t, cmd).await(t, "http")
}
