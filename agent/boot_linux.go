package agent

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
)

// bootID returns what random(4) says of /proc/sys/kernel/random/boot_id: it is generated once for each
// boot.
func bootID() (string, error) {
	proc := cmp.Or(os.Getenv("HOST_PROC"), "/proc")
	id, err := os.ReadFile(filepath.Join(proc, "sys/kernel/random/boot_id"))
	return strings.TrimSpace(string(id)), err
}
