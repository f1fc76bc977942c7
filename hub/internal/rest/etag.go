package rest

import (
	"strings"

	"github.com/iotdm/iotdm/hub"
)

// parseIfMatch reads an If-Match header in the forms that service SDKs send.
// As in the service, the empty tag is no condition, and neither is a tag
// without its quotes, which the Java SDK sends: the header is then not valid
// and ignored.
func parseIfMatch(header string) hub.Match {
	tag := strings.TrimPrefix(strings.TrimSpace(header), "W/")
	if tag == "*" {
		return hub.Match{Any: true}
	}
	if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return hub.Match{}
	}
	switch tag = tag[1 : len(tag)-1]; tag {
	case "*":
		return hub.Match{Any: true}
	default:
		return hub.Match{ETag: tag}
	}
}
