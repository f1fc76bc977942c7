package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	sessionLife = 12 * time.Hour
	tokenLife   = time.Hour
	maxSessions = 1000 // the oldest makes room
	maxFlashes  = 8
)

// A session is a browser that has logged in.
type session struct {
	user    string // of a trusted header; empty: whoever had a token or the password
	expires time.Time

	mu      sync.Mutex
	flashes []flash
}

// A flash is what the next page of a session says first.
type flash struct {
	Bad  bool
	Text string
}

// A digest is what is kept of a secret that browsers show.
type digest [sha256.Size]byte

// A doorkeeper knows who may come in.
type doorkeeper struct {
	opt Options

	mu       sync.Mutex
	tokens   map[digest]time.Time // until when they are good
	sessions map[digest]*session
	users    map[string]*session // of a trusted header
	tries    []time.Time         // of passwords that were wrong, within the last minute
}

func newDoorkeeper(o Options) doorkeeper {
	return doorkeeper{opt: o, tokens: map[digest]time.Time{}, sessions: map[digest]*session{}, users: map[string]*session{}}
}

// NewToken returns a token that lets a browser in once, within an hour: at "/?t=TOKEN".
func (c *Console) NewToken() string {
	d := &c.doors
	d.mu.Lock()
	defer d.mu.Unlock()
	now := c.now()
	for t, until := range d.tokens {
		if now.After(until) {
			delete(d.tokens, t)
		}
	}
	token := secret()
	d.tokens[sha256.Sum256([]byte(token))] = now.Add(tokenLife)
	return token
}

// secret returns 128 random bits as text.
func secret() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// spend reports whether the token is good, which it no longer is then.
func (d *doorkeeper) spend(token string, now time.Time) bool {
	key := digest(sha256.Sum256([]byte(token)))
	d.mu.Lock()
	defer d.mu.Unlock()
	until, ok := d.tokens[key]
	delete(d.tokens, key)
	return ok && now.Before(until)
}

// maxTries is how many wrong passwords are heard in a minute, from all browsers together.
const maxTries = 10

// check reports whether the password is right, and whether so many were wrong that it is not even looked at.
func (d *doorkeeper) check(password string, now time.Time) (right, tooMany bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.tries) > 0 && now.Sub(d.tries[0]) > time.Minute {
		d.tries = d.tries[1:]
	}
	if len(d.tries) >= maxTries {
		return false, true
	}
	given, own := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(d.opt.Password))
	if d.opt.Password != "" && subtle.ConstantTimeCompare(given[:], own[:]) == 1 {
		return true, false
	}
	d.tries = append(d.tries, now)
	return false, false
}

// open makes a session and returns the secret that goes into the cookie.
func (d *doorkeeper) open(now time.Time) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sessions) >= maxSessions {
		var oldest digest
		for key, s := range d.sessions {
			if o := d.sessions[oldest]; o == nil || s.expires.Before(o.expires) {
				oldest = key
			}
		}
		delete(d.sessions, oldest)
	}
	text := secret()
	d.sessions[sha256.Sum256([]byte(text))] = &session{expires: now.Add(sessionLife)}
	return text
}

// find returns the session of a request, or nil.
func (d *doorkeeper) find(r *http.Request, now time.Time) *session {
	if name := d.opt.TrustedHeader; name != "" && d.opt.fromProxy(r) {
		if user := r.Header.Get(name); user != "" {
			return d.of(user)
		}
	}
	cookie, err := r.Cookie(cookieName(r))
	if err != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := digest(sha256.Sum256([]byte(cookie.Value)))
	s := d.sessions[key]
	if s != nil && now.After(s.expires) {
		delete(d.sessions, key)
		return nil
	}
	return s
}

// of returns the session of a user whom a proxy vouches for.
func (d *doorkeeper) of(user string) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users[user] == nil {
		if len(d.users) >= maxSessions { // they hold nothing but what the next page would say
			clear(d.users)
		}
		d.users[user] = &session{user: user}
	}
	return d.users[user]
}

// end forgets the session of a request.
func (d *doorkeeper) end(r *http.Request) {
	if cookie, err := r.Cookie(cookieName(r)); err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.sessions, sha256.Sum256([]byte(cookie.Value)))
	}
}

// cookieName is that of the session. Cookies know no ports: so that two consoles of one machine do not log each other
// out, the name has the port.
func cookieName(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Host)
	if r.TLS != nil {
		return "__Host-iotdm-console-" + port
	}
	return "iotdm-console-" + port
}

func sessionCookie(r *http.Request, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{Name: cookieName(r), Value: value, Path: "/", MaxAge: int(life.Seconds()),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode}
}

type sessionKey struct{}

// sessionOf returns the session of a request that has passed the door.
func sessionOf(r *http.Request) *session {
	s, _ := r.Context().Value(sessionKey{}).(*session)
	return s
}

// userOf names who made a request, for a log.
func userOf(r *http.Request) string {
	if s := sessionOf(r); s != nil {
		return s.user
	}
	return ""
}

// authenticated lets through who has a session. A token in the address becomes one. The answer to it is a page that
// leads on, and no redirect: a browser that comes by a link of another site would not show its new cookie then.
func (c *Console) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := r.URL.Query().Get("t"); token != "" && r.URL.Path == "/" && r.Method == http.MethodGet {
			if c.doors.spend(token, c.now()) {
				http.SetCookie(w, sessionCookie(r, c.doors.open(c.now()), sessionLife))
				c.render(w, r, page{Template: "welcome", Title: "Signed in", bare: true})
				return
			}
			if c.doors.find(r, c.now()) != nil { // the link was opened once more
				http.Redirect(w, r, "/", http.StatusSeeOther)
				return
			}
			c.askLogin(w, r, "This link has been used already, or is too old.")
			return
		}
		s := c.doors.find(r, c.now())
		if s == nil {
			c.askLogin(w, r, "")
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, s)))
	})
}

// loginPage is the data of the page that asks who is there.
type loginPage struct {
	Password bool // there is one
	Problem  string
}

func (c *Console) askLogin(w http.ResponseWriter, r *http.Request, problem string) {
	c.render(w, r, page{Template: "login", Title: "Sign in", Status: http.StatusUnauthorized, bare: true,
		Data: loginPage{Password: c.opt.Password != "", Problem: problem}})
}

func (c *Console) showLogin(w http.ResponseWriter, r *http.Request) {
	if c.doors.find(r, c.now()) != nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	c.askLogin(w, r, "")
}

func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	right, tooMany := false, false
	if token := r.PostFormValue("token"); token != "" {
		right = c.doors.spend(token, c.now())
	} else {
		right, tooMany = c.doors.check(r.PostFormValue("password"), c.now())
	}
	switch {
	case tooMany:
		c.askLogin(w, r, "Too many wrong passwords. Wait a minute and try again.")
	case !right:
		c.log.Warn("console login refused", "remote", r.RemoteAddr)
		c.askLogin(w, r, "That is not right.")
	default:
		http.SetCookie(w, sessionCookie(r, c.doors.open(c.now()), sessionLife))
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

func (c *Console) logout(w http.ResponseWriter, r *http.Request) error {
	c.doors.end(r)
	http.SetCookie(w, sessionCookie(r, "", -time.Second))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// flash has the next page of the session say something.
func (s *session) flash(f flash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flashes) < maxFlashes {
		s.flashes = append(s.flashes, f)
	}
}

// takeFlashes returns what is to be said, once.
func (s *session) takeFlashes() []flash {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flashes
	s.flashes = nil
	return f
}
