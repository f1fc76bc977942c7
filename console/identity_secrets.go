package console

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// Secrets are what somebody has asked for. They are in the answer to that form and nowhere else: no page that is only
// opened has them, and no flash.
type secrets struct {
	Primary, Secondary                 string
	PrimaryConnection, OtherConnection string // connection strings; empty if the id does not fit into one

	Token   string
	Expires time.Time
}

// String hides what it holds from logs.
func (secrets) String() string { return "***" }

// secretsOf returns the identity page and the keys, which a read-only console keeps to itself: who has them can act as
// the device.
func (c *Console) secretsOf(ctx context.Context, on hubrest.Target) (identityPage, hubrest.SymmetricKey, error) {
	if c.opt.ReadOnly {
		return identityPage{}, hubrest.SymmetricKey{}, &problem{status: http.StatusForbidden, text: "this console is read-only and shows no keys: whoever has them can act as the device"}
	}
	if !c.may(ctx).RegistryRead {
		return identityPage{}, hubrest.SymmetricKey{}, &problem{status: http.StatusForbidden, text: "the hub does not show keys to this console: its credential lacks RegistryRead"}
	}
	p, err := c.identityPage(ctx, on)
	if err != nil {
		return p, hubrest.SymmetricKey{}, err
	}
	key := p.Identity.Authentication.SymmetricKey
	if key.PrimaryKey == "" {
		return p, key, invalid("it has no keys: it authenticates by " + string(p.Identity.Authentication.Type))
	}
	return p, key, nil
}

// showKeys shows the keys and connection strings.
func (c *Console) showKeys(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	p, key, err := c.secretsOf(r.Context(), on)
	if err != nil {
		return err
	}
	p.Secrets = &secrets{Primary: string(key.PrimaryKey), Secondary: string(key.SecondaryKey)}
	if !strings.Contains(on.DeviceID+on.ModuleID, ";") { // where it ends a member
		p.Secrets.PrimaryConnection = c.connectionString(on, key.PrimaryKey).Format()
		p.Secrets.OtherConnection = c.connectionString(on, key.SecondaryKey).Format()
	}
	c.renderIdentity(w, r, p)
	return nil
}

// maxTokenLife is ten years, in minutes.
const maxTokenLife = 10 * 365 * 24 * 60

// tokenLifeOf reads for how long a token is to be good.
func tokenLifeOf(r *http.Request) (time.Duration, error) {
	minutes, err := strconv.Atoi(strings.TrimSpace(r.PostFormValue("minutes")))
	if err != nil || minutes < 1 || minutes > maxTokenLife {
		return 0, invalid("a token is good for 1 to " + strconv.Itoa(maxTokenLife) + " minutes")
	}
	return time.Duration(minutes) * time.Minute, nil
}

// makeToken shows a shared access signature.
func (c *Console) makeToken(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	life, err := tokenLifeOf(r)
	if err != nil {
		return err
	}
	p, key, err := c.secretsOf(r.Context(), on)
	if err != nil {
		return err
	}
	signer := key.PrimaryKey
	if r.PostFormValue("key") == "secondary" {
		signer = key.SecondaryKey
	}
	cs := c.connectionString(on, signer)
	expires := c.now().Add(life).Truncate(time.Second)
	token, err := sas.Sign(cs.Audience(), "", signer, expires)
	if err != nil {
		return err
	}
	p.Secrets = &secrets{Token: token, Expires: expires}
	c.renderIdentity(w, r, p)
	return nil
}

// renewKeys has new keys made, which are not shown.
func (c *Console) renewKeys(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	renew, known := renewals[r.PostFormValue("which")]
	if !known {
		return invalid("say which key to renew: primary, secondary, both, or swap")
	}
	if etag := r.PostFormValue("etag"); etag == "" {
		return invalid("the form lacks the etag of the identity; open the page again")
	}
	if err := c.renew(r.Context(), on, r.PostFormValue("etag"), renew.apply); err != nil {
		return c.failed(w, r, identityPath(on), about(on, changedMeanwhile(err)))
	}
	return c.done(w, r, identityPath(on), renew.done)
}

// renewals are what can be done to the keys of an identity.
var renewals = map[string]struct {
	apply func(*hubrest.SymmetricKey)
	done  string
}{
	"primary":   {func(k *hubrest.SymmetricKey) { k.Renew(hubrest.PrimaryKey) }, "The primary key is new."},
	"secondary": {func(k *hubrest.SymmetricKey) { k.Renew(hubrest.SecondaryKey) }, "The secondary key is new."},
	"both":      {func(k *hubrest.SymmetricKey) { k.Renew(hubrest.BothKeys) }, "Both keys are new."},
	"swap":      {(*hubrest.SymmetricKey).Swap, "The keys have changed places."},
}

// renew changes the keys of an identity whose etag is still that one.
func (c *Console) renew(ctx context.Context, on hubrest.Target, etag string, apply func(*hubrest.SymmetricKey)) error {
	if on.ModuleID != "" {
		m, err := c.opt.Client.Module(ctx, on)
		if err != nil {
			return err
		}
		if m.Authentication.Type != hubrest.AuthSAS {
			return invalid("it has no keys: it authenticates by " + string(m.Authentication.Type))
		}
		apply(&m.Authentication.SymmetricKey)
		m.ETag = etag
		_, err = c.opt.Client.UpdateModule(ctx, m)
		return err
	}
	d, err := c.opt.Client.Device(ctx, on.DeviceID)
	if err != nil {
		return err
	}
	if d.Authentication.Type != hubrest.AuthSAS {
		return invalid("it has no keys: it authenticates by " + string(d.Authentication.Type))
	}
	apply(&d.Authentication.SymmetricKey)
	d.ETag = etag
	_, err = c.opt.Client.UpdateDevice(ctx, d)
	return err
}
