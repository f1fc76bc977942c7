package target

import (
	"context"
	"log/slog"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/output"
)

// verboseFlag makes a log of what is said to the hub, and of its answers. The
// packages that write it leave keys and tokens out.
func verboseFlag(log **slog.Logger) urfave.Flag {
	return &urfave.BoolFlag{Name: "verbose", Aliases: []string{"debug"}, DisableDefaultText: true,
		Usage: "show requests and answers on standard error, without secrets",
		Action: func(ctx *urfave.Context, on bool) error {
			if on {
				*log = slog.New(slog.NewTextHandler(ctx.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: dropEmpty}))
			}
			return nil
		},
	}
}

// dropEmpty leaves out what says nothing, and the level.
func dropEmpty(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.LevelKey || a.Value.Kind() == slog.KindString && a.Value.String() == "" {
		return slog.Attr{}
	}
	return a
}

// A retryLog tells people, in a line each, of requests that are made again
// after a wait that they notice.
type retryLog struct{ output.Streams }

func (retryLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (h retryLog) WithAttrs([]slog.Attr) slog.Handler         { return h }
func (h retryLog) WithGroup(string) slog.Handler              { return h }

func (h retryLog) Handle(_ context.Context, r slog.Record) error {
	var wait time.Duration
	var reason string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "wait":
			wait = a.Value.Duration()
		case "err":
			reason = a.Value.String()
		}
		return true
	})
	if wait >= time.Second {
		h.Note("Trying again in %v: %s", wait.Round(100*time.Millisecond), reason)
	}
	return nil
}
