package linked

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	webhookTime = 10 * time.Second
	maxWebhook  = 256 << 10 // bytes of an answer: a twin and a payload
)

// CheckWebhook returns why Ask would not ask this URL, in one line: it is no URL of
// http or https, or its host is neither this machine's (localhost, and addresses of
// the loopback interface) nor one of hosts. Each of these is a name or an address,
// with a port or, for all ports, without. The line does not repeat the path and the
// query, which may hold a key.
func CheckWebhook(webhook string, hosts []string) error {
	_, _, err := parseWebhook(webhook, hosts)
	return err
}

// parseWebhook also returns whether the URL is one of this machine.
func parseWebhook(webhook string, hosts []string) (u *url.URL, here bool, err error) {
	u, err = url.Parse(webhook)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Opaque != "", u.Hostname() == "":
		return nil, false, errors.New("the webhook must be a URL of http or https, such as http://localhost:7071/api/allocate")
	case u.User != nil:
		return nil, false, errors.New("the webhook's URL must not hold a user name")
	}
	if isHere(u.Hostname()) {
		return u, true, nil
	}
	if !slices.ContainsFunc(hosts, func(h string) bool { return names(h, u) }) {
		return nil, false, fmt.Errorf("the webhook's host %q is not of this machine, and not one that the hub was told of (--webhook-host)", oneLine(u.Hostname()))
	}
	return u, false, nil
}

// isHere tells names and addresses of the loopback interface. What such a name
// resolves to is looked at when it is dialled.
func isHere(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// names reports whether the host of the list is that of the URL.
func names(listed string, u *url.URL) bool {
	host, port := listed, ""
	if h, p, err := net.SplitHostPort(listed); err == nil {
		host, port = h, p
	}
	if !strings.EqualFold(strings.Trim(host, "[]"), u.Hostname()) {
		return false
	}
	return port == "" || port == portOf(u)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

// Ask posts a request for an allocation, in JSON, to a webhook and returns the body
// of its answer, which has a status of 200 to 299. Hosts are as CheckWebhook has
// them. It does not follow redirects, takes at most ten seconds and 256 KiB, and
// does not ask twice. Errors are one line without the path and the query of the
// URL, and say nothing of what the body of a refusal holds: who may name a webhook
// shall not read by it what others on this machine answer.
func Ask(ctx context.Context, webhook string, hosts []string, body []byte) ([]byte, error) {
	u, here, err := parseWebhook(webhook, hosts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, webhookTime, fmt.Errorf("no answer within %v", webhookTime))
	defer cancel()
	answer, err := post(ctx, u, here, body)
	if err == nil {
		return answer, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("webhook at %q: %w", oneLine(u.Host), bare(err))
}

func post(ctx context.Context, u *url.URL, here bool, body []byte) ([]byte, error) {
	d, proxy := &net.Dialer{}, http.ProxyFromEnvironment
	if here {
		d.Control, proxy = loopbackOnly, nil
	}
	t := newTransport(proxy, d)
	t.DisableKeepAlives = true // no other request will use it
	client := &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "iotdm")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, fmt.Errorf("it redirects (%d), which is not followed", res.StatusCode)
	case res.StatusCode < 200 || res.StatusCode > 299:
		return nil, fmt.Errorf("it answers %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxWebhook+1))
	if err == nil && len(answer) > maxWebhook {
		err = fmt.Errorf("its answer is larger than %d bytes", maxWebhook)
	}
	return answer, err
}

// loopbackOnly looks at the address behind a name once it is dialled, so that it
// does not help a name to be another one's by then.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().Unmap().IsLoopback() {
		return errors.New("the name is not one of this machine")
	}
	return nil
}
