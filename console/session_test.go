package console_test

import (
	"net/http"
	"testing"
)

func TestATokenLetsInOneBrowserOnce(t *testing.T) {
	s := newSite(t)
	s.get("/").says("Overview")
	token := s.console.NewToken()
	other := *s
	other.browser = s.newBrowser()
	if d := other.try("/"); d.status != http.StatusUnauthorized {
		t.Errorf("without a token the status is %d", d.status)
	}
	other.get("/?t=" + token)
	other.get("/").says("Overview")
	third := *s
	third.browser = s.newBrowser()
	if d := third.try("/?t=" + token); d.status != http.StatusUnauthorized {
		t.Errorf("a token that was used is answered with status %d", d.status)
	}
}
