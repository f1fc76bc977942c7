package service

import (
	"encoding/json"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// enrollmentFields are the flags for what an enrollment consists of. A flag that is
// not given leaves a field as it is.
type enrollmentFields struct {
	attestation   attestationFields
	status        string
	deviceID      string
	deviceIDSet   bool
	edge, edgeSet bool
	tags, desired string
	information   string
	reprovision   string
	allocation    string
	hubs          string
	hubsSet       bool
	webhook       string
	apiVersion    string
}

// reprovisionPolicies are by the names that az has for them, and by short ones.
var reprovisionPolicies = map[string]hubrest.ReprovisionPolicy{
	"reprovisionandmigratedata": {UpdateHubAssignment: true, MigrateDeviceData: true},
	"migrate":                   {UpdateHubAssignment: true, MigrateDeviceData: true},
	"reprovisionandresetdata":   {UpdateHubAssignment: true},
	"reset":                     {UpdateHubAssignment: true},
	"never":                     {},
}

// allocationPolicies are by their names in lower case.
var allocationPolicies = map[string]hubrest.AllocationPolicy{
	"hashed": hubrest.Hashed, "geolatency": hubrest.GeoLatency, "static": hubrest.Static, "custom": hubrest.CustomAllocating,
}

func (f *enrollmentFields) flags(k enrollmentKind, change bool) []urfave.Flag {
	flags := f.attestation.flags(k, change)
	if k.kind == hubrest.Individual {
		flags = append(flags,
			&urfave.StringFlag{Name: "device-id", Destination: &f.deviceID, Usage: "the `ID` of the device on its hub", DefaultText: "that of the enrollment"},
			&urfave.StringFlag{Name: "device-information", Destination: &f.information, Usage: "what else is known of the device: a `JSON` object, @FILE or -"})
	}
	return append(flags,
		&urfave.StringFlag{Name: "provisioning-status", Destination: &f.status, Usage: "`STATUS`: enabled or disabled"},
		&urfave.BoolFlag{Name: "edge-enabled", Destination: &f.edge, DisableDefaultText: true, Usage: "make IoT Edge devices"},
		&urfave.StringFlag{Name: "initial-twin-tags", Destination: &f.tags, Usage: "the tags of a new device: a `JSON` object, @FILE or -"},
		&urfave.StringFlag{Name: "initial-twin-properties", Destination: &f.desired, Usage: "the desired properties of a new device: a `JSON` object, @FILE or -"},
		&urfave.StringFlag{Name: "reprovision-policy", Destination: &f.reprovision,
			Usage: "what a device gets that registers again: `WHAT` is reprovisionandmigratedata (its hub may change, its twin stays), reprovisionandresetdata or never"},
		&urfave.StringFlag{Name: "allocation-policy", Destination: &f.allocation, Usage: "`HOW` a hub is chosen: hashed, geolatency, static or custom"},
		&urfave.StringFlag{Name: "iot-hubs", Destination: &f.hubs, Usage: "the `HOSTS` to choose from, with commas or blanks between them", DefaultText: "all that are linked"},
		&urfave.StringFlag{Name: "webhook-url", Destination: &f.webhook, Usage: "the `URL` that is asked for the hub, with --allocation-policy custom"},
		&urfave.StringFlag{Name: "api-version", Destination: &f.apiVersion, Usage: "the `VERSION` of the API that the webhook speaks, such as 2019-03-31"},
	)
}

// check refuses what makes no sense, and reads the values that may be in files.
func (f *enrollmentFields) check(ctx *urfave.Context, s output.Streams) error {
	f.edgeSet, f.hubsSet, f.deviceIDSet = ctx.IsSet("edge-enabled"), ctx.IsSet("iot-hubs"), ctx.IsSet("device-id")
	_, reprovisionKnown := reprovisionPolicies[strings.ToLower(f.reprovision)]
	allocation := allocationPolicies[strings.ToLower(f.allocation)]
	switch {
	case f.status != "" && f.status != string(hubrest.Enabled) && f.status != string(hubrest.Disabled):
		return fail.Usagef("--provisioning-status %q is neither enabled nor disabled", f.status)
	case f.reprovision != "" && !reprovisionKnown:
		return fail.Usagef("--reprovision-policy %q is none of reprovisionandmigratedata, reprovisionandresetdata, never", f.reprovision)
	case f.allocation != "" && allocation == "":
		return fail.Usagef("--allocation-policy %q is none of hashed, geolatency, static, custom", f.allocation)
	case (f.webhook == "") != (f.apiVersion == ""):
		return fail.Usagef("--webhook-url and --api-version go together; the version in Azure's examples is 2019-03-31")
	case f.webhook != "" && f.allocation != "" && allocation != hubrest.CustomAllocating:
		return fail.Usagef("--webhook-url goes with --allocation-policy custom")
	}
	for _, object := range []struct {
		flag  string
		value *string
	}{{"--initial-twin-tags", &f.tags}, {"--initial-twin-properties", &f.desired}, {"--device-information", &f.information}} {
		if *object.value == "" {
			continue
		}
		doc, err := command.ReadObject(s, object.flag, *object.value)
		if err != nil {
			return err
		}
		*object.value = string(doc)
	}
	return f.attestation.check()
}

// checkNew is check for an enrollment that has nothing yet.
func (f *enrollmentFields) checkNew(k enrollmentKind) error {
	if strings.EqualFold(f.allocation, "custom") && f.webhook == "" {
		return fail.Usagef("--allocation-policy custom needs --webhook-url and --api-version")
	}
	return f.attestation.checkNew(k)
}

// apply puts the fields that were given into e.
func (f *enrollmentFields) apply(s output.Streams, k enrollmentKind, e *hubrest.Enrollment) error {
	if f.status != "" {
		e.ProvisioningStatus = hubrest.Status(f.status)
	}
	if f.deviceIDSet {
		e.DeviceID = f.deviceID
	}
	if f.edgeSet {
		e.Capabilities.IoTEdge = f.edge
	}
	if f.information != "" {
		e.Information = json.RawMessage(f.information)
	}
	if e.InitialTwin == nil && (f.tags != "" || f.desired != "") {
		e.InitialTwin = &hubrest.InitialTwin{}
	}
	if f.tags != "" {
		e.InitialTwin.Tags = json.RawMessage(f.tags)
	}
	if f.desired != "" {
		e.InitialTwin.Properties.Desired = json.RawMessage(f.desired)
	}
	if f.reprovision != "" {
		policy := reprovisionPolicies[strings.ToLower(f.reprovision)]
		e.ReprovisionPolicy = &policy
	}
	if f.hubsSet {
		e.IoTHubs = strings.FieldsFunc(f.hubs, func(r rune) bool { return r == ',' || r == ' ' })
		e.IoTHubHostName = "" // which is the same in an older form
	}
	if f.webhook != "" {
		e.AllocationPolicy = hubrest.CustomAllocating
		e.CustomAllocation = &hubrest.CustomAllocation{WebhookURL: f.webhook, APIVersion: f.apiVersion}
	}
	if f.allocation != "" {
		if e.AllocationPolicy = allocationPolicies[strings.ToLower(f.allocation)]; e.AllocationPolicy != hubrest.CustomAllocating {
			e.CustomAllocation = nil
		}
	}
	return f.attestation.apply(s, k, &e.Attestation)
}
