package node_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// killedVariable names the data folder of a hub in a process that is killed.
const killedVariable = "IOTDM_TEST_HUB_DATA"

// TestHubToBeKilled is the process that TestNothingAcknowledgedIsMissingAfterAKill
// kills. It prints what a killedHub is.
func TestHubToBeKilled(t *testing.T) {
	dir := os.Getenv(killedVariable)
	if dir == "" {
		t.Skip("only another test starts this one")
	}
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	fmt.Printf("\nready %s %s %s %s\n", h.MQTTSAddr, h.HTTPSAddr, h.Device("d1").Format(), h.Policy("service").Format())
	select {} // until it is killed
}

// A killedHub is a hub in another process.
type killedHub struct {
	mqtts, https    string // where it listens
	device, service sas.ConnectionString
	kill            func()
}

func startToKill(t *testing.T, dir string) killedHub {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHubToBeKilled$")
	cmd.Env = append(os.Environ(), killedVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := killedHub{kill: func() {
		cmd.Process.Kill()
		cmd.Wait()
	}}
	t.Cleanup(h.kill)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 5 || fields[0] != "ready" {
			continue
		}
		h.mqtts, h.https = fields[1], fields[2]
		for i, cs := range []*sas.ConnectionString{&h.device, &h.service} {
			if *cs, err = sas.ParseConnectionString(fields[3+i]); err != nil {
				t.Fatal(err)
			}
		}
		return h
	}
	t.Fatal("the hub did not start")
	panic("unreachable")
}

// What is tested here is not whom the client trusts.
var trustAnyone = &tls.Config{InsecureSkipVerify: true}

func dialAddr(t *testing.T, addr string) *wiretest.Client {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, wiretest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	return wiretest.NewClient(t, tls.Client(nc, trustAnyone))
}

// sendUntilKilled sends messages to the device until the hub is gone, and
// returns how many were acknowledged.
func (h killedHub) sendUntilKilled(t *testing.T) (acked int) {
	token, err := sas.Sign("localhost", h.service.SharedAccessKeyName, h.service.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		t.Error(err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: trustAnyone}}
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequest("POST", "https://"+h.https+"/devices/d1/messages/deviceBound?api-version=2021-04-12", nil)
		if err != nil {
			t.Error(err)
		}
		req.Host = "localhost"
		req.Header.Set("Authorization", token)
		resp, err := client.Do(req)
		if err != nil {
			return acked
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusNoContent {
			acked++
		}
	}
}

// TestNothingAcknowledgedIsMissingAfterAKill kills a hub while a device and a
// service send as fast as they can, and looks for what was acknowledged.
func TestNothingAcknowledgedIsMissingAfterAKill(t *testing.T) {
	dir := t.TempDir()
	sent, total := 0, 0
	for round := range 3 {
		h := startToKill(t, dir)
		messages := make(chan int)
		go func() { messages <- h.sendUntilKilled(t) }()
		d := dialAddr(t, h.mqtts)
		d.Connect(h.device)
		first := sent
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				p := wiretest.PublishPacket(uint16(1+sent%60_000), 1, "devices/d1/messages/events/", fmt.Sprint(sent))
				if p.Write(d) != nil {
					return
				}
				sent++
			}
		}()
		acked := 0
		for acked < 500 {
			ack := wiretest.Receive[*packets.PubackPacket](d)
			if want := uint16(1 + (first+acked)%60_000); ack.MessageID != want {
				t.Fatalf("PUBACK for %d, want %d", ack.MessageID, want)
			}
			acked++
		}
		h.kill()
		// What was acknowledged before the connection broke counts too.
		d.SetReadDeadline(time.Now().Add(wiretest.Patience))
		for {
			p, err := packets.ReadPacket(d)
			if err != nil {
				break
			}
			if _, ok := p.(*packets.PubackPacket); ok {
				acked++
			}
		}
		d.Close()
		<-stopped

		s, err := node.New(node.Options{Storage: node.Folder(dir)})
		if err != nil {
			t.Fatal(err)
		}
		got := wiretest.Telemetry(t, s, "d1")
		if len(got)-total < acked {
			t.Errorf("round %d: %d messages were acknowledged, %d are there", round, acked, len(got)-total)
		}
		for i, e := range got[total:] {
			if want := fmt.Sprint(first + i); string(e.Body) != want {
				t.Fatalf("round %d: message %d is %s, want %s", round, i, e.Body, want)
			}
		}
		total = len(got)
		wantMessages := <-messages
		n, err := s.PurgeMessages("d1")
		if err != nil || n < wantMessages {
			t.Errorf("round %d: %d messages were acknowledged, %d wait; %v", round, wantMessages, n, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
