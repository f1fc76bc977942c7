package sas

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// A ConnectionString says which hub to reach, as whom, and with which credential. It comes in these
// shapes (see the IoT Hub article "Control access to IoT Hub with shared access signatures"):
//
//	HostName=h;DeviceId=d;SharedAccessKey=k                        a device; a module with ModuleId=m
//	HostName=h;DeviceId=d;SharedAccessKeyName=p;SharedAccessKey=k  a device, with the key of a policy
//	HostName=h;DeviceId=d;SharedAccessSignature=s                  a device, with a ready-made token
//	HostName=h;DeviceId=d;x509=true                                a device, with a certificate
//	HostName=h;SharedAccessKeyName=p;SharedAccessKey=k             a service
//	HostName=h;SharedAccessSignature=s                             a service, with a ready-made token
//
// GatewayHostName may be added to any of them.
type ConnectionString struct {
	HostName              string // the hub; a port after ":" is kept
	GatewayHostName       string // the host to dial instead of HostName, or empty
	DeviceID              string // empty in a service's connection string
	ModuleID              string // empty unless it is a module's
	SharedAccessKeyName   string // the policy SharedAccessKey belongs to; empty for an identity's own key
	SharedAccessKey       Key
	SharedAccessSignature Secret
	X509                  bool // the credential is a certificate, given elsewhere
}

// A member is one Key=Value of a connection string.
type member struct {
	name  string // canonical spelling
	value *string
	check func(string) error
}

func (c *ConnectionString) members(x509 *string) []member {
	return []member{
		{"HostName", &c.HostName, checkHost},
		{"DeviceId", &c.DeviceID, checkID},
		{"ModuleId", &c.ModuleID, checkID},
		{"SharedAccessKeyName", &c.SharedAccessKeyName, checkPolicy},
		{"SharedAccessKey", (*string)(&c.SharedAccessKey), checkKey},
		{"SharedAccessSignature", (*string)(&c.SharedAccessSignature), checkToken},
		{"x509", x509, checkBool},
		{"GatewayHostName", &c.GatewayHostName, checkHost},
	}
}

// ParseConnectionString parses s strictly: names in any case, unknown names ignored, everything
// that is empty, repeated, cut off or contradictory refused. The error is one line that says which
// member is missing or broken; it never shows a value.
func ParseConnectionString(s string) (ConnectionString, error) {
	c, err := parseConnectionString(s)
	if err != nil {
		return ConnectionString{}, fmt.Errorf("connection string: %w", err)
	}
	return c, nil
}

func parseConnectionString(s string) (ConnectionString, error) {
	var c ConnectionString
	var x509 string
	if s == "" {
		return c, errors.New("it is empty")
	}
	if strings.TrimSpace(s) != s {
		return c, errors.New("white space before or after it")
	}
	members := c.members(&x509)
	seen := make(map[string]int)
	n := 0
	for part := range strings.SplitSeq(s, ";") {
		n++
		name, value, ok := strings.Cut(part, "=")
		m := find(members, name)
		switch {
		case part == "":
			return c, fmt.Errorf(`part %d is empty; remove the extra ";"`, n)
		case m == nil && (!ok || name == ""):
			// What stands there may be a piece of a key, so it isn't shown.
			return c, fmt.Errorf("part %d is not Name=Value", n)
		case m != nil && value == "":
			return c, fmt.Errorf("%s has no value", m.name)
		case value == "":
			return c, fmt.Errorf("part %d has no value", n)
		}
		lower := strings.ToLower(name)
		if first, ok := seen[lower]; ok {
			return c, fmt.Errorf("part %d and part %d have the same name", first, n)
		}
		seen[lower] = n
		if m == nil {
			continue
		}
		if err := m.check(value); err != nil {
			return c, fmt.Errorf("%s is %w", m.name, err)
		}
		*m.value = value
	}
	c.X509 = strings.EqualFold(x509, "true")
	return c, c.check()
}

