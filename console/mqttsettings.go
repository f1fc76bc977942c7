package console

import (
	"net/http"
	"time"

	"github.com/iotdm/iotdm/internal/mqttsettings"
	"github.com/iotdm/iotdm/sas"
)

// An mqttPage tells what to type into an MQTT client.
type mqttPage struct {
	deviceHead
	Settings mqttsettings.Settings // its password only if it was asked for
	Expires  time.Time             // of the password; zero: there is none
	Keys     bool                  // a password can be made
	Problem  string                // why there are no settings
}

// Bare reports whether there is no password to show.
func (p mqttPage) Bare() bool { return p.Settings.Password == "" }

func (c *Console) mqttSettings(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	h, err := c.head(r.Context(), on, "mqtt")
	if err != nil {
		return err
	}
	return c.renderMQTT(w, r, mqttPage{deviceHead: h, Keys: c.may(r.Context()).RegistryRead && !c.opt.ReadOnly}, "", 0)
}

// mqttPassword shows the settings with a password for so long as was asked.
func (c *Console) mqttPassword(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	life, err := tokenLifeOf(r)
	if err != nil {
		return err
	}
	i, key, err := c.secretsOf(r.Context(), on)
	if err != nil {
		return err
	}
	p := mqttPage{deviceHead: headOf(on, i.Identity, "mqtt"), Keys: true}
	return c.renderMQTT(w, r, p, key.PrimaryKey, life)
}

// renderMQTT shows the settings, with a password if there is a key.
func (c *Console) renderMQTT(w http.ResponseWriter, r *http.Request, p mqttPage, key sas.Key, life time.Duration) error {
	cs := c.connectionString(p.On, key)
	cs.X509 = key == ""
	settings, err := mqttsettings.New(mqttsettings.Source{Connection: cs, MQTTSAddr: c.opt.MQTTSAddr, HTTPSAddr: c.opt.HTTPSAddr}, life, c.now())
	if err != nil {
		p.Problem = sentence(err.Error())
	}
	if p.Settings = settings; settings.Expires != nil {
		p.Expires = *settings.Expires
	}
	c.render(w, r, page{Template: "mqtt", Title: titleOf(p.On, "MQTT"), Section: "Devices", Data: p})
	return nil
}
