package device

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/cli/internal/logs"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/fleet"
	"github.com/iotdm/iotdm/internal/phrase"
)

// How often a fleet's summary is drawn on a terminal, and printed elsewhere.
const (
	redrawInterval = 500 * time.Millisecond
	printInterval  = 5 * time.Second
)

// A fleetView tells people how a fleet does.
type fleetView struct {
	output.Streams
	terminal bool
	log      *slog.Logger // of the summaries, in place of lines; nil is none

	mu    sync.Mutex // guards what follows
	drawn int        // lines of the summary on the terminal
	last  fleet.Stats

	told bool      // that all devices are connected
	lost time.Time // when they ceased to be
}

// newFleetView returns a view that draws in place on a terminal, if nobody else writes there.
func newFleetView(s output.Streams, alone bool, o logs.Options) *fleetView {
	if o.JSON() {
		return &fleetView{Streams: o.Streams(s), log: slog.New(o.Handler(s, slog.LevelInfo))}
	}
	return &fleetView{Streams: s, terminal: alone && output.CanRedraw(s.ErrOut)}
}

// follow tells how f does until the function it returns is called.
func (v *fleetView) follow(f *fleet.Fleet, host string) (stop func()) {
	interval := printInterval
	if v.terminal {
		interval = redrawInterval
	}
	var group sync.WaitGroup
	done := make(chan struct{})
	group.Go(func() {
		// Not the interval: who waits for all devices shall know at once.
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		next := time.Now().Add(interval)
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				s := f.Stats()
				v.greet(s, host)
				if now.After(next) {
					next = now.Add(interval)
					v.show(s)
				}
			}
		}
	})
	return func() {
		close(done)
		group.Wait()
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.terminal {
			output.EraseLine(v.ErrOut) // which the terminal has written ^C on
		}
		v.drawn = 0 // the last summary stays
		v.Note("Disconnecting")
	}
}

// greet says that all devices are connected, or are again.
func (v *fleetView) greet(s fleet.Stats, host string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	full := s.Connected+s.Away == s.Devices
	switch {
	case full && !v.told:
		v.above("%s connected to %s, after %.1f s; press Ctrl-C to exit", allOf(s.Devices), host, s.Seconds)
	case full && !v.lost.IsZero() && time.Since(v.lost) > noticeable:
		v.above("%s connected again, after %.1f s", allOf(s.Devices), time.Since(v.lost).Seconds())
	case !full && v.told && v.lost.IsZero():
		v.lost = time.Now()
	}
	if full {
		v.told, v.lost = true, time.Time{}
	}
}

func allOf(devices int) string {
	return phrase.Choose(devices == 1, "The device is", fmt.Sprintf("All %d devices are", devices))
}

// noticeable is how long devices have to be lost to be spoken of when they are back.
const noticeable = time.Second

// trouble tells of the first device that is not connected for a kind of reason.
func (v *fleetView) trouble(device string, _ fleet.Kind, reason error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.above("%s is not connected: %v", device, reason)
}

// above prints a line above the summary.
func (v *fleetView) above(format string, args ...any) {
	v.erase()
	v.Note(format, args...)
}

// erase takes the summary from the terminal.
func (v *fleetView) erase() {
	if v.drawn > 0 {
		fmt.Fprint(output.Unguarded(v.ErrOut), upAndErase(v.drawn))
		v.drawn = 0
	}
}

// upAndErase goes up so many lines from the start of one, and erases all from there.
func upAndErase(lines int) string { return fmt.Sprintf("\r\x1b[%dA\x1b[J", lines) }

func (v *fleetView) show(s fleet.Stats) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.log != nil {
		v.log.Info("fleet", "stats", s)
		return
	}
	lines := summary(v.last, s)
	v.last = s
	if !v.terminal {
		v.Note("%s", strings.Join(lines, "; "))
		return
	}
	var text strings.Builder
	if v.drawn > 0 {
		text.WriteString(upAndErase(v.drawn))
	}
	for _, line := range lines {
		text.WriteString(output.Fit(v.ErrOut, output.Visible(line)) + "\n") // a line that wraps would count as two
	}
	fmt.Fprint(output.Unguarded(v.ErrOut), text.String())
	v.drawn = len(lines)
}

// summary is what people want to know, in lines that are not too long for a terminal; rates are those
// since before.
func summary(before, s fleet.Stats) []string {
	var states, work []string
	add := func(to *[]string, n uint64, format string, args ...any) {
		if n > 0 {
			*to = append(*to, fmt.Sprintf(format, args...))
		}
	}
	add(&states, 1, "%d of %d connected", s.Connected, s.Devices)
	add(&states, uint64(s.Waiting), "%d not started", s.Waiting)
	add(&states, uint64(s.Registering), "%d registering", s.Registering)
	add(&states, uint64(s.Connecting), "%d connecting", s.Connecting)
	add(&states, uint64(s.Lost), "%d to try again", s.Lost)
	add(&states, uint64(s.Away), "%d away", s.Away)

	elapsed := max(s.Seconds-before.Seconds, 1e-3)
	rate := func(before, now uint64) float64 { return float64(now-before) / elapsed }
	add(&states, s.Connects-before.Connects, "%.0f connects/s", rate(before.Connects, s.Connects))
	add(&states, s.Registrations-before.Registrations, "%.0f registrations/s", rate(before.Registrations, s.Registrations))
	failed := s.Answered() - s.Methods["200"]
	add(&work, 1, "%d methods (%.0f/s)", s.Answered(), rate(before.Answered(), s.Answered()))
	add(&work, failed, "%d not with 200", failed)
	add(&work, s.Patches, "%d patches (%.0f/s)", s.Patches, rate(before.Patches, s.Patches))
	add(&work, s.Telemetry, "%d messages (%.0f/s)", s.Telemetry, rate(before.Telemetry, s.Telemetry))
	lines := []string{strings.Join(states, ", "), strings.Join(work, ", ")}
	if len(s.Disconnects)+len(s.ConnectFailures) > 0 {
		lines = append(lines, "lost "+byKind(s.Disconnects)+"; not connected "+byKind(s.ConnectFailures))
	}
	if len(s.RegisterFailures) > 0 {
		lines = append(lines, "not registered "+byKind(s.RegisterFailures))
	}
	return lines
}

// byKind lists counts, the largest first.
func byKind(counts map[fleet.Kind]uint64) string {
	kinds := slices.SortedFunc(maps.Keys(counts), func(a, b fleet.Kind) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var total uint64
	parts := make([]string, len(kinds))
	for i, kind := range kinds {
		total += counts[kind]
		parts[i] = fmt.Sprintf("%s %d", kind, counts[kind])
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}
