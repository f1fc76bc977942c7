package doctor

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/iotdm/iotdm/sas"
)

// azureRoots are the common names of the authorities that hubs in Azure have
// or may get: the article "TLS support in IoT Hub" asks devices to trust the
// first two; the others are for hubs with ECC certificates and in China.
var azureRoots = []string{
	"DigiCert Global Root G2",
	"Microsoft RSA Root Certificate Authority 2017",
	"DigiCert Global Root G3",
	"Microsoft ECC Root Certificate Authority 2017",
	"DigiCert Global Root CA",
	"DigiCert TLS RSA4096 Root G5",
	"DigiCert TLS ECC P384 Root G5",
}

// middleboxes are words in the certificates of products that open TLS
// connections to look inside, in lower case.
var middleboxes = []string{
	"zscaler", "netskope", "palo alto", "fortinet", "fortigate", "blue coat", "bluecoat", "mcafee", "skyhigh", "trellix",
	"cisco umbrella", "cisco secure", "sophos", "forcepoint", "websense", "check point", "barracuda", "watchguard", "sonicwall",
	"untangle", "squid", "mitmproxy", "burp", "portswigger", "fiddler", "do_not_trust", "charles proxy", "kaspersky", "eset ssl",
	"avast", "avg technologies", "bitdefender", "menlo security", "iboss", "cato networks", "contentkeeper", "smoothwall", "lightspeed",
}

// isAzure reports whether host is a hub of Azure, in any of its clouds.
func isAzure(host string) bool {
	host = strings.ToLower(host)
	return slices.ContainsFunc([]string{".azure-devices.net", ".azure-devices.us", ".azure-devices.cn"},
		func(domain string) bool { return strings.HasSuffix(host, domain) })
}

// A peer is who answered the TLS handshake, and what is known for judging it.
type peer struct {
	name    string // of the check
	host    string
	chain   []*x509.Certificate // as presented, the peer's own first
	roots   *x509.CertPool      // nil: the system's
	hubCA   *x509.Certificate   // nil: not known
	proxy   string              // host:port; empty: none
	now     time.Time           // by this machine's clock
	hubTime time.Time           // by the hub's clock; zero: not known
}

func (p *peer) verify(at time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range p.chain[1:] {
		intermediates.AddCert(c)
	}
	return p.chain[0].Verify(x509.VerifyOptions{DNSName: p.host, Roots: p.roots, Intermediates: intermediates, CurrentTime: at})
}

// judge says whether this is the hub, and if not, who it may be.
func (p *peer) judge() Check {
	chains, err := p.verify(p.now)
	if err == nil {
		return p.judgeTrusted(chains)
	}
	leaf := p.chain[0]
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return p.judgeDates(leaf)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return p.judgeUnknown()
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return failed(p.name, fmt.Sprintf("the certificate is not for %s but for %s", p.host, names(leaf)),
			"use a name that it has; a hub of yours gets more names with \"iotdm hub run --host NAME\"")
	}
	return failed(p.name, "the certificate is not valid: "+err.Error(), "have whoever runs the hub replace it")
}

// judgeTrusted is for a certificate that verifies.
func (p *peer) judgeTrusted(chains [][]*x509.Certificate) Check {
	root := chains[0][len(chains[0])-1]
	leaf := p.chain[0]
	usual := func(chain []*x509.Certificate) bool {
		root := chain[len(chain)-1]
		if p.hubCA != nil {
			return root.Equal(p.hubCA)
		}
		return !isAzure(p.host) || slices.Contains(azureRoots, root.Subject.CommonName)
	}
	i := slices.IndexFunc(chains, usual)
	if i < 0 || p.middlebox() != "" {
		c := p.intercepted(root)
		c.Verdict = Warning // as long as this machine trusts it
		c.Detail += "; this machine trusts it, other devices may not"
		return c
	}
	root = chains[i][len(chains[i])-1]
	detail := fmt.Sprintf("until %s, from %s, which ends %s", day(leaf.NotAfter), certName(root), day(root.NotAfter))
	const month = 30 * 24 * time.Hour
	switch {
	case leaf.NotAfter.Sub(p.now) < month/4:
		return warning(p.name, "the certificate is valid "+detail, "see that it is renewed in time")
	case root.NotAfter.Sub(p.now) < 3*month:
		return warning(p.name, "the certificate is valid "+detail, "have devices trust the next authority in time")
	}
	return ok(p.name, "certificate valid "+detail)
}

// judgeDates is for a certificate that is not valid now, by this machine's
// clock.
func (p *peer) judgeDates(leaf *x509.Certificate) Check {
	if !p.hubTime.IsZero() {
		off := p.now.Sub(p.hubTime)
		if _, err := p.verify(p.hubTime); err == nil && off.Abs() > sas.Skew {
			return failed(p.name, fmt.Sprintf("by this machine's clock the certificate is not valid now, by the hub's it is: the clock is %s", describeOff(off)),
				clockRemedy)
		}
	}
	culprit, what := leaf, "the certificate"
	for _, c := range p.chain[1:] {
		if outside(leaf, p.now) {
			break
		}
		if outside(c, p.now) {
			culprit, what = c, "the certificate of "+certName(c)
		}
	}
	detail := fmt.Sprintf("%s expired on %s", what, day(culprit.NotAfter))
	remedy := "have whoever runs the hub renew it"
	if p.now.Before(culprit.NotBefore) {
		detail = fmt.Sprintf("%s is not valid before %s", what, day(culprit.NotBefore))
	}
	if p.hubTime.IsZero() {
		remedy += "; or is this machine's clock wrong? It says " + p.now.UTC().Format("2006-01-02 15:04 MST")
	}
	// Package x509 looks at dates first: does it verify otherwise?
	if _, err := p.verify(leaf.NotBefore.Add(time.Second)); err != nil {
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
			other := p.judgeUnknown()
			detail += "; besides, " + other.Detail
			if p.hubCA != nil || isAzure(p.host) {
				remedy = other.Remedy
			}
		}
	}
	return failed(p.name, detail, remedy)
}

