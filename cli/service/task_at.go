package service

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

// schedule has the hub begin a task by itself, by a job that starts at a time.
func (o *taskOptions) schedule(ctx context.Context, s output.Streams, t target.Target, client *hubrest.Client, k *task, call hubrest.Method, at time.Time) error {
	on := "the devices that meet the condition then"
	if o.where == "" {
		on = target.Noun(hubrest.Target{DeviceID: o.device})
	}
	id := newJobID(k.name)
	job, err := beginJob(ctx, s, client, hubrest.JobRequest{ID: id, Condition: o.condition(), Method: &call, Start: at})
	if err != nil {
		return explainJob(ctx, t, err, id)
	}
	return o.Output.Print(s, output.Result{Value: job, Text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Job %s calls %s on %s at %s\n", id, call.Name, on, localTime(at))
		s.Note("Look with \"iotdm service job get %s\", cancel it with \"iotdm service job cancel %s\"", id, id)
		return err
	}})
}

// localTime is a time for people, with the zone of this machine, and how far away
// it is.
func localTime(at time.Time) string {
	away := time.Until(at).Round(time.Minute)
	text := at.Local().Format("Mon 2 Jan 2006 15:04:05 MST")
	if away < time.Minute {
		return text
	}
	return fmt.Sprintf("%s (in %dh%02dm)", text, int(away.Hours()), int(away.Minutes())%60)
}
