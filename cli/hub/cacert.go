package hub

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func caCertCommands(s output.Streams) *urfave.Command {
	return command.Group("ca-cert", "certificate authorities that vouch for devices",
		caCertAddCommand(s), caCertVerifyCommand(s), caCertListCommand(s), caCertDeleteCommand(s))
}

// caColumns are what the table of CA certificates shows.
var caColumns = []output.Column{
	{"NAME", "name"},
	{"VERIFIED", "isVerified"},
	{"SUBJECT", "subject"},
	{"EXPIRY", "expiry"},
	{"VERIFICATION CODE", "verificationCode"},
}

// caCertOptions are those of a command about one CA certificate.
type caCertOptions struct {
	target.Service
	name, file, keyFile string
}

func (o *caCertOptions) Flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{o.nameFlag()}, o.Service.Flags())
}

func (o *caCertOptions) nameFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "name", Aliases: []string{"n"}, Destination: &o.name, Usage: "the `NAME` of the CA certificate"}
}

func (o *caCertOptions) fileFlag(usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "file", Aliases: []string{"path", "p"}, Destination: &o.file, Usage: usage}
}

func (o *caCertOptions) Check() error {
	if o.name == "" {
		return fail.Usagef("--name is missing; name the CA certificate, for example --name factory")
	}
	return o.Output.Check()
}

// change makes a call that returns the CA certificate, and prints it.
func (o *caCertOptions) change(ctx context.Context, s output.Streams, next func(ca hubrest.CACertificate) string,
	call func(context.Context, *hubrest.Client) (hubrest.CACertificate, error)) error {
	return o.Call(ctx, s, target.NoIdentity, func(ctx context.Context, client *hubrest.Client) (any, error) {
		ca, err := call(ctx, client)
		return output.Result{Value: ca, Text: func(w io.Writer) error {
			_, err := fmt.Fprintln(w, next(ca))
			return err
		}}, err
	})
}

func caCertAddCommand(s output.Streams) *urfave.Command {
	var o caCertOptions
	return command.Leaf(&urfave.Command{
		Name:  "add",
		Usage: "register a certificate authority",
		Description: "Devices whose authentication is x509_ca connect with certificates of this authority once\n" +
			"\"hub ca-cert verify\" has proved that its key is yours. For example:\n" +
			"   iotdm hub ca-cert add --name factory --file factory-ca.pem",
		Flags: command.Concat([]urfave.Flag{o.nameFlag(), o.fileFlag("the CA certificate in `FILE` (PEM or DER)")}, o.Service.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			cert, err := readCertificate("--file", o.file)
			if err != nil {
				return err
			}
			return o.change(ctx.Context, s, func(ca hubrest.CACertificate) string {
				return fmt.Sprintf("Added %s (%s).\n", ca.Name, output.Printable(ca.Subject)) +
					"Its verification code is " + ca.VerificationCode + ". Prove that its key is yours:\n" +
					"sign a certificate with that common name and run \"iotdm hub ca-cert verify --name " + ca.Name + " --file PROOF\",\n" +
					"or let \"iotdm hub ca-cert verify --name " + ca.Name + " --key-file KEY\" sign it with the CA's key."
			}, func(ctx context.Context, client *hubrest.Client) (hubrest.CACertificate, error) {
				return client.AddCACertificate(ctx, o.name, cert)
			})
		},
	})
}

