package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/sas"
)

// crashPatience is how long anything may take: a request that is not answered by
// then hangs, also while the disk is full.
const crashPatience = 30 * time.Second

// stopPatience is how long a hub may take to stop when it is told to, whatever
// state its disk is in.
const stopPatience = 10 * time.Second

// A place is where a hub has its data folder: in a mount namespace of its own if
// it has a file system of its own.
type place struct {
	enter []string // words before a command that is to see the folder
	data  string   // as the hub sees it
	seen  string   // as this process sees it
	end   func()   // unmounts it
}

// plainPlace is a folder like any other.
func plainPlace(t *testing.T) place {
	dir := t.TempDir()
	return place{data: dir, seen: dir, end: func() {}}
}

// within is a folder of a place.
func (p place) within(name string) place {
	return place{enter: p.enter, data: filepath.Join(p.data, name), seen: filepath.Join(p.seen, name), end: func() {}}
}

// mounted makes a mount namespace in which mount, a shell command, has mounted
// something on the folder $1. It ends with the test.
func mounted(t *testing.T, mount string, args ...string) (place, error) {
	t.Helper()
	dir := t.TempDir()
	words := append([]string{"-m", "--propagation", "private", "sh", "-ec", mount + `; mkdir -p "$1/data"; echo mounted; exec cat`, "sh", dir}, args...)
	cmd := exec.Command("unshare", words...)
	in, err := cmd.StdinPipe() // its end is the end of cat, and of the namespace
	if err != nil {
		return place{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return place{}, err
	}
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return place{}, err
	}
	end := sync.OnceFunc(func() {
		in.Close()
		cmd.Wait()
	})
	t.Cleanup(end)
	line := make([]byte, len("mounted\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		cmd.Wait()
		return place{}, fmt.Errorf("mount a file system: %s", strings.TrimSpace(stderr.String()))
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	return place{
		enter: []string{"nsenter", "-t", pid, "-m", "--"},
		data:  filepath.Join(dir, "data"),
		seen:  filepath.Join("/proc", pid, "root", dir, "data"),
		end:   end,
	}, nil
}

// A crashHub is "iotdm hub run", which is killed and started again.
type crashHub struct {
	place
	t           *testing.T
	mqtts, rest string // where it listens, always
	cmd         *exec.Cmd
	flags       []string // more than those that every hub has
	log         *os.File
	exited      chan struct{}
	starts      int // how often it was started

	cluster *crashCluster // what it stands for; nil is itself

	key    sas.Key // of the policy iothubowner
	token  string
	client *http.Client
}

func newCrashHub(t *testing.T, p place) *crashHub {
	log, err := os.Create(filepath.Join(t.TempDir(), "hub.log"))
	if err != nil {
		t.Fatal(err)
	}
	h := &crashHub{place: p, t: t, mqtts: freeAddr(t), rest: freeAddr(t), log: log}
	t.Cleanup(func() {
		h.kill()
		log.Close()
	})
	return h
}

// begin starts the hub and does not wait for it.
func (h *crashHub) begin() {
	h.t.Helper()
	path, err := exec.LookPath("iotdm")
	if err != nil {
		h.t.Fatal(err)
	}
	words := append(h.enter, path, "hub", "run", "--data", h.data, "--mqtts-addr", h.mqtts, "--https-addr", h.rest)
	words = append(words, h.flags...)
	h.cmd = exec.Command(words[0], words[1:]...)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.starts++
	h.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(h.cmd, h.exited)
	h.reconnect()
}

// reconnect forgets all connections: those of a hub that was killed must not be
// used again.
func (h *crashHub) reconnect() {
	if h.client != nil {
		h.client.CloseIdleConnections()
	}
	h.client = &http.Client{Timeout: crashPatience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 64,
	}}
}

// start starts the hub and returns when it answers.
func (h *crashHub) start() {
	h.t.Helper()
	h.begin()
	deadline := time.After(crashPatience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if a, err := h.do("GET", "/health", ""); err == nil && a.status == 200 {
			break
		}
		select {
		case <-tick.C:
		case <-h.exited:
			h.t.Fatalf("the hub did not start:\n%s", h.tail())
		case <-deadline:
			h.t.Fatalf("the hub was not ready in %v:\n%s", crashPatience, h.tail())
		}
	}
	if h.token == "" {
		h.readKey()
	}
}

func (h *crashHub) readKey() {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.seen, "policies.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	var stored []map[string]any
	if err := json.Unmarshal(text, &stored); err != nil {
		h.t.Fatal(err)
	}
	for _, p := range stored {
		if name, _ := p["name"].(string); name == "iothubowner" {
			key, _ := p["primaryKey"].(string)
			h.key = sas.Key(key)
		}
	}
	if h.token, err = sas.Sign("localhost", "iothubowner", h.key, time.Now().Add(7*24*time.Hour)); err != nil {
		h.t.Fatalf("sign with the key in policies.json: %v", err)
	}
}

func (h *crashHub) running() bool {
	if h.cluster != nil {
		return h.cluster.running()
	}
	if h.exited == nil {
		return false
	}
	select {
	case <-h.exited:
		return false
	default:
		return true
	}
}

// kill is kill -9. The hub is its process itself: nsenter has become it.
func (h *crashHub) kill() {
	if h.cmd != nil && h.cmd.Process != nil {
		h.cmd.Process.Kill()
		<-h.exited
	}
}

// stop tells the hub to stop, which it does in time and without an error, or with
// one if the disk is full.
func (h *crashHub) stop(full bool) {
	h.t.Helper()
	h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.exited:
		if code := h.cmd.ProcessState.ExitCode(); code != 0 && !full {
			h.t.Errorf("the hub exited with %d after SIGTERM:\n%s", code, h.tail())
		}
	case <-time.After(stopPatience):
		h.t.Errorf("the hub did not stop within %v of SIGTERM; disk full: %v", stopPatience, full)
		h.kill()
	}
}

