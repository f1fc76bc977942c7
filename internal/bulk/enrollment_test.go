package bulk

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hubrest"
)

// readEnrollments reads a file whole: its lines, and why it ended early.
func readEnrollments(text, format string, kind hubrest.EnrollmentKind) (lines []lineOf[enrollmentEntry], err error) {
	r, err := NewEnrollmentReader(strings.NewReader(text), format, kind)
	if err != nil {
		return nil, err
	}
	for {
		l, err := r.next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, l)
	}
}

// aCertificate is the base64 of one, as the SDKs' own samples write it.
const aCertificate = "MIIBeDCCAR6gAwIBAgIBATAKBggqhkjOPQQDAjAAMB4XDTI2MDEwMTAwMDAwMFoXDTM2MDEwMTAwMDAwMFowADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABA=="

func TestLinesOfEnrollmentsAreChecked(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"the least", `{"registrationId":"d"}`, ""},
		{"spellings", `{"registrationId":"D.1","importMode":"UPDATEIFMATCHETAG","provisioningStatus":"Disabled","attestation":{"type":"SymmetricKey"}}`, ""},
		{"null is absent", `{"registrationId":"d","initialTwin":null,"optionalDeviceInformation":null,"attestation":{"type":"symmetricKey","tpm":null,"x509":null}}`, ""},
		{"no id", `{"deviceId":"d"}`, "has no registrationId"},
		{"a group", `{"enrollmentGroupId":"g"}`, "is of the other kind: here each line has registrationId and no other id"},
		{"two ids", `{"registrationId":"d","enrollmentGroupId":"g"}`, "is of the other kind: here each line has registrationId and no other id"},
		{"an id that is none", `{"registrationId":"d/../e"}`, `registrationId "d/../e" is not 1 to 128 of the letters, digits and - . _ : with a letter, digit or - at its end`},
		{"a point at the end", `{"registrationId":"d."}`, `registrationId "d." is not 1 to 128 of the letters, digits and - . _ : with a letter, digit or - at its end`},
		{"a mode for devices", `{"registrationId":"d","importMode":"updateTwin"}`, `importMode "updateTwin" is none of create, update, createOrUpdate, updateIfMatchETag, delete`},
		{"a status", `{"registrationId":"d","provisioningStatus":"off"}`, `provisioningStatus "off" is neither enabled nor disabled`},
		{"a TPM", `{"registrationId":"d","attestation":{"type":"tpm","tpm":{"endorsementKey":"AToAAQ=="}}}`, "has the attestation tpm, which is not supported"},
		{"an attestation", `{"registrationId":"d","attestation":{"type":"password"}}`, `attestation "password" is neither symmetricKey nor x509`},
		{"a key without the other", `{"registrationId":"d","attestation":{"symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA=="}}}`, "primaryKey and secondaryKey go together"},
		{"a short key", `{"registrationId":"d","attestation":{"symmetricKey":{"primaryKey":"AAAA","secondaryKey":"AAAA"}}}`, "primaryKey is not 16 to 64 bytes of base64"},
		{"x509 without any", `{"registrationId":"d","attestation":{"type":"x509"}}`, "has the attestation x509, but no certificate"},
		{"a certificate that was cut off", `{"registrationId":"d","attestation":{"x509":{"clientCertificates":{"primary":{"certificate":"` + aCertificate + `"}}}}}`, "a certificate is none"},
		{"a certificate that is no base64", `{"registrationId":"d","attestation":{"x509":{"clientCertificates":{"primary":{"certificate":"?"}}}}}`, "a certificate is neither PEM nor base64"},
		{"tags", `{"registrationId":"d","initialTwin":{"tags":5}}`, "initialTwin.tags is not a JSON object"},
		{"a type", `{"registrationId":5}`, "registrationId must not be a JSON number"},
		{"no object", `[]`, "is a JSON array, not an object"},
		{"no JSON", `{"registrationId"`, "is not JSON: unexpected end of JSON input at byte 17"},
		{"no UTF-8", "{\"registrationId\":\"\xff\"}", "is not in UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lines, err := readEnrollments(tt.line, "ndjson", hubrest.Individual)
			if err != nil || len(lines) != 1 {
				t.Fatal(len(lines), err)
			}
			got := ""
			if lines[0].err != nil {
				got = lines[0].err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.line, diff)
			}
		})
	}
}

