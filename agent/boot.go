package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/shirou/gopsutil/v4/host"
)

// A Boot is one life of the machine's kernel.
type Boot struct {
	// ID is different for each boot. It is empty on systems that have none; then Time tells boots
	// apart.
	ID string `json:"id,omitempty"`
	// Time is when the kernel started, as the machine's clock has it now. It moves when the clock is
	// set, as after a start without network.
	Time time.Time `json:"time"`
}

// clockJitter is by how much two readings of the time of one boot may differ although nobody has set
// the clock: systems compute it from the uptime, and round.
const clockJitter = 2 * time.Second

// same reports whether b and o are the same boot. The clock has a say only where there are no ids.
func (b Boot) same(o Boot) bool {
	if b.ID != "" || o.ID != "" {
		return b.ID == o.ID
	}
	return b.Time.Sub(o.Time).Abs() < time.Minute
}

// readBoot asks the kernel. HOST_PROC names another place than /proc, as for all that gopsutil reads:
// for containers.
func readBoot() (Boot, error) {
	id, err := bootID()
	if err != nil {
		return Boot{}, fmt.Errorf("read the id of the boot: %w", plainPathError(err))
	}
	seconds, err := host.BootTimeWithContext(context.Background())
	if err != nil {
		return Boot{}, fmt.Errorf("read the time of the boot: %w", plainPathError(err))
	}
	return Boot{id, time.Unix(int64(seconds), 0).UTC()}, nil
}
