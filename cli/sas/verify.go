package sas

import (
	"context"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

type verifyOptions struct {
	signer   signerOptions
	output   output.Options
	key      string
	resource string
	against  bool
	token    string // the argument
}

func verifyCommand(s output.Streams) *urfave.Command {
	var o verifyOptions
	return command.Leaf(&urfave.Command{
		Name:      "verify",
		Usage:     "find out why a token is refused: who signed it, for what, until when",
		ArgsUsage: "TOKEN",
		Description: "Checks with --key, or with the key of the connection string or device; on the\n" +
			"local hub with the key that the token itself names. TOKEN is - for standard\n" +
			"input or @FILE; as text, other users of the machine see it. For example:\n" +
			"   iotdm sas verify @token.txt\n" +
			"   iotdm sas verify --against --device device-1 - < token.txt\n" +
			"   iotdm sas verify --key @key.txt --resource HOST/devices/ID @token.txt\n\n" +
			"With --against the hub is asked too, by a request that changes nothing. Exits\n" +
			"with 4 when a hub would refuse the token, or does.",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "key", Destination: &o.key, Usage: "the `KEY` in base64, or @FILE"},
			&urfave.StringFlag{Name: "resource", Destination: &o.resource, Usage: "`WHAT` the token has to be good for"},
			&urfave.BoolFlag{Name: "against", Destination: &o.against, DisableDefaultText: true, Usage: "ask the hub too"},
		}, o.signer.flags(), o.output.Flags()),
		Action: func(ctx *urfave.Context) error {
			o.token = ctx.Args().First()
			if err := fail.First(o.signer.check(), o.output.Check()); err != nil {
				return err
			}
			return verifyToken(ctx.Context, s, o, time.Now())
		},
	})
}

func verifyToken(ctx context.Context, s output.Streams, o verifyOptions, now time.Time) error {
	text, err := tokenText(s, o.token)
	if err != nil {
		return err
	}
	checks := doctor.ExamineToken(text, doctor.Claims{AnyOwner: true, Now: now})
	token, err := sas.ParseToken(text)
	if err == nil {
		t, claims, err := o.claims(ctx, s, token)
		if err != nil {
			return err
		}
		claims.Now = now
		checks = doctor.ExamineToken(text, claims)
		if o.against {
			asked, err := o.ask(ctx, s, t, text, token)
			if err != nil {
				return err
			}
			checks = settle(checks, asked)
		}
	}
	verdict := func(name string) doctor.Verdict {
		if i := slices.IndexFunc(checks, func(c doctor.Check) bool { return c.Name == name }); i >= 0 {
			return checks[i].Verdict
		}
		return ""
	}
	parsed := err == nil
	v := struct {
		Signed  bool           `json:"signed"`
		Covers  bool           `json:"covers"`
		Expired bool           `json:"expired"`
		Valid   bool           `json:"valid"`
		Checks  []doctor.Check `json:"checks"`
	}{
		Signed:  verdict(doctor.TokenSignature) == doctor.OK,
		Covers:  parsed && verdict(doctor.TokenResource) != doctor.Failed,
		Expired: parsed && token.Expired(now),
		Valid:   doctor.Failure(checks) == nil,
		Checks:  checks,
	}
	err = o.output.Print(s, output.Result{Value: v, Text: func(w io.Writer) error {
		return doctor.Print(s, w, checks)
	}})
	switch {
	case err != nil || v.Valid:
		return err
	case !slices.ContainsFunc(checks, func(c doctor.Check) bool { return c.Refused }):
		return doctor.Failure(checks)
	case verdict(doctor.CheckCredential) == doctor.Failed:
		return fail.Errorf(fail.Unauthorized, "the hub refuses this token")
	}
	return fail.Errorf(fail.Unauthorized, "a hub would refuse this token")
}

// claims returns what to hold the token against, and the hub whose keys these
// are. The hub is empty if only keys are known.
func (o *verifyOptions) claims(ctx context.Context, s output.Streams, token sas.Token) (target.Target, doctor.Claims, error) {
	if o.key != "" {
		text, err := command.ReadValue(s, "--key", o.key)
		if err != nil {
			return target.Target{}, doctor.Claims{}, err
		}
		if err := sas.Key(text).Validate(); err != nil {
			return target.Target{}, doctor.Claims{}, fail.Usagef("--key is %v", err)
		}
		return target.Target{}, doctor.Claims{Keys: []sas.Key{sas.Key(text)}, Whose: "the key of --key", AnyOwner: true, Audience: o.resource}, nil
	}
	own, err := o.followToken(s, token)
	if err != nil {
		return target.Target{}, doctor.Claims{}, err
	}
	t, err := o.signer.find(ctx, s)
	if err != nil {
		return t, doctor.Claims{}, err
	}
	c := t.Connection
	claims := doctor.Claims{Policy: c.SharedAccessKeyName, Audience: c.Audience(), Whose: "the key of policy \"" + c.SharedAccessKeyName + "\""}
	if c.SharedAccessKeyName == "" {
		claims.Whose = "the key of " + target.Noun(t.Identity())
		if c.ModuleID != "" {
			claims.Whose += ", or of its device"
		}
	}
	for _, key := range append([]sas.Key{c.SharedAccessKey}, t.MoreKeys...) {
		if key != "" {
			claims.Keys = append(claims.Keys, key)
		}
	}
	if own {
		claims.Audience = o.ownAudience(token, claims.Audience)
	}
	if o.resource != "" {
		claims.Audience = o.resource
	}
	if claims.Keys == nil {
		claims.AnyOwner = true
		if !o.against {
			return t, claims, fail.Usagef("the connection string has no SharedAccessKey; give the key with --key, or ask the hub with --against")
		}
	}
	return t, claims, nil
}