func TestWhatAnEnrollmentWouldBecome(t *testing.T) {
	const keys = `"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA==","secondaryKey":"AAAAAAAAAAAAAAAAAAAAAQ=="}}`
	const info = `"attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"info":{"sha256Thumbprint":"AB"}}}}}`
	tests := []struct {
		name, now, line string // now "" is nothing
		rehearsal       bool
		result, why     string // "" is that it has to be sent
	}{
		{"what the service fills in is no change", `{"registrationId":"d","deviceId":"d",` + keys + `,"provisioningStatus":"enabled","allocationPolicy":"hashed",
			"reprovisionPolicy":{"updateHubAssignment":true,"migrateDeviceData":true},"initialTwin":{"tags":{}},"etag":"1","createdDateTimeUtc":"2026-01-01T00:00:00Z"}`,
			`{"registrationId":"d"}`, false, "unchanged", ""},
		{"keys that are another's", `{"registrationId":"d",` + keys + `}`,
			`{"registrationId":"d","attestation":{"symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA==","secondaryKey":"AAAAAAAAAAAAAAAAAAAAAg=="}}}`, true, "would update", "secondaryKey: another one"},
		{"what a line leaves out is reset", `{"registrationId":"d","provisioningStatus":"disabled","initialTwin":{"tags":{"a":1},"properties":{"desired":{"b":{"c":2}}}}}`,
			`{"registrationId":"d"}`, true, "would update", `provisioningStatus: "disabled" -> "enabled", tags.a: 1 -> (none), desired.b: {"c":2} -> (none)`},
		{"the same certificate, of which there is only what it says", `{"registrationId":"d",` + info + `}`, `{"registrationId":"d",` + info + `}`, false, "unchanged", ""},
		{"a certificate that nobody has", "", `{"registrationId":"d",` + info + `}`, false, "failed", "its certificate is not in the file: no service gives one out; add it as certificate"},
		{"an update of nothing", "", `{"registrationId":"d","importMode":"update"}`, false, "failed", "does not exist"},
		{"to create what is there", `{"registrationId":"d"}`, `{"registrationId":"d","importMode":"create"}`, true, "would fail", "exists already"},
		{"an etag that is another", `{"registrationId":"d","etag":"\"1\""}`, `{"registrationId":"d","etag":"2","importMode":"updateIfMatchETag"}`, true, "would fail",
			"its etag is another one: it was changed by somebody else"},
		{"to delete", "", `{"registrationId":"d","importMode":"delete"}`, false, "", ""},
		{"new", "", `{"registrationId":"d"}`, true, "would create", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lines, err := readEnrollments(tt.line, "ndjson", hubrest.Individual)
			if err != nil {
				t.Fatal(err)
			}
			l := enrollmentLine{lineOf: lines[0]}
			if l.entry.ImportMode == "" {
				l.entry.ImportMode = hubrest.ImportCreateOrUpdate
			}
			if tt.now != "" {
				now, err := readEnrollments(strings.ReplaceAll(tt.now, "\n", ""), "ndjson", hubrest.Individual)
				if err != nil || now[0].err != nil {
					t.Fatal(err, now)
				}
				l.now = &now[0].entry.Enrollment
			}
			l.foresee(tt.rehearsal)
			if diff := cmp.Diff([]string{tt.result, tt.why}, []string{l.result.Result, l.result.Why()}); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.line, diff)
			}
		})
	}
}

// What is written is read as it was, and means no change.
func FuzzEnrollmentLines(f *testing.F) {
	for _, seed := range []string{
		`{"registrationId":"d1","deviceId":"p","initialTwin":{"tags":{"a":1},"properties":{"desired":{"b":{"c":[1,null]}}}},"iotHubs":["a","b"]}` + "\n\n{\n",
		`{"registrationId":"d1","attestation":{"symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA==","secondaryKey":"AAAAAAAAAAAAAAAAAAAAAQ=="}},"etag":"\"1\""}`,
		"registrationId,deviceId,tags,tags.a.b,desired.c,iotHubs,reprovisionPolicy\nd1,p,\"{\"\"a\"\":null}\",1,\"x\ny\",a b,never\n\"\n",
		"\xef\xbb\xbfregistrationId,iotEdge,webhookUrl,webhookApiVersion\nd1,TRUE,http://localhost/,1\n",
		`{"registrationId":"d","reprovisionPolicy":{"migrateDeviceData":true},"attestation":{"type":"x509","x509":{"caReferences":{"primary":"a"}}}}`,
	} {
		f.Add(seed, "", false)
		f.Add(strings.ReplaceAll(seed, "registrationId", "enrollmentGroupId"), "", true)
	}
	f.Fuzz(func(t *testing.T, text, format string, group bool) {
		kind := hubrest.Individual
		if group {
			kind = hubrest.Group
		}
		if format != "csv" && format != "ndjson" {
			format = ""
		}
		lines, _ := readEnrollments(text, format, kind)
		for _, l := range lines {
			if l.err != nil {
				continue
			}
			l.entry.ImportMode = "" // not exported
			var file bytes.Buffer
			ex := EnrollmentExport{Kind: kind, Keys: true}
			w, err := ex.writer(&file, "ndjson")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.write(&l.entry), w.Flush()); err != nil {
				t.Fatal(err)
			}
			again, err := readEnrollments(file.String(), "ndjson", kind)
			if err != nil || len(again) != 1 || again[0].err != nil {
				t.Fatalf("%q is read as %v, %v", file.String(), again, err)
			}
			if diff := cmp.Diff(l.entry, again[0].entry, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%q (-want +got):\n%s", file.String(), diff)
			}
			if changes, err := enrollmentChanges(l.entry.Enrollment, again[0].entry.Enrollment); err != nil || len(changes) > 0 {
				t.Fatalf("%q changes %v, %v", file.String(), changes, err)
			}
		}
	})
}
