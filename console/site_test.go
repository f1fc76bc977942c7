package console_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/iotdm/iotdm/console"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

// A site is a console of a hub of its own, and a browser that has logged in.
type site struct {
	*testing.T
	hub     *hubtest.Hub
	service *hubrest.Client // with the policy iothubowner
	console *console.Console
	server  *httptest.Server
	browser *http.Client // follows redirects
}

// newSite starts a site whose options may be changed by those that are given.
func newSite(t *testing.T, with ...func(*console.Options)) *site {
	t.Helper()
	return newSiteAs(t, "iothubowner", with...)
}

// newSiteAs starts a site whose console has the key of a policy.
func newSiteAs(t *testing.T, policy string, with ...func(*console.Options)) *site {
	t.Helper()
	return startSite(t, policy, func(_ *site, o *console.Options) {
		for _, change := range with {
			change(o)
		}
	})
}

// startSite starts a site whose console has the key of a policy, and the options as change leaves them.
func startSite(t *testing.T, policy string, change func(*site, *console.Options)) *site {
	t.Helper()
	return startSiteOf(t, hubtest.New(t), policy, change)
}

// startSiteOf is startSite for a hub that there is.
func startSiteOf(t *testing.T, hub *hubtest.Hub, policy string, change func(*site, *console.Options)) *site {
	t.Helper()
	s := &site{T: t, hub: hub}
	s.service = s.client("iothubowner")
	events, err := hubamqp.New(hubamqp.Options{ConnectionString: s.hub.Policy(policy), Addr: s.hub.AMQPSAddr, TLS: s.hub.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Close)
	provisioning, err := hubrest.NewProvisioning(hubrest.Options{ConnectionString: s.hub.Policy("provisioningserviceowner"), TLS: s.hub.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provisioning.Close)
	o := console.Options{Client: s.client(policy), Events: events, Provisioning: provisioning, HubName: "test-hub", Policy: "policy " + policy}
	change(s, &o)
	if s.console, err = console.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.console.Close)
	s.server = httptest.NewServer(s.console)
	t.Cleanup(s.server.Close)
	s.browser = s.newBrowser()
	s.get("/?t=" + s.console.NewToken())
	return s
}

// client returns a service client of the hub.
func (s *site) client(policy string) *hubrest.Client {
	s.Helper()
	client, err := hubrest.New(hubrest.Options{ConnectionString: s.hub.Policy(policy), TLS: s.hub.ClientTLS()})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(client.Close)
	return client
}

// newBrowser returns one that has not logged in.
func (s *site) newBrowser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

// A doc is a page that was answered.
type doc struct {
	*testing.T
	status int
	url    *url.URL // behind redirects
	body   string
	root   *html.Node
}

// get opens a page, which must not fail.
func (s *site) get(path string) *doc {
	s.Helper()
	d := s.try(path)
	if d.status != http.StatusOK {
		s.Fatalf("GET %s: status %d: %s", path, d.status, d.text("main"))
	}
	return d
}

// try opens a page.
func (s *site) try(path string) *doc {
	s.Helper()
	answer, err := s.browser.Get(s.server.URL + path)
	return s.read(answer, err)
}

// post sends a form and opens the page that it leads to. Values are pairs of names and values.
func (s *site) post(path string, values ...string) *doc {
	s.Helper()
	form := url.Values{}
	for i := 0; i < len(values); i += 2 {
		form.Add(values[i], values[i+1])
	}
	answer, err := s.browser.PostForm(s.server.URL+path, form)
	return s.read(answer, err)
}

func (s *site) read(answer *http.Response, err error) *doc {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		s.Fatal(err)
	}
	return &doc{T: s.T, status: answer.StatusCode, url: answer.Request.URL, body: string(body), root: root}
}

// all returns the elements of a name that have all the attributes, which are pairs of names and values; the value "*" is
// any. The name "*" is any, too.
func (d *doc) all(name string, attributes ...string) []*html.Node {
	var found []*html.Node
	for n := range d.root.Descendants() {
		fits := n.Type == html.ElementNode && (name == "*" || n.Data == name)
		for i := 0; fits && i < len(attributes); i += 2 {
			value, ok := attribute(n, attributes[i])
			fits = ok && (attributes[i+1] == "*" || value == attributes[i+1])
		}
		if fits {
			found = append(found, n)
		}
	}
	return found
}

// one returns the only such element.
func (d *doc) one(name string, attributes ...string) *html.Node {
	d.Helper()
	found := d.all(name, attributes...)
	if len(found) != 1 {
		d.Fatalf("%s has %d elements %s %q, want one:\n%s", d.url, len(found), name, attributes, d.text("main"))
	}
	return found[0]
}

// text is what one reads in the first element of a name, with single blanks.
func (d *doc) text(name string) string {
	for _, n := range d.all(name) {
		return textOf(n)
	}
	return ""
}

// says fails unless one reads the words in the page.
func (d *doc) says(words string) {
	d.Helper()
	if text := d.text("body"); !strings.Contains(text, words) {
		d.Errorf("%s does not say %q:\n%s", d.url, words, text)
	}
}

// saysNot fails if one reads the words in the page.
func (d *doc) saysNot(words string) {
	d.Helper()
	if text := d.text("body"); strings.Contains(text, words) {
		d.Errorf("%s says %q:\n%s", d.url, words, text)
	}
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
			b.WriteByte(' ')
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func attribute(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// until waits until a condition holds, for a busy machine's while.
func until(t *testing.T, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has not happened within 30 s")
		}
	}
}