func outside(c *x509.Certificate, now time.Time) bool {
	return now.Before(c.NotBefore) || now.After(c.NotAfter)
}

// judgeUnknown is for a certificate from an authority that nobody here trusts.
func (p *peer) judgeUnknown() Check {
	top := p.chain[len(p.chain)-1]
	if name := top.Issuer.CommonName; isAzure(p.host) && (slices.Contains(azureRoots, name) || strings.HasPrefix(name, "Microsoft Azure ")) {
		return failed(p.name, fmt.Sprintf("the certificate leads to %s, as those of Azure do, and this machine does not trust it", quoted(name)),
			"bring this machine's root certificates up to date (often the package ca-certificates), or name the root with --ca-file")
	}
	if p.hubCA != nil || isAzure(p.host) || p.middlebox() != "" {
		return p.intercepted(top)
	}
	detail := fmt.Sprintf("the certificate is from %s, which this machine does not trust", issuerName(top))
	remedy := "if the hub is yours, name its CA with --ca-file"
	if p.proxy != "" {
		detail += fmt.Sprintf("; the proxy %s may have made it, to look inside", p.proxy)
		remedy += "; if it is the proxy's, have it pass the hub's TLS through, or name the hub in NO_PROXY"
	}
	return failed(p.name, detail, remedy)
}

// intercepted is for a certificate that the hub does not have.
func (p *peer) intercepted(top *x509.Certificate) Check {
	detail := "the certificate is from " + issuerName(top)
	switch {
	case p.hubCA != nil:
		detail += " and not from the hub's own CA"
	case isAzure(p.host):
		detail += " and not from one of Azure's, such as " + azureRoots[0]
	}
	detail += ": "
	remedy := "have it pass TLS to " + p.host + " through unopened"
	switch box := p.middlebox(); {
	case p.proxy != "":
		detail += "the proxy " + p.proxy + " opens the connection to look inside"
		remedy += ", or name the hub in NO_PROXY"
	case box != "":
		detail += "a middlebox opens the connection to look inside"
	case p.hubCA != nil:
		detail += "another program answers there, or something between opens the connection"
		remedy = "check what listens on that port, and HostName in the connection string"
	default:
		detail += "something between opens the connection to look inside"
	}
	return failed(p.name, detail, remedy)
}

// middlebox returns the word that gives a product away, if there is one.
func (p *peer) middlebox() string {
	for _, c := range p.chain {
		for _, word := range middleboxes {
			if strings.Contains(strings.ToLower(c.Issuer.String()), word) {
				return word
			}
		}
	}
	return ""
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func certName(c *x509.Certificate) string {
	return quoted(cmp.Or(c.Subject.CommonName, c.Subject.String()))
}

func issuerName(c *x509.Certificate) string {
	return quoted(cmp.Or(c.Issuer.CommonName, c.Issuer.String()))
}

// quoted makes text of a peer fit to print: short, and without control
// characters.
func quoted(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// names are some of the names in a certificate.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name at all"
	}
	return quoted(strings.Join(all[:min(len(all), 5)], ", "))
}

func (x *examination) checkCertificate(d *door) Check {
	switch {
	case x.found(CheckDNS).Verdict == Failed || d.tcpErr != nil || d == &x.amqp && x.NoAMQPS:
		return skipped(d.tls, "the port is not reached")
	case len(d.chain) == 0:
		return d.unneeded(x.judgeHandshake(d))
	}
	p := peer{name: d.tls, host: d.host, chain: d.chain, roots: x.Roots, hubCA: x.HubCA, now: x.Now(), hubTime: x.hubTime.now(x.Now)}
	if d.proxy != nil {
		p.proxy = d.proxy.Host
	}
	c := p.judge()
	if c.Verdict != Failed && d.tlsErr != nil {
		return d.unneeded(x.judgeHandshake(d))
	}
	return d.unneeded(c)
}

// judgeHandshake is for a TLS handshake that failed before there was a
// certificate to judge, or after that.
func (x *examination) judgeHandshake(d *door) Check {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch err := d.tlsErr; {
	case isTimeout(err):
		c := failed(d.tls, fmt.Sprintf("%s accepts connections, but does not answer TLS within %v", d.addr, x.Timeout),
			"something between may hold the connection up, or the hub is stuck; try again, then ask whoever runs the network")
		c.TimedOut = true
		return c
	case errors.As(err, &record):
		return failed(d.tls, d.addr+" does not speak TLS", "check the port, and that no proxy or login page answers in the hub's place")
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return failed(d.tls, d.addr+" ends the connection during the TLS handshake",
			"a firewall that knows "+d.host+" by its name may do so; have it let "+d.host+" through")
	case errors.As(err, &alert):
		return failed(d.tls, d.addr+" refuses the TLS handshake: "+alert.Error(), "TLS 1.2 or later is needed on both sides")
	default:
		return failed(d.tls, d.addr+": TLS: "+plainError(err), "check that the hub listens there")
	}
}
