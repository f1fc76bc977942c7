//go:build unix

package node_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A fleet is what the process with the devices of a benchmark is told. The
// devices have a process of their own so that what the hub's costs can be
// told from theirs.
type fleet struct {
	Addr      string
	CA        []byte
	Key       sas.Key // of policy "device"
	Count     int
	Subscribe bool // to direct methods, which are answered
	Broker    bool // it is not a hub: methods and answers have topics of their own
	Patches   int  // reported patches that the devices send together
}

// patched is what devices that send patches report.
type patched struct{ Took, P99 time.Duration }

const fleetVariable = "IOTDM_BENCHMARK_FLEET"

// TestFleet is no test: with fleetVariable set it is the program that
// startFleet runs.
func TestFleet(t *testing.T) {
	if os.Getenv(fleetVariable) == "" {
		t.Skip("only run by benchmarks")
	}
	var f fleet
	if err := json.NewDecoder(os.Stdin).Decode(&f); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.CA)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	password, err := sas.Sign("localhost", "device", f.Key, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var next atomic.Int64
	devices := make([]*echoDevice, f.Count)
	for range 16 {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= f.Count {
					return
				}
				nc, err := tls.Dial("tcp", f.Addr, config)
				if err != nil {
					t.Error(err)
					return
				}
				d := &echoDevice{nc: nc, r: bufio.NewReaderSize(nc, 512)}
				id, filter := fleetID(i).Device, ""
				switch {
				case f.Broker:
					filter, d.answers = brokerMethods(id)+"#", brokerAnswers
				case f.Subscribe:
					filter, d.answers = "$iothub/methods/POST/#", "$iothub/methods/res/200/"
				}
				if err := d.connect(id, password, filter); err != nil {
					t.Error(err)
					return
				}
				devices[i] = d
				if f.Patches == 0 {
					go d.serve()
				}
			}
		})
	}
	group.Wait()
	fmt.Println("ready")
	if f.Patches > 0 && !t.Failed() {
		json.NewEncoder(os.Stdout).Encode(sendPatches(t, devices, f.Patches))
	}
	io.Copy(io.Discard, os.Stdin)
}

func sendPatches(t *testing.T, devices []*echoDevice, count int) patched {
	var group sync.WaitGroup
	var next atomic.Int64
	took := make([]time.Duration, count)
	began := time.Now()
	for _, d := range devices {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				sent := time.Now()
				if err := d.patch(i); err != nil {
					t.Error(err)
					return
				}
				took[i] = time.Since(sent)
			}
		})
	}
	group.Wait()
	slices.Sort(took)
	return patched{Took: time.Since(began), P99: took[count*99/100]}
}

func fleetID(i int) hub.ID { return hub.ID{Device: "device-" + strconv.Itoa(i)} }

// startFleet registers devices and has another process connect them.
func startFleet(b *testing.B, h *hubtest.Hub, count int, subscribe bool) {
	b.Helper()
	for i := range count {
		wiretest.Create(b, h.Node, fleetID(i), hub.IdentitySpec{})
	}
	runFleet(b, fleet{Addr: h.MQTTSAddr, CA: h.CACertificate(), Key: h.Policy("device").SharedAccessKey, Count: count, Subscribe: subscribe})
}