func caCertVerifyCommand(s output.Streams) *urfave.Command {
	var o caCertOptions
	return command.Leaf(&urfave.Command{
		Name:  "verify",
		Usage: "prove that the key of a certificate authority is yours",
		Description: "The proof is a certificate that the authority has signed and whose common name is the verification\n" +
			"code. With --key-file it is made here; the key does not leave this machine. For example:\n" +
			"   iotdm hub ca-cert verify --name factory --file proof.pem\n" +
			"   iotdm hub ca-cert verify --name factory --key-file factory-ca.key",
		Flags: command.Concat([]urfave.Flag{o.nameFlag(), o.fileFlag("the proof in `FILE` (PEM or DER)"),
			&urfave.StringFlag{Name: "key-file", Destination: &o.keyFile, Usage: "make the proof with the authority's private key in `FILE` (PEM)"}}, o.Service.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			prove, err := o.prover()
			if err != nil {
				return err
			}
			return o.change(ctx.Context, s, func(ca hubrest.CACertificate) string {
				return "Verified " + ca.Name + ": it vouches for devices now"
			}, func(ctx context.Context, client *hubrest.Client) (hubrest.CACertificate, error) {
				proof, err := prove(ctx, client)
				if err != nil {
					return hubrest.CACertificate{}, err
				}
				return client.VerifyCACertificate(ctx, o.name, proof)
			})
		},
	})
}

// prover returns what makes the proof of possession.
func (o *caCertOptions) prover() (func(context.Context, *hubrest.Client) ([]byte, error), error) {
	if (o.file == "") == (o.keyFile == "") {
		return nil, fail.Usagef("give the proof with --file, or the key of the CA with --key-file")
	}
	if o.keyFile == "" {
		proof, err := readCertificate("--file", o.file)
		return func(context.Context, *hubrest.Client) ([]byte, error) { return proof, nil }, err
	}
	key, err := os.ReadFile(o.keyFile)
	if err != nil {
		return nil, fail.Usagef("--key-file: %v", fail.PlainPathError(err))
	}
	return func(ctx context.Context, client *hubrest.Client) ([]byte, error) {
		list, err := client.CACertificates(ctx)
		if err != nil {
			return nil, err
		}
		for _, ca := range list {
			if ca.Name == o.name {
				return signProof(ca, o.keyFile, key)
			}
		}
		return nil, fail.Errorf(fail.NotFound, "there is no CA certificate %q; see \"iotdm hub ca-cert list\"", o.name)
	}, nil
}

// signProof makes a certificate for the verification code of ca, with the key
// from a PEM file.
func signProof(ca hubrest.CACertificate, keyFile string, key []byte) ([]byte, error) {
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate})
	pair, err := tls.X509KeyPair(authority, key)
	if err != nil {
		return nil, fail.Usagef("--key-file %s does not hold the key of CA certificate %q: %v", keyFile, ca.Name, err)
	}
	signer := pair.PrivateKey.(crypto.Signer) // as X509KeyPair promises
	proof := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: ca.VerificationCode},
		NotBefore:    time.Now().Add(-5 * time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
	}
	// The hub wants to see the code signed; whose key the proof certifies doesn't matter.
	return x509.CreateCertificate(rand.Reader, proof, pair.Leaf, signer.Public(), signer)
}

func caCertListCommand(s output.Streams) *urfave.Command {
	return target.OneCall(s, &urfave.Command{
		Name:        "list",
		Usage:       "list the certificate authorities",
		Description: "For example:\n   iotdm hub ca-cert list --jq '.[].name'",
	}, new(target.Service), func(ctx context.Context, client *hubrest.Client) (any, error) {
		list, err := client.CACertificates(ctx)
		return output.Result{Value: list, Columns: caColumns}, err
	})
}

func caCertDeleteCommand(s output.Streams) *urfave.Command {
	var o caCertOptions
	return target.OneCall(s, &urfave.Command{
		Name:        "delete",
		ArgsUsage:   "[CERTIFICATE]",
		Usage:       "remove a certificate authority, and disconnect the devices that only it vouched for",
		Description: "For example:\n   iotdm hub ca-cert delete --name factory",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		err := client.DeleteCACertificate(ctx, o.name)
		if err == nil {
			s.Note("Deleted CA certificate %s", o.name)
		}
		return nil, err
	})
}

// readCertificate reads a file that a flag names.
func readCertificate(flag, file string) ([]byte, error) {
	if file == "" {
		return nil, fail.Usagef("%s is missing; name the file with the certificate", flag)
	}
	cert, err := os.ReadFile(file)
	if err != nil {
		return nil, fail.Usagef("%s: %v", flag, fail.PlainPathError(err))
	}
	return cert, nil
}
