package console

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hubrest"
)

// overviewPage is the data of the first page.
type overviewPage struct {
	Registered registryCount
	NoCount    string // why the registry is not counted; empty: it is, or will be
	Connected  string // empty, as those below: not known
	Messages   string // in a second
	Methods    string
	Problem    string // why the last reading went wrong

	Charts   []chart
	Jobs     []hubrest.Job // that run
	JobsNote string        // why they are not known
	Nodes    []nodeLine    // of a hub that has several
	Refusals []hubrest.Refusal
	Events   []eventLine
	Listens  liveStatus
}

// A nodeLine is a node in a list.
type nodeLine struct {
	hubrest.Node
	Lost bool // it may have died
}

// An eventLine is an event in a list.
type eventLine struct {
	liveEvent
	Excerpt string
}

const (
	chartPoints      = 180
	minSpan          = 5 * time.Minute // of a chart, however little has been read
	overviewJobs     = 5
	overviewRefusals = 5
	overviewEvents   = 8
	excerptLength    = 200
	lostSeconds      = 3 // of silence of a node, of which there is word each second
)

func (c *Console) overview(w http.ResponseWriter, r *http.Request) error {
	c.sampler.use(c.ctx, c.wg.Go)
	c.live.touch()
	may := c.may(r.Context()) // also tells what hub it is
	own := c.opt.Client.OwnHub()
	samples, count, err := c.sampler.history()
	if len(samples) == 0 { // the first look: no picture yet, but the numbers
		samples = []sample{c.firstSample(r.Context())}
	}
	data := overviewPage{Registered: count, Charts: overviewCharts(samples, c.now(), own), Listens: c.live.state()}
	switch {
	case !may.RegistryRead:
		data.NoCount = "Counting devices takes the right RegistryRead."
	case count.Error != nil:
		data.NoCount = c.explain(r.Context(), count.Error)
	}
	if err != nil {
		data.Problem = c.explain(r.Context(), err)
	}
	last := samples[len(samples)-1]
	for text, value := range map[*string]float64{&data.Connected: last.connected, &data.Messages: last.messages, &data.Methods: last.methods} {
		if !math.IsNaN(value) {
			*text = quantity(value)
		}
	}
	if data.Jobs, err = c.runningJobs(r.Context()); err != nil {
		data.JobsNote = c.explain(r.Context(), err)
	}
	if own {
		nodes, _ := c.opt.Client.Nodes(r.Context()) // an older hub has no such thing
		for _, n := range nodes {
			data.Nodes = append(data.Nodes, nodeLine{n, n.Silent >= lostSeconds})
		}
		if refusals, err := c.opt.Client.Refusals(r.Context()); err == nil {
			data.Refusals = refusals.Recent[:min(overviewRefusals, len(refusals.Recent))]
		}
	}
	for _, e := range c.live.newest(overviewEvents) {
		line := eventLine{liveEvent: e, Excerpt: excerpt(e.Payload)}
		if e.Source != sourceTelemetry && e.Operation != "" {
			line.Excerpt = excerpt([]byte(e.Operation))
		}
		data.Events = append(data.Events, line)
	}
	c.render(w, r, page{Template: "overview", Title: "Overview", Section: "Overview", Data: data})
	return nil
}

// firstSample is what can be told before anything has been sampled.
func (c *Console) firstSample(ctx context.Context) sample {
	s := sample{at: c.now(), connected: math.NaN(), messages: math.NaN(), methods: math.NaN(), unanswered: math.NaN()}
	if n, err := c.opt.Client.ConnectedDevices(ctx); err == nil {
		s.connected = float64(n)
	}
	return s
}

func overviewCharts(samples []sample, now time.Time, own bool) []chart {
	from := samples[0].at
	if now.Sub(from) < minSpan {
		from = now.Add(-minSpan)
	}
	samples = thin(samples, chartPoints)
	var times []time.Time
	var connected, messages, methods, unanswered []float64
	for _, s := range samples {
		times = append(times, s.at)
		connected, messages = append(connected, s.connected), append(messages, s.messages)
		methods, unanswered = append(methods, s.methods), append(unanswered, s.unanswered)
	}
	to := slices.MaxFunc([]time.Time{now, times[len(times)-1]}, time.Time.Compare)
	charts := []chart{
		newChart("connected", "Devices connected", from, to, times, series{"connected", connected}),
		newChart("messages", "Messages of devices per second", from, to, times, series{"messages", messages}),
		newChart("methods", "Direct methods per second", from, to, times, series{"called", methods}, series{"without an answer", unanswered}),
	}
	if !own {
		if charts[1].Missing != "" {
			charts[1].Missing = "They are counted while the console reads the hub's events."
		}
		charts[2].Missing = "Only a hub of iotdm tells; for Azure IoT Hub see Azure Monitor."
	}
	return charts
}

// runningJobs are some of the jobs that run.
func (c *Console) runningJobs(ctx context.Context) ([]hubrest.Job, error) {
	var jobs []hubrest.Job
	for j, err := range c.opt.Client.Jobs(ctx, "", hubrest.JobRunning) {
		if err != nil {
			return nil, err
		}
		if jobs = append(jobs, j); len(jobs) == overviewJobs {
			break
		}
	}
	return jobs, nil
}

// excerpt is the beginning of a payload, on one line.
func excerpt(payload []byte) string {
	text := strings.Join(strings.Fields(string(payload)), " ")
	if utf8.RuneCountInString(text) <= excerptLength {
		return text
	}
	return string([]rune(text)[:excerptLength]) + " …"
}

// errNoEvents is why a console shows none.
var errNoEvents = errors.New("this console was started without a way to read events")
