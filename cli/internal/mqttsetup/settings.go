// Package mqttsetup tells what to type into any MQTT client so that it is a
// device of an IoT hub, and writes it down for mosquitto's programs.
package mqttsetup

import (
	"cmp"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/sas"
)

// Settings are those of a client that is a device or module. They have its
// password.
type Settings struct {
	Protocol  string     `json:"protocol"`
	Host      string     `json:"host"`
	Port      int        `json:"port"` // for TLS
	WebSocket string     `json:"webSocket"`
	CAFile    string     `json:"caFile,omitempty"` // empty: the system's roots
	CertFile  string     `json:"certFile,omitempty"`
	KeyFile   string     `json:"keyFile,omitempty"`
	ClientID  string     `json:"clientId"`
	UserName  string     `json:"userName"`
	Password  string     `json:"password,omitempty"` // empty: the certificate counts
	Expires   *time.Time `json:"passwordExpires,omitempty"`
	Topics    Topics     `json:"topics"`
}

// Topics are those that a device publishes to (the first four) and subscribes to.
// Capital letters in them are to be replaced.
type Topics struct {
	Telemetry    string `json:"telemetry"`
	TwinGet      string `json:"twinGet"`
	Reported     string `json:"reported"`
	MethodAnswer string `json:"methodAnswer"`

	Messages   string `json:"messages,omitempty"` // of devices alone
	Methods    string `json:"methods"`
	TwinAnswer string `json:"twinAnswer"`
	Desired    string `json:"desired"`
}

// New returns the settings of the device that t is to be. The password is signed
// at now, for so long as life, unless the connection string has a token or wants
// a certificate.
//
// See "Communicate with IoT Hub using the MQTT protocol".
func New(t target.Target, life time.Duration, now time.Time) (Settings, error) {
	c := t.Connection
	var port string
	c.HostName, port = localhub.SplitPort(c.HostName)
	host, gatewayPort := localhub.SplitPort(cmp.Or(c.GatewayHostName, c.HostName))
	port = cmp.Or(portOf(t.MQTTSAddr), gatewayPort, port, localhub.MQTTSPort)
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Settings{}, errors.New("the port in HostName is not a number")
	}
	id, own := c.DeviceID, "devices/"+c.DeviceID
	if c.ModuleID != "" {
		id += "/" + c.ModuleID
		own += "/modules/" + c.ModuleID
	}
	s := Settings{
		Protocol:  "MQTT 3.1.1",
		Host:      strings.Trim(host, "[]"),
		Port:      int(number),
		WebSocket: "wss://" + localhub.HostWithPort(host, t.HTTPSAddr, localhub.HTTPSPort) + "/$iothub/websocket",
		CAFile:    t.CAFile,
		CertFile:  t.Link.CertFile,
		KeyFile:   t.Link.KeyFile,
		ClientID:  id,
		UserName:  c.HostName + "/" + id + "/?api-version=2021-04-12",
		Topics: Topics{
			Telemetry:    own + "/messages/events/",
			TwinGet:      "$iothub/twin/GET/?$rid=RID",
			Reported:     "$iothub/twin/PATCH/properties/reported/?$rid=RID",
			MethodAnswer: "$iothub/methods/res/STATUS/?$rid=RID",
			Methods:      "$iothub/methods/POST/#",
			TwinAnswer:   "$iothub/twin/res/#",
			Desired:      "$iothub/twin/PATCH/properties/desired/#",
		},
	}
	if c.ModuleID == "" {
		s.Topics.Messages = own + "/messages/devicebound/#"
	}
	if t.Link.Model != "" {
		s.UserName += "&model-id=" + strings.ReplaceAll(url.QueryEscape(t.Link.Model), "+", "%20")
	}
	return s, s.sign(c, life, now)
}

// sign fills in the password.
func (s *Settings) sign(c sas.ConnectionString, life time.Duration, now time.Time) (err error) {
	var expires time.Time
	switch {
	case c.X509:
		return nil
	case c.SharedAccessSignature != "":
		token, err := sas.ParseToken(string(c.SharedAccessSignature))
		if err != nil {
			return err
		}
		s.Password, expires = string(c.SharedAccessSignature), token.Expiry
	default:
		expires = now.Add(life).Truncate(time.Second)
		if s.Password, err = sas.Sign(c.Audience(), c.SharedAccessKeyName, c.SharedAccessKey, expires); err != nil {
			return err
		}
	}
	expires = expires.UTC()
	s.Expires = &expires
	return nil
}

func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return port
}
