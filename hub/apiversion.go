package hub

import "strings"

// oldestAPIVersion is that of the first generally available service.
const oldestAPIVersion = "2016-02-03"

// ValidAPIVersion reports whether v looks like a version of the service: any
// date from the first on is served alike, since later versions only add.
func ValidAPIVersion(v string) bool {
	date := strings.TrimSuffix(v, "-preview")
	if len(date) != len(oldestAPIVersion) || date < oldestAPIVersion {
		return false
	}
	for i := range len(date) {
		if dash := i == 4 || i == 7; dash != (date[i] == '-') || !dash && (date[i] < '0' || date[i] > '9') {
			return false
		}
	}
	return true
}
