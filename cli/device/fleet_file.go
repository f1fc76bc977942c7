package device

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// maxLine bounds a line of a file of connection strings.
const maxLine = 8 << 10

// listedDevices reads the devices from a file.
func (o *deviceRunOptions) listedDevices(s output.Streams, link target.Link) (*fleetDevices, error) {
	name := o.fleet.file
	var r io.Reader
	if name == "-" {
		name, r = "standard input", s.In
	} else {
		file, err := os.Open(name)
		if err != nil {
			return nil, fail.Usagef("--connection-strings: %v", fail.PlainPathError(err))
		}
		defer file.Close()
		r = file
	}
	f := &fleetDevices{}
	wrong := func(line int, format string, args ...any) error {
		return fail.Usagef("--connection-strings: line %d of %s: %s", line, name, fmt.Sprintf(format, args...))
	}
	hubs := make(map[string]mqttdevice.Options) // by host
	lines := make(map[string]int)               // by device
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	n := 0
	for scanner.Scan() && (o.fleet.count == 0 || len(f.options) < o.fleet.count) {
		n++
		text := strings.TrimSpace(scanner.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		c, err := sas.ParseConnectionString(sas.Pasted(text))
		switch {
		case err != nil:
			return nil, wrong(n, "%s", strings.TrimPrefix(err.Error(), "connection string: "))
		case c.DeviceID == "":
			return nil, wrong(n, "this is no device's connection string: DeviceId is missing")
		case c.X509:
			return nil, wrong(n, "device %q wants a certificate; a fleet's devices have keys", c.DeviceID)
		}
		id := c.HostName + "/" + c.DeviceID + "/" + c.ModuleID
		if other := lines[id]; other != 0 {
			return nil, wrong(n, "device %q stands in line %d already; a device has one connection", c.DeviceID, other)
		}
		lines[id] = n
		host := c.HostName + " " + c.GatewayHostName
		options, known := hubs[host]
		if !known {
			t, err := o.as.hub.Target(c)
			if err != nil {
				return nil, err
			}
			t.Link = link
			options = fleetLink(t)
			hubs[host] = options
			if f.host == "" {
				f.target, f.host = t, t.Host()
			}
		}
		options.ConnectionString = c
		f.options = append(f.options, options)
	}
	switch err := scanner.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, wrong(n+1, "longer than %d bytes", maxLine)
	case err != nil:
		return nil, fail.Errorf(fail.Failed, "--connection-strings: %v", fail.PlainPathError(err))
	case len(f.options) == 0:
		return nil, fail.Usagef("--connection-strings: there is none in %s", name)
	case len(f.options) < o.fleet.count:
		return nil, fail.Usagef("--count %d: there are only %d connection strings in %s", o.fleet.count, len(f.options), name)
	}
	return f, nil
}
