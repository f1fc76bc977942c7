package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
)

type enrollmentWriteOptions struct {
	enrollmentOptions
	fields    enrollmentFields
	etag      string
	ifMissing bool
}

// run makes one call about the enrollment and prints what it returns.
func (o *enrollmentWriteOptions) run(ctx *urfave.Context, s output.Streams, call func(context.Context, *hubrest.ProvisioningClient) (hubrest.Enrollment, error)) error {
	return o.Each(ctx, s, target.ErrandWith[*hubrest.ProvisioningClient]{
		Call: func(ctx context.Context, client *hubrest.ProvisioningClient, _ string) (any, error) {
			e, err := call(ctx, client)
			return o.shown(e), err
		},
		Explain: o.kind.explain,
	})
}

func enrollmentCreateCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	o := &enrollmentWriteOptions{enrollmentOptions: enrollmentOptions{kind: k}}
	examples := " device-1\n   " + k.path("create") + " device-2 --certificate-path device-2.pem\n   " +
		k.path("create") + " device-3 --device-id pump-3 --initial-twin-tags '{\"site\": \"north\"}'"
	if k.kind == hubrest.Group {
		examples = " line-7 --initial-twin-properties '{\"interval\": 60}'\n   " +
			k.path("create") + " factory --certificate-path intermediate.pem\n   " +
			k.path("create") + " fleet --root-ca-name factory-ca --allocation-policy hashed"
	}
	return command.Leaf(&urfave.Command{
		Name:      "create",
		ArgsUsage: "[" + k.argument + "]",
		Usage:     "let " + phrase.Choose(k.kind == hubrest.Group, "the devices of a group", "a device") + " register, by a key or a certificate",
		Description: "Without a key or a certificate the service makes keys;\n" +
			"\"" + k.path("keys") + "\" prints them. For example:\n   " + k.path("create") + examples,
		Flags: command.Concat(o.fields.flags(k, false), []urfave.Flag{ifMissingFlag(&o.ifMissing), o.showKeysFlag()}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.check(), o.fields.check(ctx, s), o.fields.checkNew(k)); err != nil {
				return err
			}
			return o.run(ctx, s, func(ctx context.Context, client *hubrest.ProvisioningClient) (hubrest.Enrollment, error) {
				e := k.newEnrollment(o.id)
				e.Attestation = hubrest.Attestation{Type: hubrest.BySymmetricKey, SymmetricKey: &hubrest.SymmetricKey{}}
				e.ProvisioningStatus = hubrest.Enabled
				if err := o.fields.apply(s, k, &e); err != nil {
					return e, err
				}
				created, err := client.CreateEnrollment(ctx, e)
				if o.ifMissing {
					created, err = keepExisting(s, k.noun+" "+o.id, "change it with \""+k.path("update")+"\"", asked(e), created, err, func() (hubrest.Enrollment, error) {
						return o.read(ctx, client)
					})
				}
				return created, err
			})
		},
	})
}

// asked is an enrollment without what is read otherwise than it is written.
func asked(e hubrest.Enrollment) hubrest.Enrollment {
	if e.Attestation.X509 != nil {
		e.Attestation.X509 = nil
	}
	return e
}

// read returns the enrollment with its keys.
func (o *enrollmentWriteOptions) read(ctx context.Context, client *hubrest.ProvisioningClient) (hubrest.Enrollment, error) {
	e, err := client.Enrollment(ctx, o.kind.kind, o.id)
	if err == nil {
		err = readKeys(ctx, client, &e)
	}
	return e, err
}

func enrollmentUpdateCommand(s output.Streams, k enrollmentKind) *urfave.Command {
	o := &enrollmentWriteOptions{enrollmentOptions: enrollmentOptions{kind: k}}
	return command.Leaf(&urfave.Command{
		Name:      "update",
		ArgsUsage: "[" + k.argument + "]",
		Usage:     "change an " + k.noun + "; what no flag names stays",
		Description: "Devices that have registered are as they were until they register again.\n" +
			"For example:\n" +
			"   " + k.path("update") + " " + k.example + " --provisioning-status disabled\n" +
			"   " + k.path("update") + " " + k.example + " --secondary-certificate-path next.pem\n" +
			"   " + k.path("update") + " " + k.example + " --reprovision-policy reprovisionandresetdata",
		Flags: command.Concat(o.fields.flags(k, true), []urfave.Flag{command.ETagFlag(&o.etag), o.showKeysFlag()}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := fail.First(o.check(), o.fields.check(ctx, s)); err != nil {
				return err
			}
			if o.fields == (enrollmentFields{}) {
				return fail.Usagef("nothing to change; give --provisioning-status, --primary-key or another flag, see \"%s --help\"", k.path("update"))
			}
			return o.run(ctx, s, func(ctx context.Context, client *hubrest.ProvisioningClient) (hubrest.Enrollment, error) {
				e, err := o.read(ctx, client) // a service may take keys that are left out for new ones
				if err != nil {
					return e, err
				}
				if err := o.fields.apply(s, k, &e); err != nil {
					return e, err
				}
				setIf(&e.ETag, o.etag)
				e.RegistrationState = nil
				return client.UpdateEnrollment(ctx, e)
			})
		},
	})
}
