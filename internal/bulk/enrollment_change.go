package bulk

import (
	"cmp"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/twin"
)

// foresee says what becomes of a line about what is there now. What has to be sent to
// the service is not said as a result, unless it is a rehearsal.
func (l *enrollmentLine) foresee(rehearsal bool) {
	r, mode := &l.result, l.entry.ImportMode
	says := func(did, would string, mode hubrest.EnrollmentMode) {
		if r.did, l.mode = did, mode; rehearsal {
			r.Result = would
		}
	}
	missing := false
	if mode != hubrest.ImportDelete {
		missing = l.entry.withoutCertificate()
	}
	creates := mode == hubrest.ImportCreate || mode == hubrest.ImportCreateOrUpdate
	switch {
	case l.err != nil:
		r.fail("failed", 0, l.err.Error())
	case missing && (mode == hubrest.ImportCreate || l.now == nil && creates):
		r.fail("failed", 0, "its certificate is not in the file: no service gives one out; add it as certificate")
	case mode == hubrest.ImportCreate && rehearsal && l.now != nil:
		r.fail("would fail", 0, enrollmentReason(409000, ""))
	case mode == hubrest.ImportCreate, l.now == nil && creates:
		says("created", "would create", hubrest.BulkCreate)
	case l.now == nil && (rehearsal || mode != hubrest.ImportDelete):
		r.fail(phrase.Choose(rehearsal, "would fail", "failed"), 0, enrollmentReason(404000, ""))
	case mode == hubrest.ImportDelete:
		says("deleted", "would delete", hubrest.BulkDelete)
	case mode == hubrest.ImportUpdateIfMatchETag && rehearsal && strings.Trim(l.entry.ETag, `"`) != strings.Trim(l.now.ETag, `"`):
		r.fail("would fail", 0, enrollmentReason(412000, ""))
	default:
		l.complete()
		changes, err := enrollmentChanges(*l.now, l.entry.Enrollment)
		if err != nil {
			r.fail("failed", 0, err.Error())
			return
		}
		if r.Changes, r.did = changes, "updated"; len(changes) == 0 {
			r.Result = "unchanged"
			return
		}
		update := hubrest.BulkUpdate
		if mode == hubrest.ImportUpdateIfMatchETag {
			update = hubrest.BulkUpdateIfMatchETag
		}
		says("updated", "would update", update)
	}
}

// complete adds to an update what a service could take for taken away, but a line
// that leaves it out does not mean so: keys.
func (l *enrollmentLine) complete() {
	a, now := &l.entry.Attestation, l.now.Attestation
	if a.Type == hubrest.BySymmetricKey && now.SymmetricKey != nil && (a.SymmetricKey == nil || a.SymmetricKey.PrimaryKey == "") {
		a.SymmetricKey = now.SymmetricKey
	}
}

// enrollmentChanges is what the line want makes of what there is now. What a line
// leaves out is reset, but for keys.
func enrollmentChanges(now, want hubrest.Enrollment) (changes []Change, err error) {
	old, err := comparisonOf(now)
	if err != nil {
		return nil, err
	}
	will, err := comparisonOf(want)
	if err != nil {
		return nil, err
	}
	isTwin, wantTwin := initialTwinOf(now), initialTwinOf(want)
	for _, part := range []struct {
		prefix    string
		old, will []byte
	}{
		{"", old, will},
		{"tags.", isTwin.Tags, wantTwin.Tags},
		{"desired.", isTwin.Properties.Desired, wantTwin.Properties.Desired},
	} {
		for _, c := range twin.Diff(part.old, part.will) {
			changes = append(changes, Change{Path: part.prefix + c.Path, Old: c.Old, New: c.New})
		}
	}
	has, gets := now.Attestation.SymmetricKey, want.Attestation.SymmetricKey
	if has != nil && gets != nil && gets.PrimaryKey != "" {
		if gets.PrimaryKey != has.PrimaryKey {
			changes = append(changes, Change{Path: "primaryKey", secret: true})
		}
		if gets.SecondaryKey != has.SecondaryKey {
			changes = append(changes, Change{Path: "secondaryKey", secret: true})
		}
	}
	return changes, nil
}

// initialTwinOf is the initial twin of an enrollment without what only a hub writes.
func initialTwinOf(e hubrest.Enrollment) (t hubrest.InitialTwin) {
	if e.InitialTwin != nil {
		t = *e.InitialTwin
	}
	tidySections(&t.Tags, &t.Properties.Desired)
	return t
}

// comparisonOf is an enrollment as JSON but for its initial twin, with what the service
// fills in, without what only it writes, and with thumbprints in place of certificates.
func comparisonOf(e hubrest.Enrollment) ([]byte, error) {
	e.ETag, e.Created, e.LastUpdated, e.RegistrationState = "", hubrest.Time{}, hubrest.Time{}, nil
	e.ProvisioningStatus = cmp.Or(e.ProvisioningStatus, hubrest.Enabled)
	e.AllocationPolicy = hubrest.AllocationPolicy(strings.ToLower(string(cmp.Or(e.AllocationPolicy, hubrest.Hashed))))
	if e.ReprovisionPolicy == nil {
		e.ReprovisionPolicy = &hubrest.ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true}
	}
	if strings.EqualFold(e.DeviceID, e.RegistrationID) {
		e.DeviceID = ""
	}
	e.RegistrationID, e.GroupID = "", ""
	e.InitialTwin = nil
	e.Attestation.SymmetricKey = nil
	if e.Attestation.X509 != nil {
		x, err := thumbprints(*e.Attestation.X509)
		if err != nil {
			return nil, err
		}
		e.Attestation.X509 = &x
	}
	return jsontext.Marshal(e)
}

// thumbprints returns a copy of a with thumbprints in place of certificates.
func thumbprints(a hubrest.X509Attestation) (hubrest.X509Attestation, error) {
	for _, certificates := range []**hubrest.X509Certificates{&a.ClientCertificates, &a.SigningCertificates} {
		if *certificates == nil {
			continue
		}
		c := **certificates
		for _, one := range []**hubrest.X509Certificate{&c.Primary, &c.Secondary} {
			switch {
			case *one == nil:
			case (*one).Certificate != "":
				print, err := thumbprintOf((*one).Certificate)
				if err != nil {
					return a, err
				}
				*one = &hubrest.X509Certificate{Certificate: print}
			case (*one).Info != nil:
				*one = &hubrest.X509Certificate{Certificate: strings.ToUpper((*one).Info.SHA256Thumbprint)}
			}
		}
		*certificates = &c
	}
	return a, nil
}
