package command

import (
	"context"
	"fmt"
	"testing"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

func TestLimitSaysOnceWhyItEnds(t *testing.T) {
	const tooLong = "gave up after 1ms, as --timeout says"
	for _, tt := range []struct {
		name string
		err  func(ctx context.Context) error // of the command, whose time is over
		want string
	}{
		{"the reason itself", context.Cause, tooLong},
		{"the reason in a request's error", func(ctx context.Context) error { return fmt.Errorf("get device: %w", context.Cause(ctx)) }, tooLong},
		{"the reason in words", func(ctx context.Context) error { return fail.Errorf(fail.Failed, "get device: %v", context.Cause(ctx)) }, tooLong},
		{"the end of the context", context.Context.Err, tooLong},
		{"what goes on", func(context.Context) error { return fail.Errorf(fail.Failed, "interrupted; job j goes on") }, tooLong + ": job j goes on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := limit{Seconds(time.Millisecond)}
			err := l.run(&urfave.Context{Context: t.Context()}, func(ctx *urfave.Context) error {
				<-ctx.Context.Done()
				return tt.err(ctx.Context)
			})
			f, ok := err.(*fail.Error)
			if !ok || f.Status != fail.TimedOut || f.Error() != tt.want {
				t.Errorf("error %v, want status 5: %s", err, tt.want)
			}
		})
	}
}