// check finds members that are missing or contradict each other.
func (c *ConnectionString) check() error {
	if c.HostName == "" {
		return errors.New("HostName is missing")
	}
	if c.ModuleID != "" && c.DeviceID == "" {
		return errors.New("DeviceId is missing beside ModuleId")
	}
	credentials := 0
	for _, given := range []bool{c.SharedAccessKey != "", c.SharedAccessSignature != "", c.X509} {
		if given {
			credentials++
		}
	}
	switch {
	case credentials > 1:
		return errors.New("more than one of SharedAccessKey, SharedAccessSignature and x509=true")
	case c.DeviceID == "" && c.X509:
		return errors.New("DeviceId is missing beside x509=true")
	case c.DeviceID == "" && c.SharedAccessKey != "" && c.SharedAccessKeyName == "":
		return errors.New("SharedAccessKeyName (of a service) or DeviceId (of a device) is missing")
	case c.X509 && c.SharedAccessKeyName != "":
		return errors.New("SharedAccessKeyName does not go with x509=true")
	case credentials == 0 && c.DeviceID == "":
		return errors.New("SharedAccessKey is missing (or SharedAccessSignature)")
	case credentials == 0:
		return errors.New("SharedAccessKey is missing (or SharedAccessSignature, or x509=true)")
	}
	return nil
}

// Format returns the connection string in its usual spelling, with its secrets. Parsing it gives c
// again, if c came from ParseConnectionString.
func (c ConnectionString) Format() string { return c.format(false) }

// String returns the connection string with "***" for its secrets.
func (c ConnectionString) String() string { return c.format(true) }

// GoString returns String.
func (c ConnectionString) GoString() string { return c.String() }

// LogValue is String.
func (c ConnectionString) LogValue() slog.Value { return slog.StringValue(c.String()) }

func (c ConnectionString) format(redact bool) string {
	x509 := ""
	if c.X509 {
		x509 = "true"
	}
	var b strings.Builder
	for _, m := range c.members(&x509) {
		value := *m.value
		if value == "" {
			continue
		}
		if redact && (m.name == "SharedAccessKey" || m.name == "SharedAccessSignature") {
			value = redacted
		}
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		b.WriteString(m.name + "=" + value)
	}
	return b.String()
}

// Audience returns what a token for c must cover, unencoded: HostName for a service,
// HostName/devices/DeviceID for a device, and /modules/ModuleID after that for a module. It is
// HostName also behind a gateway.
func (c ConnectionString) Audience() string {
	a := c.HostName
	if c.DeviceID != "" {
		a += "/devices/" + c.DeviceID
		if c.ModuleID != "" {
			a += "/modules/" + c.ModuleID
		}
	}
	return a
}

func find(members []member, name string) *member {
	for i := range members {
		if strings.EqualFold(members[i].name, name) {
			return &members[i]
		}
	}
	return nil
}

const (
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	hostChars    = alphanumeric + "-._:[]"
	policyChars  = alphanumeric + "-._@"
	idChars      = alphanumeric + "-.+%_#*?!(),:=@$'"
)

func checkHost(s string) error {
	if len(s) > 255 || !only(s, hostChars) {
		return errors.New(`not a bare host name, such as "contoso.azure-devices.net"`)
	}
	return nil
}

func checkID(s string) error {
	if len(s) > 128 || !only(s, idChars) {
		return errors.New("not 1 to 128 ASCII letters, digits and -.+%_#*?!(),:=@$'")
	}
	return nil
}

func checkPolicy(s string) error {
	if !only(s, policyChars) {
		return errors.New("not a name of ASCII letters, digits and -._@")
	}
	return nil
}

func checkKey(s string) error {
	if strings.ContainsAny(s, " \t\r\n") {
		return errors.New("broken by white space; paste it in one piece")
	}
	if err := Key(s).Validate(); err != nil {
		return fmt.Errorf("%w; was it cut off?", err)
	}
	return nil
}

func checkToken(s string) error {
	if _, err := ParseToken(s); err != nil {
		return fmt.Errorf("broken: %w", err)
	}
	return nil
}

func checkBool(s string) error {
	if !strings.EqualFold(s, "true") && !strings.EqualFold(s, "false") {
		return errors.New("neither true nor false")
	}
	return nil
}

func only(s, chars string) bool { return strings.TrimLeft(s, chars) == "" }
