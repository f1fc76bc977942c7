// Package mqttsetup tells what to type into any MQTT client so that it is a
// device of an IoT hub, and writes it down for mosquitto's programs.
package mqttsetup

import (
	"time"

	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/internal/mqttsettings"
)

// settings are those of a client, to be written in several ways.
type settings struct{ mqttsettings.Settings }

// newSettings returns the settings of the device that t is to be.
func newSettings(t target.Target, life time.Duration, now time.Time) (settings, error) {
	s, err := mqttsettings.New(mqttsettings.Source{
		Connection: t.Connection, MQTTSAddr: t.MQTTSAddr, HTTPSAddr: t.HTTPSAddr,
		CAFile: t.CAFile, CertFile: t.Link.CertFile, KeyFile: t.Link.KeyFile, Model: t.Link.Model,
	}, life, now)
	return settings{s}, err
}