// runFleet starts the process of the devices and returns when they are
// connected, with what it has to say further.
func runFleet(b *testing.B, f fleet) *bufio.Reader {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFleet$")
	cmd.Env = append(os.Environ(), fleetVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if err := json.NewEncoder(in).Encode(f); err != nil {
		b.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		b.Fatalf("the devices say %q (%v)", line, err)
	}
	return r
}

// An echoDevice answers every direct method with its payload, with as little
// work as can be.
type echoDevice struct {
	nc      net.Conn
	r       *bufio.Reader
	buf     []byte
	answers string // topic of the answers, in front of what ends that of the method
}

// connect connects and subscribes to the filter, if it is not empty.
func (d *echoDevice) connect(id, password, filter string) error {
	body := append(appendText(nil, "MQTT"), 4, 0xc2, 0, 0) // clean session, no keep-alive
	body = appendText(body, id)
	body = appendText(body, "localhost/"+id+"/?api-version=2021-04-12")
	body = appendText(body, password)
	packet := append(binary.AppendUvarint([]byte{0x10}, uint64(len(body))), body...)
	if filter != "" {
		body = append(appendText([]byte{0, 1}, filter), 0)
		packet = append(append(packet, 0x82, byte(len(body))), body...)
	}
	if _, err := d.nc.Write(packet); err != nil {
		return err
	}
	for _, want := range []byte{0x20, 0x90} {
		if want == 0x90 && filter == "" {
			break
		}
		header, body, err := d.read()
		if err != nil {
			return err
		}
		if header != want || want == 0x20 && body[1] != 0 {
			return fmt.Errorf("device %s: packet %x %x", id, header, body)
		}
	}
	return nil
}

// appendText appends s as MQTT writes it.
func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// appendPublish appends a PUBLISH of QoS 0.
func appendPublish(b []byte, topic string, payload []byte) []byte {
	b = binary.AppendUvarint(append(b, 0x30), uint64(2+len(topic)+len(payload)))
	return append(appendText(b, topic), payload...)
}

func (d *echoDevice) read() (header byte, body []byte, err error) {
	if header, err = d.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(d.r)
	if err != nil {
		return 0, nil, err
	}
	d.buf = slices.Grow(d.buf[:0], int(length))[:length]
	_, err = io.ReadFull(d.r, d.buf)
	return header, d.buf, err
}

func (d *echoDevice) serve() {
	var out []byte
	for {
		_, body, err := d.read()
		if err != nil {
			return
		}
		n := 2 + int(binary.BigEndian.Uint16(body))
		topic, payload := string(body[2:n]), body[n:]
		out = appendPublish(out[:0], d.answers+topic[strings.LastIndexByte(topic, '/')+1:], payload)
		if _, err := d.nc.Write(out); err != nil {
			return
		}
	}
}

// patch changes a reported property and waits for the answer.
func (d *echoDevice) patch(i int) error {
	out := appendPublish(nil, "$iothub/twin/PATCH/properties/reported/?$rid=1", fmt.Appendf(nil, `{"counter":%d}`, i))
	if _, err := d.nc.Write(out); err != nil {
		return err
	}
	_, body, err := d.read()
	if err == nil && !strings.HasPrefix(string(body[2:]), "$iothub/twin/res/204/") {
		err = fmt.Errorf("the answer to a patch is %q", body)
	}
	return err
}

// BenchmarkMethodRoundTrip calls a direct method of one device over MQTT, one
// call at a time, beside a bare ping-pong of the same bytes over TLS.
func BenchmarkMethodRoundTrip(b *testing.B) {
	h := hubtest.New(b)
	startFleet(b, h, 1, true)
	raw := rawPingPong(b, h)
	call := hub.MethodCall{Name: "echo", Payload: []byte(`{"delay":5}`), ResponseTimeout: hub.DefaultResponseTimeout}
	var calls, raws []time.Duration
	for b.Loop() {
		began := time.Now()
		raw()
		between := time.Now()
		if _, err := h.InvokeMethod(context.Background(), fleetID(0), call); err != nil {
			b.Fatal(err)
		}
		raws = append(raws, between.Sub(began))
		calls = append(calls, time.Since(between))
	}
	slices.Sort(calls)
	slices.Sort(raws)
	p50, rawP50 := calls[len(calls)/2], raws[len(raws)/2]
	b.ReportMetric(float64(p50.Nanoseconds())/1e3, "p50-us")
	b.ReportMetric(float64(rawP50.Nanoseconds())/1e3, "raw-p50-us")
	b.ReportMetric(float64(p50)/float64(rawP50), "times-raw")
	b.ReportMetric(0, "ns/op") // of both together
}

// rawPingPong returns a function that sends as many bytes as a method call to
// an echo of another process over TLS, and waits for as many as the answer.
func rawPingPong(b *testing.B, h *hubtest.Hub) func() {
	l, err := tls.Listen("tcp", "127.0.0.1:0", h.TLSConfig())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		// It takes the packets of CONNECT for granted.
		nc, err := l.Accept()
		if err != nil {
			return
		}
		io.ReadAtLeast(nc, make([]byte, 4096), 100)
		nc.Write([]byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, 0})
		accepted <- nc
	}()
	runFleet(b, fleet{Addr: l.Addr().String(), CA: h.CACertificate(), Key: h.Policy("device").SharedAccessKey, Count: 1, Subscribe: true})
	nc := <-accepted
	b.Cleanup(func() { nc.Close() })
	ping := appendPublish(nil, "$iothub/methods/POST/echo/?$rid=1000", []byte(`{"delay":5}`))
	pong := make([]byte, 4096)
	return func() {
		if _, err := nc.Write(ping); err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Read(pong); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMethods has 64 callers call direct methods of 1,000 devices, and
// reports the hub's own share of the processor too.
func BenchmarkMethods(b *testing.B) {
	const devices, callers = 1000, 64
	h := hubtest.New(b)
	startFleet(b, h, devices, true)
	call := hub.MethodCall{Name: "echo", Payload: []byte(`{"delay":5}`), ResponseTimeout: hub.DefaultResponseTimeout}
	b.ReportAllocs()
	b.ResetTimer()
	used := processorTime()
	rate := callMethods(b, callers, devices, func(_ int, id hub.ID) error {
		_, err := h.InvokeMethod(context.Background(), id, call)
		return err
	})
	b.ReportMetric(rate, "methods/s")
	b.ReportMetric(float64((processorTime()-used).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
}

// callMethods has callers call b.N methods of devices, and returns how many a
// second it was.
func callMethods(b *testing.B, callers, devices int, call func(caller int, id hub.ID) error) float64 {
	began := time.Now()
	var next atomic.Int64
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := call(caller, fleetID(i%devices)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return float64(b.N) / time.Since(began).Seconds()
}

// BenchmarkReportedPatches has 256 devices change their reported properties,
// each change durable on disk before it is answered.
func BenchmarkReportedPatches(b *testing.B) {
	const devices = 256
	h := hubtest.New(b, hubtest.WithOptions(node.Options{Storage: node.Folder(b.TempDir())}))
	for i := range devices {
		wiretest.Create(b, h.Node, fleetID(i), hub.IdentitySpec{})
	}
	f := fleet{Addr: h.MQTTSAddr, CA: h.CACertificate(), Key: h.Policy("device").SharedAccessKey, Count: devices, Patches: b.N}
	var got patched
	if err := json.NewDecoder(runFleet(b, f)).Decode(&got); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/got.Took.Seconds(), "patches/s")
	b.ReportMetric(float64(got.P99.Microseconds())/1e3, "p99-ms")
	b.ReportMetric(0, "ns/op") // it counts the start of the devices
}

// BenchmarkIdleDevices reports what an idle device over TLS costs the hub.
func BenchmarkIdleDevices(b *testing.B) {
	const devices = 2000
	for b.Loop() {
		h := hubtest.New(b)
		before, beforeRSS := memoryInUse(), residentMemory(b)
		startFleet(b, h, devices, true)
		b.ReportMetric(float64(memoryInUse()-before)/devices/1024, "KiB/device")
		b.ReportMetric(float64(residentMemory(b)-beforeRSS)/devices/1024, "resident-KiB/device")
	}
	b.ReportMetric(0, "ns/op")
}

// memoryInUse is what the heap and the stacks take.
func memoryInUse() int {
	debug.FreeOSMemory() // twice: pools are emptied in two steps
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// residentMemory is what this process takes of the machine's memory, where
// Linux tells.
func residentMemory(b *testing.B) int {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
