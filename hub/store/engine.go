package store

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// engineOptions are for up to millions of JSON documents of 1 to 2 KB, in a process that has better uses for memory.
func engineOptions(d *disk, logger *slog.Logger) *pebble.Options {
	opts := &pebble.Options{
		FS:     d,
		Logger: engineLog{logger},
		EventListener: &pebble.EventListener{
			// By default the process ends. The read that met the damage fails, which is enough.
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				d.counts.damaged.Add(1)
				logger.Error("store is damaged", "info", i.String())
			},
			WriteStallBegin: func(pebble.WriteStallBeginInfo) { d.counts.slowed.Add(1) },
		},
		FormatMajorVersion: pebble.FormatValueSeparation,
		CacheSize:          64 << 20,
		// What a kill leaves in the log is read at the next start: a few of these.
		MemTableSize:                16 << 20,
		MemTableStopWritesThreshold: 3,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 2 },
	}
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = 16 << 10
		opts.Levels[i].IndexBlockSize = 64 << 10
		// Most questions about a device that isn't registered end here.
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	return opts
}

// engineLog passes the engine's log on. It tells every flush, which no operator needs to read, and repeats the errors
// of the disk, which has reported them itself.
type engineLog struct{ *slog.Logger }

func (l engineLog) Infof(format string, args ...any) {
	if l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug(fmt.Sprintf(format, args...))
	}
}

func (l engineLog) Errorf(format string, args ...any) { l.Infof(format, args...) }

// Fatalf must not return. What is left to bring the engine here, [disk] having its errors, is a broken invariant.
func (l engineLog) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
