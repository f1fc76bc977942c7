package mqttsetup

import (
	"fmt"
	"io"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
)

const expiryLayout = "2006-01-02 15:04:05 UTC"

// Options are the flags of a command that prints settings. Make them by
// NewOptions.
type Options struct {
	life      command.Seconds
	mosquitto string
	output    output.Options
}

// NewOptions returns the options with their defaults.
func NewOptions() Options { return Options{life: command.Seconds(time.Hour)} }

// Flags returns the flags that fill o.
func (o *Options) Flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		&urfave.GenericFlag{Name: "duration", Value: &o.life, Usage: "how `LONG` the password is good"},
		&urfave.StringFlag{Name: "mosquitto", Destination: &o.mosquitto,
			Usage: "write the options of mosquitto_pub and mosquitto_sub, and a bridge, into `FOLDER`"},
	}, o.output.Flags())
}

// Check refuses options that make no sense.
func (o *Options) Check() error {
	if o.life == 0 {
		return fail.Usagef("--duration must be longer than 0s")
	}
	return o.output.Check()
}

// Print prints the settings of the device that t is to be, or writes them to
// files. again is the command that does so without flags of output.
func (o *Options) Print(s output.Streams, t target.Target, again string) error {
	set, err := newSettings(t, time.Duration(o.life), t.Now())
	if err != nil {
		return fail.Usagef("%v", err)
	}
	if o.mosquitto != "" {
		if err := set.writeMosquitto(o.mosquitto); err != nil {
			return err
		}
		s.Note("Wrote the options of mosquitto_pub and mosquitto_sub, and %s, to %s", bridgeFile, o.mosquitto)
	}
	return o.output.Print(s, output.Result{Value: set.Settings, Text: func(w io.Writer) error {
		text := set.ready(o.mosquitto)
		if o.mosquitto == "" {
			text = set.text(again)
		}
		_, err := io.WriteString(w, text)
		return err
	}})
}

// ready is what to type once the files are there.
func (s settings) ready(dir string) string {
	var b strings.Builder
	for _, line := range s.readyLines(dir) {
		fmt.Fprintf(&b, "%s:\n  %s\n", strings.ToUpper(line[0][:1])+line[0][1:], line[1])
	}
	if s.Expires != nil {
		fmt.Fprintf(&b, "The password in the files is good until %s.\n", s.Expires.Format(expiryLayout))
	}
	return b.String()
}

func (s settings) text(again string) string {
	var b strings.Builder
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-16s%s\n", name, value)
		}
	}
	ca := s.CAFile
	if ca == "" {
		ca = "the system's"
	}
	fmt.Fprintf(&b, "%s with TLS\n", s.Protocol)
	row("host", s.Host)
	row("port", fmt.Sprint(s.Port))
	row("CA", ca)
	row("certificate", s.CertFile)
	row("its key", s.KeyFile)
	row("client id", s.ClientID)
	row("user name", s.UserName)
	row("password", s.Password)
	if s.Expires != nil {
		row("  good until", s.Expires.Format(expiryLayout)+"; --duration makes it longer")
	} else {
		row("password", "none: the certificate counts")
	}
	row("or by WebSocket", s.WebSocket)

	b.WriteString("\nTopics\n")
	for _, t := range s.Topics.Rows() {
		what := t.What
		if t.Of != "" {
			what = "  " + what
		}
		row(what, fmt.Sprintf("%-11s%s", t.How, t.Topic))
	}

	const dir = "mqtt"
	b.WriteString("\nWith mosquitto, whose options go into files and so into no list of processes:\n")
	fmt.Fprintf(&b, "  %s --mosquitto %s\n  %s\n", again, dir, s.readyLines(dir)[0][1])
	b.WriteString("\n\"iotdm help mqtt\" says what the topics are for, and what clients get wrong.\n")
	return b.String()
}
