package mqttsetup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
)

// The files that writeMosquitto makes. Mosquitto's clients look for those of
// their names in $XDG_CONFIG_HOME.
const (
	pubFile    = "mosquitto_pub"
	subFile    = "mosquitto_sub"
	bridgeFile = "bridge.conf"
	caCopy     = "ca.pem"
)

// writeMosquitto writes the settings to files in dir as mosquitto's clients and
// its bridge read them, so that the password is on no command line. The CA goes
// with them: a broker runs as another user, who may not read the hub's folder.
func (s settings) writeMosquitto(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fail.Errorf(fail.Failed, "%v", err)
	}
	if strings.ContainsAny(dir, "\r\n") {
		return fail.Usagef("--mosquitto: a name with a line break does not fit into mosquitto's files")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail.Errorf(fail.Failed, "--mosquitto: %v", fail.PlainPathError(err))
	}
	if s.CAFile != "" {
		ca, err := os.ReadFile(s.CAFile)
		if err != nil {
			return fail.Errorf(fail.Failed, "%v", fail.PlainPathError(err))
		}
		s.CAFile = filepath.Join(dir, caCopy)
		if err := writeFile(s.CAFile, string(ca), 0o644); err != nil {
			return err
		}
	}
	options := s.clientOptions()
	for name, text := range map[string]string{pubFile: options, subFile: options, bridgeFile: s.bridge()} {
		if err := writeFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces a file, also one that others could read.
func writeFile(file, text string, mode os.FileMode) error {
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return fail.Errorf(fail.Failed, "--mosquitto: %v", fail.PlainPathError(err))
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err == nil {
		_, err = f.WriteString(text)
		if closed := f.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		return fail.Errorf(fail.Failed, "--mosquitto: %v", fail.PlainPathError(err))
	}
	return nil
}

// clientOptions are the options of mosquitto_pub and mosquitto_sub, one a line.
func (s settings) clientOptions() string {
	var b strings.Builder
	option := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s %s\n", name, value)
		}
	}
	option("-h", s.Host)
	option("-p", fmt.Sprint(s.Port))
	option("-V", "mqttv311")
	if option("--cafile", s.CAFile); s.CAFile == "" {
		b.WriteString("--tls-use-os-certs\n")
	}
	option("--cert", s.CertFile)
	option("--key", s.KeyFile)
	option("-i", s.ClientID)
	option("-u", s.UserName)
	option("-P", s.Password)
	option("-q", "1")
	return b.String()
}

// bridge is a configuration of a broker that takes part as the device: what its
// clients publish under the device's topics goes to the hub, and what the hub
// sends comes to them under its own.
func (s settings) bridge() string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s %s\n", name, value)
		}
	}
	fmt.Fprintf(&b, "# Mosquitto as %s of an IoT hub. Clients of this broker publish to\n#   %s\n", s.ClientID, s.Topics.Telemetry)
	if s.Topics.Messages != "" {
		fmt.Fprintf(&b, "# and get the hub's messages on\n#   %s\n", s.Topics.Messages)
	}
	b.WriteString("# The user that mosquitto runs as has to be able to read the files named here.\n")
	if s.Expires != nil {
		fmt.Fprintf(&b, "# The password ends %s. Replace it before.\n", s.Expires.Format(expiryLayout))
	}
	b.WriteString("\nconnection iothub\n")
	line("address", fmt.Sprintf("%s:%d", s.Host, s.Port))
	line("bridge_protocol_version", "mqttv311")
	if line("bridge_cafile", s.CAFile); s.CAFile == "" {
		line("bridge_capath", "/etc/ssl/certs")
	}
	line("bridge_certfile", s.CertFile)
	line("bridge_keyfile", s.KeyFile)
	line("remote_clientid", s.ClientID)
	line("remote_username", s.UserName)
	line("remote_password", s.Password)
	b.WriteString(`cleansession false
# A hub is no broker: it refuses the protocol's bridge bit, and topics of others.
try_private false
notifications false
bridge_attempt_unsubscribe false
`)
	line("topic", s.Topics.Telemetry+"# out 1")
	if s.Topics.Messages != "" {
		line("topic", s.Topics.Messages+" in 1")
	}
	b.WriteString("# direct methods and the twin\n")
	for _, in := range []string{s.Topics.Methods, s.Topics.TwinAnswer, s.Topics.Desired} {
		line("topic", in+" in 0")
	}
	for _, out := range []string{s.Topics.MethodAnswer, s.Topics.TwinGet, s.Topics.Reported} {
		line("topic", beforeWord(out)+"# out 1")
	}
	return b.String()
}

// beforeWord is the part of a topic before its first word in capitals or its query.
func beforeWord(topic string) string {
	for _, end := range []string{"STATUS", "?"} {
		if before, _, found := strings.Cut(topic, end); found {
			return before
		}
	}
	return topic
}

// readyLines are commands to type when the files are in dir, what each is for
// before it.
func (s settings) readyLines(dir string) [][2]string {
	dir = command.ShellWord(dir)
	lines := [][2]string{
		{"send telemetry", fmt.Sprintf("XDG_CONFIG_HOME=%s mosquitto_pub -t %s -m hello", dir, command.ShellWord(s.Topics.Telemetry))},
	}
	if s.Topics.Messages != "" {
		lines = append(lines, [2]string{"receive messages", fmt.Sprintf("XDG_CONFIG_HOME=%s mosquitto_sub -t %s -v", dir, command.ShellWord(s.Topics.Messages))})
	}
	return append(lines,
		[2]string{"receive method calls", fmt.Sprintf("XDG_CONFIG_HOME=%s mosquitto_sub -t %s -v", dir, command.ShellWord(s.Topics.Methods))},
		[2]string{"bridge a broker", fmt.Sprintf("mosquitto -c %s", command.ShellWord(filepath.Join(dir, bridgeFile)))},
	)
}
