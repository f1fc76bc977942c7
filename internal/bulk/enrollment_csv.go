package bulk

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/sas"
)

// enrollmentTable is the columns for enrollments of a kind.
func enrollmentTable(kind hubrest.EnrollmentKind) csvTable[enrollmentEntry] {
	type entry = enrollmentEntry
	t := csvTable[entry]{
		id: "registrationId", sections: []string{"tags", "desired"},
		unasked: []string{"importMode", "certificate", "secondaryCertificate"}, secret: []string{"primaryKey", "secondaryKey"},
		tidy: func(e *entry) {
			if e.InitialTwin != nil {
				tidySections(&e.InitialTwin.Tags, &e.InitialTwin.Properties.Desired)
			}
		},
	}
	if kind == hubrest.Group {
		t.id = "enrollmentGroupId"
		t.aliases = map[string]string{"groupid": t.id, "id": t.id}
		t.columns = []csvColumn[entry]{textColumn(t.id, func(e *entry) *string { return &e.GroupID })}
	} else {
		t.aliases = map[string]string{"id": t.id}
		t.columns = []csvColumn[entry]{
			textColumn(t.id, func(e *entry) *string { return &e.RegistrationID }),
			textColumn("deviceId", func(e *entry) *string { return &e.DeviceID }),
			jsonColumn("optionalDeviceInformation", func(e *entry) *json.RawMessage { return &e.Information }),
		}
	}
	keys := func(e *entry) *hubrest.SymmetricKey { return ensure(&e.Attestation.SymmetricKey) }
	cas := func(e *entry) *hubrest.CAReferences {
		return ensure(&ensure(&e.Attestation.X509).CAReferences)
	}
	certificates := func(e *entry) *hubrest.X509Certificates {
		if kind == hubrest.Group {
			return ensure(&ensure(&e.Attestation.X509).SigningCertificates)
		}
		return ensure(&ensure(&e.Attestation.X509).ClientCertificates)
	}
	twin := func(e *entry) *hubrest.InitialTwin { return ensure(&e.InitialTwin) }
	webhook := func(e *entry) *hubrest.CustomAllocation { return ensure(&e.CustomAllocation) }
	t.columns = append(t.columns,
		textColumn("etag", func(e *entry) *string { return &e.ETag }),
		textColumn("importMode", func(e *entry) *hubrest.ImportMode { return &e.ImportMode }),
		textColumn("provisioningStatus", func(e *entry) *hubrest.Status { return &e.ProvisioningStatus }),
		textColumn("attestation", func(e *entry) *hubrest.AttestationType { return &e.Attestation.Type }),
		optionalColumn("primaryKey", func(e *entry) bool { return e.Attestation.SymmetricKey != nil }, func(e *entry) *sas.Key { return &keys(e).PrimaryKey }),
		optionalColumn("secondaryKey", func(e *entry) bool { return e.Attestation.SymmetricKey != nil }, func(e *entry) *sas.Key { return &keys(e).SecondaryKey }),
		optionalColumn("certificate", never, func(e *entry) *string { return &ensure(&certificates(e).Primary).Certificate }),
		optionalColumn("secondaryCertificate", never, func(e *entry) *string { return &ensure(&certificates(e).Secondary).Certificate }),
	)
	if kind == hubrest.Group {
		has := func(e *entry) bool { return e.Attestation.X509 != nil && e.Attestation.X509.CAReferences != nil }
		t.columns = append(t.columns,
			optionalColumn("caName", has, func(e *entry) *string { return &cas(e).Primary }),
			optionalColumn("secondaryCaName", has, func(e *entry) *string { return &cas(e).Secondary }))
	}
	custom := func(e *entry) bool { return e.CustomAllocation != nil }
	t.columns = append(t.columns,
		csvColumn[entry]{"iotEdge", func(e *entry) string { return fmt.Sprint(e.Capabilities.IoTEdge) }, func(e *entry, cell string) error {
			e.Capabilities.IoTEdge = strings.EqualFold(cell, "true")
			if !e.Capabilities.IoTEdge && !strings.EqualFold(cell, "false") {
				return fmt.Errorf("iotEdge %q is neither true nor false", phrase.Clip(cell))
			}
			return nil
		}},
		csvColumn[entry]{"reprovisionPolicy", reprovisionName, setReprovision},
		textColumn("allocationPolicy", func(e *entry) *hubrest.AllocationPolicy { return &e.AllocationPolicy }),
		textColumn("iotHubHostName", func(e *entry) *string { return &e.IoTHubHostName }),
		csvColumn[entry]{"iotHubs", func(e *entry) string { return strings.Join(e.IoTHubs, " ") },
			func(e *entry, cell string) error { e.IoTHubs = strings.Fields(cell); return nil }},
		optionalColumn("webhookUrl", custom, func(e *entry) *string { return &webhook(e).WebhookURL }),
		optionalColumn("webhookApiVersion", custom, func(e *entry) *string { return &webhook(e).APIVersion }),
		optionalJSON("tags", func(e *entry) *json.RawMessage { return &twin(e).Tags }),
		optionalJSON("desired", func(e *entry) *json.RawMessage { return &twin(e).Properties.Desired }),
	)
	return t
}

func never(*enrollmentEntry) bool { return false }

// ensure returns what p points to, made where it is missing.
func ensure[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

// optionalColumn is a textColumn of a field that lies in what may be missing.
func optionalColumn[T ~string](name string, has func(*enrollmentEntry) bool, field func(*enrollmentEntry) *T) csvColumn[enrollmentEntry] {
	c := textColumn(name, field)
	get := c.get
	c.get = func(e *enrollmentEntry) string {
		if !has(e) {
			return ""
		}
		return get(e)
	}
	return c
}

// optionalJSON is a jsonColumn of the initial twin, which may be missing.
func optionalJSON(name string, field func(*enrollmentEntry) *json.RawMessage) csvColumn[enrollmentEntry] {
	c := jsonColumn(name, field)
	get := c.get
	c.get = func(e *enrollmentEntry) string {
		if e.InitialTwin == nil {
			return ""
		}
		return get(e)
	}
	return c
}

// reprovisionNames are the policies by the names that az has for them.
var reprovisionNames = map[string]hubrest.ReprovisionPolicy{
	"reprovisionandmigratedata": {UpdateHubAssignment: true, MigrateDeviceData: true},
	"reprovisionandresetdata":   {UpdateHubAssignment: true},
	"never":                     {},
}

func reprovisionName(e *enrollmentEntry) string {
	for name, policy := range reprovisionNames {
		if e.ReprovisionPolicy != nil && *e.ReprovisionPolicy == policy {
			return name
		}
	}
	return ""
}

func setReprovision(e *enrollmentEntry, cell string) error {
	policy, known := reprovisionNames[strings.ToLower(cell)]
	if !known {
		return fmt.Errorf("reprovisionPolicy %q is none of reprovisionandmigratedata, reprovisionandresetdata, never", phrase.Clip(cell))
	}
	e.ReprovisionPolicy = &policy
	return nil
}
