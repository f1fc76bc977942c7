package doctor

import (
	"errors"
	"net"
	"net/url"
	"os"

	"golang.org/x/net/http/httpproxy"

	"github.com/iotdm/iotdm/mqttdevice"
)

// findProxies finds the proxy of each door, and the variable that names it.
func (x *examination) findProxies() {
	if x.MQTTSAddr != "" || x.HTTPSAddr != "" {
		return
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		if os.Getenv(name) != "" {
			x.proxyVariable = name
			break
		}
	}
	x.mqtt.proxy, x.proxyErr = mqttdevice.Proxy(x.mqtt.addr)
	if x.proxyErr != nil {
		return
	}
	if x.amqp.proxy, x.proxyErr = mqttdevice.Proxy(x.amqp.addr); x.proxyErr != nil {
		return
	}
	if x.isDevice() {
		x.https.proxy, x.proxyErr = mqttdevice.Proxy(x.https.addr)
		return
	}
	// Service commands follow net/http, which knows no ALL_PROXY.
	x.https.proxy, x.proxyErr = httpproxy.FromEnvironment().ProxyFunc()(&url.URL{Scheme: "https", Host: x.https.addr})
}

// checkProxy judges the proxy by whether it let through to a door.
func (x *examination) checkProxy() Check {
	const remedy = "correct the variable, or name the hub in NO_PROXY to connect without a proxy"
	through := x.https.proxy
	if through == nil {
		through = x.mqtt.proxy
	}
	switch {
	case x.proxyErr != nil:
		return failed(CheckProxy, x.proxyErr.Error(), remedy)
	case x.MQTTSAddr != "" || x.HTTPSAddr != "":
		return ok(CheckProxy, "not used for a hub on this machine")
	case x.proxyVariable == "":
		return ok(CheckProxy, "none: neither HTTPS_PROXY nor ALL_PROXY is set")
	case through == nil && !namesProxy(os.Getenv(x.proxyVariable)):
		// The libraries that read the variable ignore one that they cannot.
		return warning(CheckProxy, x.proxyVariable+" does not name a proxy such as http://proxy:3128, and is ignored", "correct or unset the variable")
	case through == nil:
		return ok(CheckProxy, "none for this host: NO_PROXY names it, or it is this machine")
	}
	detail := through.Scheme + "://" + through.Host + ", from " + x.proxyVariable // without a password
	if x.https.proxy == nil {
		detail += " (devices only: service commands do not use ALL_PROXY)"
	}
	for _, d := range []*door{&x.https, &x.mqtt} {
		if d.proxy != nil && d.tcpErr == nil {
			return ok(CheckProxy, detail)
		}
	}
	reason := x.https.tcpErr
	if x.https.proxy == nil {
		reason = x.mqtt.tcpErr
	}
	c := failed(CheckProxy, detail+": "+plainError(reason), remedy)
	c.TimedOut = isTimeout(reason)
	if op, ok := errors.AsType[*net.OpError](reason); ok && op.Op == "dial" {
		c.Detail = detail + ", cannot be reached: " + plainError(reason)
	}
	return c
}

// namesProxy reports whether the value of a variable can be read as a proxy.
func namesProxy(value string) bool {
	_, whole := url.Parse(value)
	_, bare := url.Parse("http://" + value)
	return whole == nil || bare == nil
}
