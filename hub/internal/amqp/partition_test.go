package amqp_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// A rawReader reads events by links of its own making.
type rawReader struct {
	*backEnd
	*wiretest.AMQPClient
}

func newRawReader(t testing.TB, options ...hubtest.Option) *rawReader {
	t.Helper()
	b := newBackEnd(t, options...)
	return &rawReader{b, wiretest.DialAMQP(t, b.Hub, b.Hub.Policy("service"))}
}

// another is a reader with a connection of its own.
func (r *rawReader) another() *rawReader {
	return &rawReader{r.backEnd, wiretest.DialAMQP(r.backEnd.t, r.Hub, r.Hub.Policy("service"))}
}

// partitionOf is where the events of a device are.
func (r *rawReader) partitionOf(device string) int {
	r.backEnd.t.Helper()
	for e, err := range r.Events(r.backEnd.t.Context(), hub.EventQuery{Device: device}) {
		if err != nil {
			break
		}
		return e.Partition
	}
	r.backEnd.t.Fatalf("there is no event of %s", device)
	return 0
}

func (r *rawReader) partition(n int) hub.EventPartition {
	r.backEnd.t.Helper()
	p, err := r.EventPartition(r.backEnd.t.Context(), n, nil)
	if err != nil {
		r.backEnd.t.Fatal(err)
	}
	return p
}

func partitionAddress(partition any) string {
	return fmt.Sprintf("%s/ConsumerGroups/$Default/Partitions/%v", amqp.EventHubName, partition)
}

func (r *rawReader) attach(address string, opt goamqp.ReceiverOptions) (*goamqp.Receiver, error) {
	if opt.Credit == 0 {
		opt.Credit = 100
	}
	return r.NewReceiver(wiretest.WithPatience(r.backEnd.t), address, &opt)
}

// next returns the next message of a link.
func (r *rawReader) next(l *goamqp.Receiver) *goamqp.Message {
	r.backEnd.t.Helper()
	m, err := l.Receive(wiretest.WithPatience(r.backEnd.t), nil)
	if err != nil {
		r.backEnd.t.Fatal(err)
	}
	return m
}

func selector(text string) []goamqp.LinkFilter {
	return []goamqp.LinkFilter{goamqp.NewSelectorFilter(text)}
}

// condition returns the condition of a link's or connection's error.
func condition(err error) string {
	if e := errorOf(err); e != nil {
		return string(e.Condition)
	}
	return fmt.Sprint(err)
}

func errorOf(err error) *goamqp.Error {
	var link *goamqp.LinkError
	var e *goamqp.Error
	switch {
	case errors.As(err, &link):
		return link.RemoteErr
	case errors.As(err, &e):
		return e
	}
	return nil
}

// inVain is what clients for Java, .NET and Node look for in the description of
// amqp:not-found, and of the status 404: without it they try again.
var inVain = regexp.MustCompile("The messaging entity .* could not be found")

