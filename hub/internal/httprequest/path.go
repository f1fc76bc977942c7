package httprequest

import (
	"net/http"
	"net/url"
	"strings"
)

// RawPath returns the path as the client wrote it. URL.EscapedPath rewrites a
// path that holds a character it would have encoded.
//
// A "%" that does not begin an escape never gets here: net/http refuses the
// request, so an id with a bare "%" has to be encoded.
func RawPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath() // a proxy's absolute form
}

// Segments returns the decoded segments of a raw path. It undoes what clients
// are known to do: Azure IoT Explorer encodes the whole path, slashes
// included, and the Node and C# SDKs end a collection with a slash. "+" is a
// plus, since ids hold no blank.
func Segments(raw string) []string {
	path := strings.TrimPrefix(raw, "/")
	if !strings.Contains(path, "/") && containsFold(path, "%2f") {
		path = strings.TrimLeft(unescapePath(path), "/")
	}
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return nil
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i] = unescapePath(segment)
	}
	return segments
}

// unescapePath undoes percent-encoding. A text that is not encoded stands for
// itself: "%" is a legal character of an id.
func unescapePath(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

func containsFold(s, lower string) bool {
	return strings.Contains(strings.ToLower(s), lower)
}

// APIVersion returns the api-version of a query string, without decoding the
// rest of it.
func APIVersion(query string) string {
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name == "api-version" {
			return value
		}
	}
	return ""
}
