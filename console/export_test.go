package console

import "strings"

// Actions are the paths of all that changes something, by what it needs.
func (c *Console) Actions() map[string]string {
	names := map[need]string{nothing: "", register: "register", operate: "operate", schedule: "schedule", configure: "configure", enroll: "enroll"}
	all := map[string]string{}
	for _, r := range c.routes() {
		if path, ok := strings.CutPrefix(r.pattern, "POST "); ok {
			all[path] = names[r.need]
		}
	}
	return all
}
