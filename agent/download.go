package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/shirou/gopsutil/v4/disk"
)

const (
	// freeSpaceLeft is what a download leaves of the disk, in bytes.
	freeSpaceLeft = 16 << 20
	// downloadStall is how long a server may send nothing.
	downloadStall = time.Minute
	maxRedirects  = 10
)

// A download fetches a file over HTTP, and goes on with what there is of it after the connection broke
// or the agent was restarted. What makes that safe is the SHA-256 of the whole, which the caller checks.
type download struct {
	client *http.Client
	url    string
	file   string
	size   int64 // what the file must have; 0: not known
	limit  int64 // the most it may have
	// validator is the ETag or the time by which the server knows the version that the file has the
	// beginning of; empty: it has none. store keeps a new one for the next start.
	validator string
	store     func(validator string) error
	progress  func(done, total int64) // total is 0 if it is not known

	patience time.Duration // without a new byte, until it gives up
	pause    time.Duration // after the first failure
	stall    time.Duration
}

// A passing error is one after which a download tries again.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// isLoopback reports whether a URL leads to this machine.
func isLoopback(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback() || u.Hostname() == "localhost"
}

// checkSource checks that packages may come from u: what comes over plain HTTP is known to anybody on
// the way.
func checkSource(u *url.URL) error {
	switch {
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u):
		return nil
	case u.Scheme == "http":
		return errors.New("is http; packages come over https only")
	}
	return errors.New("is not an https URL")
}

// downloadClient returns a client for downloads.
func downloadClient(transport *http.Transport) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		r.Header.Del("Referer") // the query may be a signature, which is not for another server
		err := checkSource(r.URL)
		if err == nil && via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
			err = errors.New("is http; packages come over https only")
		}
		switch {
		case err != nil:
			return fmt.Errorf("the server redirects to %s, which %w", plainURL(r.URL), err)
		case len(via) >= maxRedirects:
			return fmt.Errorf("the server redirects more than %d times", maxRedirects)
		}
		return nil
	}}
}

// plainURL is u without what may be secret: user, password and query.
func plainURL(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return clip(plain.String(), 200)
}

