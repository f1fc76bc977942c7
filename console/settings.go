package console

import (
	"net/http"
	"time"
)

// settingsPage is the data of the page of settings.
type settingsPage struct {
	Link   string // a new one, once
	Rights []rightLine
}

// A rightLine is something that a user may want to do here.
type rightLine struct {
	What string
	May  bool
	Need string // the right that it takes
}

func (c *Console) settings(w http.ResponseWriter, r *http.Request) error {
	c.showSettings(w, r, "")
	return nil
}

// makeLink shows a link that lets another browser in.
func (c *Console) makeLink(w http.ResponseWriter, r *http.Request) error {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	c.showSettings(w, r, scheme+r.Host+"/?t="+c.NewToken())
	return nil
}

func (c *Console) showSettings(w http.ResponseWriter, r *http.Request, link string) {
	m := c.may(r.Context())
	c.render(w, r, page{Template: "settings", Title: "Settings", Section: "Settings", Data: settingsPage{Link: link, Rights: []rightLine{
		{"See the identities of devices", m.RegistryRead, "RegistryRead"},
		{"See twins and events, and query", m.ServiceConnect, "ServiceConnect"},
		{"Register, change and delete devices", m.Register(), "RegistryWrite"},
		{"Change twins, call methods, send messages", m.Operate(), "ServiceConnect"},
		{"Run jobs on many devices", m.Schedule(), "ServiceConnect, or RegistryRead and RegistryWrite"},
		{"Write configurations", m.Configure(), "ServiceConnect or RegistryWrite"},
		{"Write enrollments", m.Enroll(), "a policy of the provisioning service"},
	}}})
}

const themeCookie = "iotdm-console-theme"

// themeOf is how a browser wants the pages: "dark", "light", or empty for what the system has.
func themeOf(r *http.Request) string {
	if cookie, err := r.Cookie(themeCookie); err == nil && (cookie.Value == "dark" || cookie.Value == "light") {
		return cookie.Value
	}
	return ""
}

func (c *Console) setTheme(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, &http.Cookie{Name: themeCookie, Value: r.PostFormValue("theme"), Path: "/", MaxAge: int((365 * 24 * time.Hour).Seconds()),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
	return c.done(w, r, "/settings", "")
}