// tail is the end of what the hub has logged.
func (h *crashHub) tail() string {
	if h.cluster != nil {
		return h.cluster.tail()
	}
	text, err := os.ReadFile(h.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// A crashAnswer is what the hub answered.
type crashAnswer struct {
	status int
	header http.Header
	body   []byte
}

func (a crashAnswer) ok() bool { return a.status/100 == 2 }

// refused is that the hub has said no: nothing has changed.
func (a crashAnswer) refused() bool { return a.status/100 == 4 }

func (a crashAnswer) String() string { return fmt.Sprintf("%d %.300s", a.status, a.body) }

// decode reads the body, which the hub has made.
func (a crashAnswer) decode(v any) error {
	if !a.ok() {
		return fmt.Errorf("the hub answers %v", a)
	}
	return json.Unmarshal(a.body, v)
}

// at is the hub itself, or of a cluster a node at random.
func (h *crashHub) at() *crashHub {
	if h.cluster != nil {
		return h.cluster.any()
	}
	return h
}

// do makes a request. An error is that there was no answer.
func (h *crashHub) do(method, path, body string, headers ...string) (crashAnswer, error) {
	return h.doAt(h.at().rest, method, path, body, headers...)
}

// doAt makes a request to a node.
func (h *crashHub) doAt(rest, method, path, body string, headers ...string) (crashAnswer, error) {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	req, err := http.NewRequest(method, "https://"+rest+path+separator+"api-version=2021-04-12", strings.NewReader(body))
	if err != nil {
		return crashAnswer{}, err
	}
	req.Host = "localhost"
	req.Header.Set("Authorization", h.token)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := h.client.Do(req)
	if err != nil {
		if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) && urlErr.Timeout() && h.running() {
			h.t.Errorf("%s %s was not answered in %v:\n%s", method, path, crashPatience, h.tail())
		}
		return crashAnswer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return crashAnswer{resp.StatusCode, resp.Header, text}, err
}

// query returns the rows of a query, all of them.
func (h *crashHub) query(text string) (rows []json.RawMessage, err error) {
	return h.queryAt(h.at().rest, text)
}

// queryAt asks a node.
func (h *crashHub) queryAt(rest, text string) (rows []json.RawMessage, err error) {
	body, err := json.Marshal(map[string]string{"query": text})
	if err != nil {
		return nil, err
	}
	continuation := ""
	for {
		a, err := h.doAt(rest, "POST", "/devices/query", string(body), "x-ms-max-item-count", "1000", "x-ms-continuation", continuation)
		if err != nil {
			return nil, err
		}
		var page []json.RawMessage
		if err := a.decode(&page); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		rows = append(rows, page...)
		if continuation = a.header.Get("x-ms-continuation"); continuation == "" {
			return rows, nil
		}
	}
}

// metric returns the value of a metric without labels.
func (h *crashHub) metric(name string) (float64, error) {
	a, err := h.do("GET", "/metrics", "")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(a.body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// A crashDevice is an MQTT connection to the hub.
type crashDevice struct {
	net.Conn
	id string
}

// dial connects to where the hub listens for MQTT.
func (h *crashHub) dial() (net.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: crashPatience}, "tcp", h.at().mqtts, &tls.Config{InsecureSkipVerify: true})
}

// connect connects as a device, with the key of a policy.
func (h *crashHub) connect(id string) (*crashDevice, error) {
	nc, err := h.dial()
	if err != nil {
		return nil, err
	}
	d := &crashDevice{nc, id}
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.Keepalive, p.CleanSession = "MQTT", 4, 60, true
	p.ClientIdentifier, p.Username, p.UsernameFlag = id, "localhost/"+id+"/?api-version=2021-04-12", true
	p.Password, p.PasswordFlag = []byte(h.token), true
	if err := d.send(p); err != nil {
		nc.Close()
		return nil, err
	}
	ack, err := d.read()
	if err == nil {
		if c, ok := ack.(*packets.ConnackPacket); !ok || c.ReturnCode != 0 {
			err = fmt.Errorf("CONNACK %v", ack)
		}
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return d, nil
}

func (d *crashDevice) send(p packets.ControlPacket) error {
	d.SetWriteDeadline(time.Now().Add(crashPatience))
	return p.Write(d)
}

func (d *crashDevice) read() (packets.ControlPacket, error) {
	d.SetReadDeadline(time.Now().Add(crashPatience))
	return packets.ReadPacket(d)
}

// publish makes a PUBLISH.
func publish(id uint16, qos byte, topic, payload string) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, topic, []byte(payload)
	return p
}

// subscribe subscribes to one filter at QoS 1.
func (d *crashDevice) subscribe(filter string) error {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = 1, []string{filter}, []byte{1}
	return d.send(p)
}

// hangUp ends the connection when ctx ends.
func (d *crashDevice) hangUp(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { d.Close() })
}