// run downloads the file. The error says why it gave up.
func (d *download) run(ctx context.Context) error {
	pauses := &backoff.ExponentialBackOff{InitialInterval: d.pause, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: time.Minute}
	pauses.Reset()
	last := time.Now()
	for {
		before := d.have()
		err := d.attempt(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if _, ok := errors.AsType[passing](err); !ok {
			return err
		}
		if d.have() > before {
			pauses.Reset()
			last = time.Now()
		}
		if time.Since(last) > d.patience {
			return fmt.Errorf("no progress for %v: %w", d.patience, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// have is how much of the file is there.
func (d *download) have() int64 {
	info, err := os.Stat(d.file)
	if err != nil || d.validator == "" {
		return 0
	}
	return info.Size()
}

// attempt asks the server once.
func (d *download) attempt(parent context.Context) error {
	offset := d.have()
	if d.size > 0 && offset == d.size {
		return nil // all there; what it is worth shows its SHA-256
	}
	if offset > d.most() {
		offset = 0
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stalled := time.AfterFunc(d.stall, func() { cancel(fmt.Errorf("the server sent nothing for %v", d.stall)) })
	defer stalled.Stop()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return errors.New("the URL cannot be used")
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		request.Header.Set("If-Range", d.validator)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return networkError(ctx, err)
	}
	defer response.Body.Close()
	if offset, err = d.begin(response, offset); err != nil {
		return err
	}
	f, err := os.OpenFile(d.file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return plainPathError(err)
	}
	err = d.copy(ctx, f, response, offset, stalled)
	return errors.Join(err, f.Close())
}

// begin checks the head of an answer to a request for what follows offset, and returns where in the
// file its body belongs.
func (d *download) begin(r *http.Response, offset int64) (int64, error) {
	switch {
	case r.StatusCode == http.StatusPartialContent && offset > 0:
		from, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Content-Range"), "bytes "), "-")
		if n, err := strconv.ParseInt(from, 10, 64); err != nil || n != offset {
			d.validator = ""
			return 0, passing{errors.New("the server sent another part than was asked for")}
		}
	case r.StatusCode == http.StatusOK:
		offset = 0
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		d.validator = ""
		return 0, passing{errors.New("the server has less than it sent before")}
	case r.StatusCode == http.StatusRequestTimeout, r.StatusCode == http.StatusTooManyRequests, r.StatusCode >= 500:
		return 0, passing{fmt.Errorf("the server answered %s", r.Status)}
	default:
		return 0, fmt.Errorf("the server answered %s", r.Status)
	}
	if r.ContentLength >= 0 {
		total := offset + r.ContentLength
		switch {
		case d.size > 0 && total != d.size:
			return 0, d.wrongSize(total)
		case total > d.limit:
			return 0, fmt.Errorf("the package has %s; at most %s are allowed", byteCount(total), byteCount(d.limit))
		}
		usage, err := disk.Usage(filepath.Dir(d.file))
		if err == nil && usage.Free < uint64(r.ContentLength)+freeSpaceLeft {
			return 0, fmt.Errorf("the disk has %s free; the package needs %s, and %s are left alone",
				byteCount(int64(usage.Free)), byteCount(r.ContentLength), byteCount(freeSpaceLeft))
		}
	}
	validator := r.Header.Get("ETag")
	if validator == "" || strings.HasPrefix(validator, "W/") {
		validator = r.Header.Get("Last-Modified")
	}
	switch {
	case offset > 0 && validator != "" && validator != d.validator:
		d.validator = ""
		return 0, passing{errors.New("the package has changed on the server")}
	case offset > 0:
		return offset, nil
	}
	// What is in the file is of another version: the next start must not mix the two.
	if err := os.Truncate(d.file, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, plainPathError(err)
	}
	d.validator = validator
	return 0, d.store(validator)
}

func (d *download) copy(ctx context.Context, f *os.File, r *http.Response, offset int64, stalled *time.Timer) error {
	if err := f.Truncate(offset); err != nil {
		return plainPathError(err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return plainPathError(err)
	}
	total := d.size
	if total == 0 && r.ContentLength >= 0 {
		total = offset + r.ContentLength
	}
	for b := make([]byte, 64<<10); ; {
		n, err := r.Body.Read(b)
		if offset+int64(n) > d.most() {
			return fmt.Errorf("the package is longer than the %s it may have", byteCount(d.most()))
		}
		if _, err := f.Write(b[:n]); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return errors.New("the disk is full")
			}
			return plainPathError(err)
		}
		offset += int64(n)
		stalled.Reset(d.stall)
		d.progress(offset, total)
		switch {
		case err == io.EOF && d.size > 0 && offset < d.size:
			if len(r.TransferEncoding) > 0 || r.ProtoMajor > 1 { // the server said that this is the end
				return d.wrongSize(offset)
			}
			return passing{fmt.Errorf("the package ended after %d of %d bytes", offset, d.size)}
		case err == io.EOF:
			return plainPathError(f.Sync())
		case err != nil:
			return networkError(ctx, err)
		}
	}
}

func (d *download) wrongSize(n int64) error {
	return fmt.Errorf("the package has %d bytes, not the %d it is said to have", n, d.size)
}

// most is how long the file may become.
func (d *download) most() int64 {
	if d.size > 0 {
		return d.size
	}
	return d.limit
}

// networkError words why a request failed, without its URL: the query may be secret. All of that may
// pass, except what the server or its certificate is.
func networkError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return passing{cause}
	}
	refused := false
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
		_, network := errors.AsType[net.Error](err)
		refused = !network && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
	}
	if refused {
		return err
	}
	return passing{err}
}

// fileSHA256 returns the SHA-256 of a file in hexadecimal digits.
func fileSHA256(ctx context.Context, name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", plainPathError(err)
	}
	defer f.Close()
	h := sha256.New()
	for b := make([]byte, 256<<10); ; {
		n, err := f.Read(b)
		h.Write(b[:n])
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", plainPathError(err)
		}
	}
}
