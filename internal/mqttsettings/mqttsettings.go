// Package mqttsettings tells what to type into any MQTT client so that it is a
// device or module of an IoT hub. It does no I/O.
package mqttsettings

import (
	"cmp"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/sas"
)

// The ports that hubs have unless they say otherwise.
const (
	mqttsPort = "8883"
	httpsPort = "443"
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

// A Row is a topic with what it is for and how it is used.
type Row struct {
	Of, What   string // "direct methods" and "answer"; Of is empty where What says all
	How, Topic string
}

// Rows are the topics in the order in which people want them.
func (t Topics) Rows() []Row {
	rows := []Row{{"", "telemetry", "publish", t.Telemetry}}
	if t.Messages != "" {
		rows = append(rows, Row{"", "messages", "subscribe", t.Messages})
	}
	return append(rows, Row{"", "direct methods", "subscribe", t.Methods}, Row{"direct methods", "answer", "publish", t.MethodAnswer},
		Row{"", "twin", "subscribe", t.TwinAnswer}, Row{"twin", "get", "publish", t.TwinGet}, Row{"twin", "report", "publish", t.Reported},
		Row{"twin", "desired", "subscribe", t.Desired})
}

// A Source is who the client is to be, and where its hub is.
type Source struct {
	Connection sas.ConnectionString // of the device or module; X509 if it has a certificate
	MQTTSAddr  string               // where the hub listens, if it is known: the port counts
	HTTPSAddr  string               // the same, for WebSocket

	CAFile, CertFile, KeyFile string // named in the settings, and not read
	Model                     string // of Plug and Play; empty: none
}

// New returns the settings of the client that is to be from. The password is
// signed at now, for so long as life, unless the connection string has a token or
// wants a certificate.
//
// See "Communicate with IoT Hub using the MQTT protocol".
func New(from Source, life time.Duration, now time.Time) (Settings, error) {
	c := from.Connection
	var port string
	c.HostName, port = splitPort(c.HostName)
	host, gatewayPort := splitPort(cmp.Or(c.GatewayHostName, c.HostName))
	host = strings.Trim(host, "[]")
	_, ownPort := splitPort(from.MQTTSAddr)
	port = cmp.Or(ownPort, gatewayPort, port, mqttsPort)
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Settings{}, errors.New("the port in HostName is not a number")
	}
	webSocket := host
	if strings.Contains(host, ":") {
		webSocket = "[" + host + "]"
	}
	if _, p := splitPort(from.HTTPSAddr); p != "" && p != httpsPort {
		webSocket = net.JoinHostPort(host, p)
	}
	id, own := c.DeviceID, "devices/"+c.DeviceID
	if c.ModuleID != "" {
		id += "/" + c.ModuleID
		own += "/modules/" + c.ModuleID
	}
	s := Settings{
		Protocol:  "MQTT 3.1.1",
		Host:      host,
		Port:      int(number),
		WebSocket: "wss://" + webSocket + "/$iothub/websocket",
		CAFile:    from.CAFile,
		CertFile:  from.CertFile,
		KeyFile:   from.KeyFile,
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
	if from.Model != "" {
		s.UserName += "&model-id=" + strings.ReplaceAll(url.QueryEscape(from.Model), "+", "%20")
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

// splitPort takes the port from a host name; it is "" where there is none.
func splitPort(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return host, ""
}