// followToken has the local hub's key looked up that the token itself names,
// unless the user names another. It reports whether it did.
func (o *verifyOptions) followToken(s output.Streams, token sas.Token) (bool, error) {
	_, given, err := o.signer.hub.Given(s, target.ServiceVariables)
	if err != nil || given || o.signer.device != "" || o.signer.policy != "" {
		return false, err
	}
	on := resourceIdentity(token)
	switch {
	case token.Policy != "":
		o.signer.policy = token.Policy
	case on.DeviceID != "":
		o.signer.device, o.signer.module = on.DeviceID, on.ModuleID
	}
	return true, nil
}

// ownAudience is what a token has to cover that is held against the local hub
// and nothing else: what it names there, under any of the hub's names.
func (o *verifyOptions) ownAudience(token sas.Token, audience string) string {
	resource := plainResource(token)
	host, path, found := strings.Cut(resource, "/")
	info, err := localhub.ReadRunning(o.signer.hub.Data)
	name, _ := localhub.SplitPort(host)
	if err != nil || !localhub.NamesThisMachine(name, info) {
		return audience
	}
	if token.Policy != "" && found {
		return host + "/" + path
	}
	if _, rest, found := strings.Cut(audience, "/"); found {
		return host + "/" + rest
	}
	return host
}

// settle adds what the hub said. It has the last word: what it accepts can only
// be a warning.
func settle(checks, asked []doctor.Check) []doctor.Check {
	accepted := slices.ContainsFunc(asked, func(c doctor.Check) bool { return c.Name == doctor.CheckCredential && c.Verdict == doctor.OK })
	for i, c := range checks {
		if accepted && c.Verdict == doctor.Failed {
			checks[i].Verdict, checks[i].Refused = doctor.Warning, false
		}
	}
	return append(checks, asked...)
}

func plainResource(t sas.Token) string {
	if plain, err := url.PathUnescape(t.Resource); err == nil {
		return plain
	}
	return t.Resource
}

// resourceIdentity is the device or module that a token is good for; it has no
// device id if the token is for more.
func resourceIdentity(t sas.Token) hubrest.Target {
	segments := strings.Split(plainResource(t), "/")
	var on hubrest.Target
	if len(segments) >= 3 && segments[1] == "devices" {
		on.DeviceID = segments[2]
	}
	if len(segments) >= 5 && segments[3] == "modules" {
		on.ModuleID = segments[4]
	}
	return on
}

// ask has the hub check the token, and returns its answer and what stands in
// the way of one.
func (o *verifyOptions) ask(ctx context.Context, s output.Streams, t target.Target, text string, token sas.Token) ([]doctor.Check, error) {
	if t.Connection.HostName == "" { // only a key was given
		host, _, _ := strings.Cut(plainResource(token), "/")
		var err error
		if t, err = o.signer.hub.Target(sas.ConnectionString{HostName: host}); err != nil {
			return nil, err
		}
	}
	opt := doctor.Options{Logger: o.signer.hub.Log}
	opt.SetHub(t)
	on := t.Identity()
	if on.DeviceID == "" {
		on = resourceIdentity(token)
	}
	c := sas.ConnectionString{HostName: t.Connection.HostName, GatewayHostName: t.Connection.GatewayHostName,
		DeviceID: on.DeviceID, ModuleID: on.ModuleID, SharedAccessSignature: sas.Secret(text)}
	if t.Connection.DeviceID != "" {
		c.HostName, _ = localhub.SplitPort(c.HostName) // the port is that of MQTT
	}
	opt.Connection, opt.WebSocket = c, true // the hub is asked over HTTPS
	if err := opt.AddKnowledge(s, o.signer.hub.Data); err != nil {
		return nil, err
	}
	var asked []doctor.Check
	for _, check := range doctor.Run(ctx, opt, doctor.Progress{}) {
		switch check.Name {
		case doctor.CheckToken, doctor.CheckDevice, doctor.CheckConnection, doctor.CheckWebSocket: // said already, or of no matter here
		case doctor.CheckCredential:
			asked = append(asked, check)
		default:
			if check.Verdict == doctor.Failed || check.Verdict == doctor.Warning {
				asked = append(asked, check)
			}
		}
	}
	return asked, ctx.Err()
}