func TestReaderAddresses(t *testing.T) {
	r := newRawReader(t, hubtest.WithOptions(node.Options{ConsumerGroups: []string{"Group.1"}}))
	r.send("d1", telemetry("a")...)
	partition := r.partitionOf("d1")
	for _, tt := range []struct{ address, want string }{
		{"%s/ConsumerGroups/$Default/Partitions/%d", ""},
		{"/%s/ConsumerGroups/$Default/Partitions/%d", ""},
		{"amqps://localhost/%s/ConsumerGroups/$Default/Partitions/%d", ""},
		{"amqps://localhost:5671/%s/consumergroups/%%24default/partitions/%d", ""},
		{"%s/ConsumerGroups/group.1/Partitions/%d", ""},
		{"%s/ConsumerGroups/other/Partitions/%d", "amqp:not-found"},
		{"%s/ConsumerGroups//Partitions/%d", "amqp:not-found"},
		{"not-%s/ConsumerGroups/$Default/Partitions/%d", "amqp:not-found"},
		{"%s/ConsumerGroups/$Default/Partitions/%d9", "com.microsoft:argument-out-of-range"},
		{"%s/ConsumerGroups/$Default/Partitions/0%d", "com.microsoft:argument-out-of-range"},
		{"%s/ConsumerGroups/$Default/Partitions/-%d", "com.microsoft:argument-out-of-range"},
		{"%s/ConsumerGroups/$Default/Partitions/%d/more", "amqp:not-found"},
	} {
		address := fmt.Sprintf(tt.address, amqp.EventHubName, partition)
		t.Run(address, func(t *testing.T) {
			l, err := r.attach(address, goamqp.ReceiverOptions{})
			if err == nil {
				defer l.Close(t.Context())
			}
			if tt.want != "" {
				if condition(err) != tt.want {
					t.Errorf("attach: %v, want %s", err, tt.want)
				}
				if e := errorOf(err); e == nil || !inVain.MatchString(e.Description) {
					t.Errorf("clients try again after %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Address(); got != address {
				t.Errorf("the address is answered as %q", got)
			}
			if m := r.next(l); string(m.GetData()) != "a" {
				t.Errorf("received %q", m.GetData())
			}
		})
	}
}

func TestReaderFilters(t *testing.T) {
	r := newRawReader(t)
	r.send("d1", telemetry("a", "b")...)
	partition := r.partitionOf("d1")
	first := r.partition(partition).First
	behind := fmt.Sprintf("amqp.annotation.x-opt-sequence-number > '%d'", first)
	const name = "apache.org:selector-filter:string"
	for _, tt := range []struct {
		name    string
		filters []goamqp.LinkFilter
		want    string // first body
		refused string
		echoed  any
	}{
		{"none", nil, "a", "", nil},
		{"by code", selector(behind), "b", "", behind},
		{"by name", []goamqp.LinkFilter{goamqp.NewLinkFilter(name, 0, behind)}, "b", "", behind},
		{"not known", []goamqp.LinkFilter{goamqp.NewLinkFilter("x", 17, "y")}, "a", "", nil},
		{"wrong", selector("colour = 'red'"), "", "com.microsoft:argument-error", nil},
		{"no text", []goamqp.LinkFilter{goamqp.NewLinkFilter(name, 0x468C00000004, 17)}, "", "com.microsoft:argument-error", nil},
		{"a number of another hub", selector(fmt.Sprintf("amqp.annotation.x-opt-sequence-number > '%d'", first+99)), "", "com.microsoft:argument-error", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := r.attach(partitionAddress(partition), goamqp.ReceiverOptions{Filters: tt.filters})
			if tt.refused != "" {
				if condition(err) != tt.refused {
					t.Errorf("attach: %v, want %s", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(t.Context())
			if got := l.LinkSourceFilterValue(name); got != tt.echoed {
				t.Errorf("the filter is answered as %v, want %v", got, tt.echoed)
			}
			if got := string(r.next(l).GetData()); got != tt.want {
				t.Errorf("received %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReaderOfTheLatestMissesNothingBehindTheAttach(t *testing.T) {
	r := newRawReader(t)
	r.send("d1", telemetry("before")...)
	for n := range 20 {
		l, err := r.attach(partitionAddress(r.partitionOf("d1")), goamqp.ReceiverOptions{Filters: selector("amqp.annotation.x-opt-offset > '@latest'")})
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Sprint("after ", n)
		r.send("d1", telemetry(body)...)
		if got := string(r.next(l).GetData()); got != body {
			t.Fatalf("received %q, want %q", got, body)
		}
		l.Close(t.Context())
	}
}

func TestReaderGetsWhatItHasCreditFor(t *testing.T) {
	amqp.SetPatience(t, time.Microsecond) // it lets go of its place all the time
	r := newRawReader(t)
	var bodies []string
	for i := range 50 {
		bodies = append(bodies, fmt.Sprint(i))
	}
	r.send("d1", telemetry(bodies...)...)
	l, err := r.attach(partitionAddress(r.partitionOf("d1")), goamqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for n := 1; len(got) < len(bodies); n++ {
		n = min(n, len(bodies)-len(got))
		if err := l.IssueCredit(uint32(n)); err != nil {
			t.Fatal(err)
		}
		for range n {
			m := r.next(l)
			if err := l.AcceptMessage(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(m.GetData()))
		}
		if l.Prefetched() != nil {
			t.Fatalf("an event behind the credit of %d", n)
		}
	}
	if diff := cmp.Diff(bodies, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestReaderThatWantsSettledEvents(t *testing.T) {
	r := newRawReader(t)
	r.send("d1", telemetry("a", strings.Repeat("x", 200<<10), "b")...)
	l, err := r.attach(partitionAddress(r.partitionOf("d1")), goamqp.ReceiverOptions{RequestedSenderSettleMode: goamqp.SenderSettleModeSettled.Ptr()})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 200 << 10, 1} {
		if got := len(r.next(l).GetData()); got != want {
			t.Errorf("%d bytes, want %d", got, want)
		}
	}
}

func TestReadersAreBounded(t *testing.T) {
	r := newRawReader(t)
	var links []*goamqp.Receiver
	for range 5 {
		l, err := r.another().attach(partitionAddress(0), goamqp.ReceiverOptions{})
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, l)
	}
	if _, err := r.attach(partitionAddress(0), goamqp.ReceiverOptions{}); condition(err) != "amqp:resource-limit-exceeded" {
		t.Errorf("the sixth reader: %v", err)
	}
	if got := r.Readers(); got != 5 {
		t.Errorf("%d readers, want 5", got)
	}
	if err := links[0].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := r.attach(partitionAddress(0), goamqp.ReceiverOptions{})
	if err != nil {
		t.Fatalf("a reader when one has gone: %v", err)
	}
	owner, err := r.another().attach(partitionAddress(0), goamqp.ReceiverOptions{Properties: map[string]any{"com.microsoft:epoch": int64(0)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range append(links[1:], l) {
		if _, err := l.Receive(wiretest.WithPatience(t), nil); condition(err) != "amqp:link:stolen" {
			t.Errorf("a reader without an epoch beside one with: %v", err)
		}
	}
	for _, epoch := range []any{"1", true} {
		if _, err := r.attach(partitionAddress(0), goamqp.ReceiverOptions{Properties: map[string]any{"com.microsoft:epoch": epoch}}); condition(err) != "com.microsoft:argument-error" {
			t.Errorf("an epoch of %v: %v", epoch, err)
		}
	}
	owner.Close(t.Context())
}

func TestReaderIsForgottenWithItsConnection(t *testing.T) {
	r := newRawReader(t)
	first := r.another()
	if _, err := first.attach(partitionAddress(0), goamqp.ReceiverOptions{}); err != nil {
		t.Fatal(err)
	}
	first.Conn.Close()
	r.awaitNoReaders()
}

// awaitNoReaders returns when the hub has no readers any more.
func (r *rawReader) awaitNoReaders() {
	r.backEnd.t.Helper()
	if !wiretest.Eventually(r.backEnd.t, func() bool { return r.Readers() == 0 }) {
		r.backEnd.t.Fatal("the reader is still there")
	}
}

func TestReaderHearsHowFarItsPartitionIs(t *testing.T) {
	r := newRawReader(t)
	r.send("d1", telemetry("a", "b")...)
	l, err := r.attach(partitionAddress(r.partitionOf("d1")), goamqp.ReceiverOptions{
		DesiredCapabilities: []string{"com.microsoft:enable-receiver-runtime-metric"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var events []hub.Event
	for e := range r.Events(t.Context(), hub.EventQuery{}) {
		events = append(events, e)
	}
	last := events[len(events)-1]
	for range 2 {
		m := r.next(l)
		want := goamqp.Annotations{
			"last_enqueued_sequence_number":   last.Sequence,
			"last_enqueued_offset":            fmt.Sprint(last.Offset),
			"last_enqueued_time_utc":          last.Enqueued,
			"runtime_info_retrieval_time_utc": time.Now(),
		}
		if diff := cmp.Diff(want, m.DeliveryAnnotations, cmpopts.EquateApproxTime(30*time.Second)); diff != "" {
			t.Errorf("delivery annotations (-want +got):\n%s", diff)
		}
	}
	r.send("d1", telemetry("c")...)
	m := r.next(l)
	got, want := m.DeliveryAnnotations["last_enqueued_sequence_number"], m.Annotations["x-opt-sequence-number"]
	if got != want || want.(int64) <= last.Sequence {
		t.Errorf("with the next event, which is %v and comes behind %d, the last one is %v", want, last.Sequence, got)
	}
}

func TestEventsAreElsewhere(t *testing.T) {
	r := newRawReader(t)
	portOf := func(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }
	elsewhere := func(r *rawReader, address, url, port string) {
		t.Helper()
		_, err := r.attach(address, goamqp.ReceiverOptions{})
		e := errorOf(err)
		if e == nil || e.Condition != "amqp:link:redirect" {
			t.Fatalf("attach to %s: %v", address, err)
		}
		want := map[string]any{
			"hostname": "localhost", "network-host": "localhost", "port": port,
			"address": url + ":" + port + "/" + amqp.EventHubName + "/",
		}
		e.Info["port"] = fmt.Sprint(e.Info["port"])
		if diff := cmp.Diff(want, e.Info); diff != "" {
			t.Errorf("%s is at (-want +got):\n%s", address, diff)
		}
	}
	for _, address := range []string{"/messages/events", "messages/events/", "amqps://localhost/messages/events/$management", "/messages/events/ConsumerGroups/$Default/Partitions/0"} {
		elsewhere(r, address, "amqps://localhost", portOf(r.AMQPSAddr))
	}
	over := func(nc net.Conn) *rawReader {
		c := wiretest.OpenAMQP(t, r.Hub, nc)
		cs := r.Hub.Policy("service")
		cs.HostName = r.HostName
		c.Claim(cs.Audience(), wiretest.Sign(t, cs.Audience(), cs.SharedAccessKeyName, cs.SharedAccessKey, r.Now().Add(time.Hour)))
		return &rawReader{r.backEnd, c}
	}
	elsewhere(over(wiretest.DialAMQPWebSocket(t, r.Hub)), "/messages/events", "amqps://localhost", "5671")
	nc, err := net.Dial("tcp", r.AMQPAddr)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere(over(nc), "/messages/events", "amqp://localhost", portOf(r.AMQPAddr))
	other := &rawReader{r.backEnd, wiretest.DialAMQP(t, r.Hub, r.Hub.Policy("registryRead"))}
	for _, address := range []string{"/messages/events", partitionAddress(0)} {
		if _, err := other.attach(address, goamqp.ReceiverOptions{}); condition(err) != "amqp:unauthorized-access" {
			t.Errorf("attach to %s without the right: %v", address, err)
		}
	}
}

// ask sends a question to $management and returns the answer.
func (r *rawReader) ask(id any, properties map[string]any, opt goamqp.ReceiverOptions, replyTo string) *goamqp.Message {
	r.backEnd.t.Helper()
	ctx := wiretest.WithPatience(r.backEnd.t)
	in, err := r.attach("$management", opt)
	if err != nil {
		r.backEnd.t.Fatal(err)
	}
	defer in.Close(ctx)
	out, err := r.NewSender(ctx, "$management", nil)
	if err != nil {
		r.backEnd.t.Fatal(err)
	}
	defer out.Close(ctx)
	if err := out.Send(ctx, &goamqp.Message{
		Properties: &goamqp.MessageProperties{MessageID: id, ReplyTo: &replyTo}, ApplicationProperties: properties, Value: []byte("[]"),
	}, nil); err != nil {
		r.backEnd.t.Fatal(err)
	}
	return r.next(in)
}

func TestManagementIsAsked(t *testing.T) {
	r := newRawReader(t)
	eventHub := map[string]any{"operation": "READ", "name": amqp.EventHubName, "type": "com.microsoft:eventhub"}
	with := func(more ...string) map[string]any {
		m := map[string]any{}
		for k, v := range eventHub {
			m[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	for _, id := range []any{"text", uint64(7), goamqp.UUID{1, 2}, []byte("binary")} {
		m := r.ask(id, eventHub, goamqp.ReceiverOptions{TargetAddress: "answers", RequestedSenderSettleMode: goamqp.SenderSettleModeSettled.Ptr()}, "answers")
		if diff := cmp.Diff(id, m.Properties.CorrelationID); diff != "" {
			t.Errorf("correlation id (-want +got):\n%s", diff)
		}
		body := m.Value.(map[string]any)
		if _, ok := body["created_at"].(time.Time); !ok {
			t.Errorf("created_at is %v", body["created_at"])
		}
		delete(body, "created_at")
		want := map[string]any{
			"name": amqp.EventHubName, "type": "com.microsoft:eventhub",
			"partition_count": int32(4), "partition_ids": []string{"0", "1", "2", "3"}, "georeplication_factor": int32(1),
		}
		if diff := cmp.Diff(want, body); diff != "" {
			t.Errorf("event hub (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]any{"status-code": int32(200), "status-description": "OK"}, m.ApplicationProperties); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
	}
	r.send("d1", telemetry("a")...)
	partition := r.partitionOf("d1")
	var last hub.Event
	for last = range r.Events(t.Context(), hub.EventQuery{}) {
	}
	m := r.ask("1", with("type", "com.microsoft:partition", "partition", fmt.Sprint(partition)), goamqp.ReceiverOptions{}, "cbs")
	want := map[string]any{
		"name": amqp.EventHubName, "type": "com.microsoft:partition", "partition": fmt.Sprint(partition),
		"begin_sequence_number": last.Sequence, "last_enqueued_sequence_number": last.Sequence, "last_enqueued_offset": fmt.Sprint(last.Offset),
		"last_enqueued_time_utc": last.Enqueued, "is_partition_empty": false,
	}
	if diff := cmp.Diff(want, m.Value, cmpopts.EquateApproxTime(time.Millisecond)); diff != "" {
		t.Errorf("partition (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		name      string
		question  map[string]any
		status    int32
		condition string
	}{
		{"another hub", with("name", "other"), 404, "amqp:not-found"},
		{"an unknown partition", with("type", "com.microsoft:partition", "partition", "4"), 404, "com.microsoft:argument-out-of-range"},
		{"no partition", with("type", "com.microsoft:partition"), 404, "com.microsoft:argument-out-of-range"},
		{"another operation", with("operation", "WRITE"), 400, "com.microsoft:argument-error"},
		{"another type", with("type", "com.microsoft:queue"), 400, "com.microsoft:argument-error"},
		{"nothing", nil, 404, "amqp:not-found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := r.ask("1", tt.question, goamqp.ReceiverOptions{}, "")
			description, _ := m.ApplicationProperties["status-description"].(string)
			if got, want := inVain.MatchString(description), tt.status == 404; got != want {
				t.Errorf("clients know that it is in vain: %t, want %t, by %q", got, want, description)
			}
			delete(m.ApplicationProperties, "status-description")
			want := map[string]any{"status-code": tt.status, "errorCondition": tt.condition}
			if got := m.ApplicationProperties; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("answered with %v, want %v", got, want)
			}
		})
	}
	other := &rawReader{r.backEnd, wiretest.DialAMQP(t, r.Hub, r.Hub.Policy("registryRead"))}
	if got := other.ask("1", eventHub, goamqp.ReceiverOptions{}, "").ApplicationProperties["status-code"]; got != int32(401) {
		t.Errorf("without the right: %v", got)
	}
}

func TestReaderThatIsOvertakenGoesOnAtTheOldest(t *testing.T) {
	for _, patient := range []bool{true, false} {
		t.Run(map[bool]string{true: "with its place kept", false: "that let go of its place"}[patient], func(t *testing.T) {
			if !patient {
				amqp.SetPatience(t, time.Microsecond)
			}
			r := newRawReader(t, hubtest.WithOptions(node.Options{EventBytes: 256 << 10, EventPartitions: 1}))
			sent := 0
			send := func(n int) {
				var bodies []string
				for range n {
					random := make([]byte, 1024) // which cannot be compressed
					rand.Read(random)
					bodies = append(bodies, fmt.Sprintf("%d %s", sent, random))
					sent++
				}
				r.send("d1", telemetry(bodies...)...)
			}
			which := func(body []byte) int {
				var n int
				if _, err := fmt.Sscan(string(body), &n); err != nil {
					t.Fatal(err)
				}
				return n
			}
			send(20)
			l, err := r.attach(partitionAddress(0), goamqp.ReceiverOptions{Credit: -1})
			if err != nil {
				t.Fatal(err)
			}
			next := func() int {
				if err := l.IssueCredit(1); err != nil {
					t.Fatal(err)
				}
				return which(r.next(l).GetData())
			}
			last := next()
			if last != 0 {
				t.Fatalf("the first is %d", last)
			}
			for range 20 { // what comes at once may all be in one segment, which is kept as a whole
				send(50)
			}
			first := 0
			for e, err := range r.Events(t.Context(), hub.EventQuery{}) {
				if err != nil {
					t.Fatal(err)
				}
				first = which(e.Body)
				break
			}
			if first < 20 {
				t.Fatalf("the partition begins at %d", first)
			}
			// What it had open it may read to the end.
			oldest := false
			for last < sent-1 {
				n := next()
				if n != last+1 && (n < first || oldest) {
					t.Fatalf("received %d behind %d; the partition begins at %d", n, last, first)
				}
				oldest = oldest || n != last+1
				last = n
			}
			if !oldest {
				t.Error("it received events that are not kept")
			}
		})
	}
}

func TestReaderEndsWithItsToken(t *testing.T) {
	c := clock.New()
	b := newBackEnd(t, hubtest.WithOptions(node.Options{Clock: c}))
	r := &rawReader{b, wiretest.DialAMQP(t, b.Hub, b.Hub.Policy("service"))} // for an hour
	l, err := r.attach(partitionAddress(0), goamqp.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cs := b.Hub.Policy("service")
	cs.HostName = b.HostName
	c.Advance(50 * time.Minute)
	r.Claim(cs.Audience(), wiretest.Sign(t, cs.Audience(), cs.SharedAccessKeyName, cs.SharedAccessKey, b.Now().Add(time.Hour)))
	c.Advance(50 * time.Minute)
	partition := 0
	device := ""
	for i := 0; device == ""; i++ { // one whose events are there
		name := fmt.Sprint("d", i)
		r.send(name, telemetry(name)...)
		if r.partitionOf(name) == partition {
			device = name
		}
	}
	if got := string(r.next(l).GetData()); got != device {
		t.Errorf("with the token renewed, received %q, want %q", got, device)
	}
	c.Advance(2 * time.Hour)
	if _, err := l.Receive(wiretest.WithPatience(t), nil); !strings.Contains(fmt.Sprint(err), "amqp:unauthorized-access") {
		t.Errorf("with the token expired: %v", err)
	}
	r.awaitNoReaders()
}
