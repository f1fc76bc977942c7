package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// An UpdateRequest is an update that the hub asks for, with the names of the tutorial "Implement a
// device firmware update process": the desired property firmware, or the payload of the direct method
// firmwareUpdate.
type UpdateRequest struct {
	Version string `json:"fwVersion"`
	URL     string `json:"fwPackageURI"`        // over https; its query may be a signature
	SHA256  string `json:"fwPackageCheckValue"` // of the package, in lower case hexadecimal digits
	Size    int64  `json:"fwSize,omitempty"`    // of the package in bytes; 0: not known
}

// maxPackageURL is how long the URL of a package may be, in bytes.
const maxPackageURL = 2048

var (
	// A version may become a word of a command: it must not look like a flag.
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._+~:-]{0,63}$`)
	sha256Form  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	fileForm    = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._+~-]{0,99}$`)
)

// parseUpdate reads a request: a desired property, or the payload of a direct method, which may be JSON
// in a JSON string, as the first tutorial sends it. Names are compared without regard to case.
func parseUpdate(value json.RawMessage, maxSize int64) (UpdateRequest, error) {
	var text string
	if json.Unmarshal(value, &text) == nil && json.Valid([]byte(text)) {
		value = json.RawMessage(text)
	}
	var form struct {
		UpdateRequest
		ShortVersion string `json:"version"`
		ShortURL     string `json:"url"`
		ShortSHA256  string `json:"sha256"`
		ShortSize    int64  `json:"size"`
	}
	if !isObject(value) {
		return UpdateRequest{}, errors.New(`an update is an object with fwVersion, fwPackageURI and fwPackageCheckValue`)
	}
	if err := json.Unmarshal(value, &form); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return UpdateRequest{}, fmt.Errorf("%s cannot be a %s", e.Field, e.Value)
		}
		return UpdateRequest{}, err
	}
	r := UpdateRequest{
		Version: cmp.Or(form.Version, form.ShortVersion),
		URL:     cmp.Or(form.URL, form.ShortURL),
		SHA256:  strings.TrimPrefix(strings.ToLower(cmp.Or(form.SHA256, form.ShortSHA256)), "sha256:"),
		Size:    cmp.Or(form.Size, form.ShortSize),
	}
	return r, r.check(maxSize)
}

// Check returns why an agent would refuse the request, be it of whatever size.
func (r UpdateRequest) Check() error { return r.check(math.MaxInt64) }

func (r UpdateRequest) check(maxSize int64) error {
	switch {
	case r.Version == "":
		return errors.New("fwVersion is missing: the version of the package")
	case !versionForm.MatchString(r.Version):
		return errors.New("fwVersion is not a version: up to 64 letters, digits and . _ + ~ : -")
	case r.URL == "":
		return errors.New("fwPackageURI is missing: where to download the package")
	case r.SHA256 == "":
		return errors.New("fwPackageCheckValue is missing: the SHA-256 of the package")
	case !sha256Form.MatchString(r.SHA256):
		return errors.New("fwPackageCheckValue is not a SHA-256: 64 hexadecimal digits")
	case r.Size < 0 || r.Size > maxSize:
		return fmt.Errorf("fwSize is not within 0 and %d bytes", maxSize)
	case len(r.URL) > maxPackageURL:
		return fmt.Errorf("fwPackageURI is longer than %d bytes", maxPackageURL)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return errors.New("fwPackageURI is not a URL")
	}
	if err := checkSource(u); err != nil {
		return fmt.Errorf("fwPackageURI %w", err)
	}
	return nil
}

// same reports whether two requests are for the same package. The URL may be another: its query may be
// a signature.
func (r UpdateRequest) same(o UpdateRequest) bool {
	return r.Version == o.Version && r.SHA256 == o.SHA256
}

// fileName is what the package is called on the disk: as in the URL, if that is harmless.
func (r UpdateRequest) fileName() string {
	if u, err := url.Parse(r.URL); err == nil {
		if name := path.Base(u.Path); fileForm.MatchString(name) {
			return name
		}
	}
	return "package"
}
