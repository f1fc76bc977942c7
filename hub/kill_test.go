package hub_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/sas"
)

// killedVariable names the data folder of a hub in a process that is killed.
const killedVariable = "IOTDM_TEST_HUB_DATA"

// TestHubToBeKilled is the process that TestNothingAcknowledgedIsMissingAfterAKill
// kills. It prints where it listens and a device's connection string.
func TestHubToBeKilled(t *testing.T) {
	dir := os.Getenv(killedVariable)
	if dir == "" {
		t.Skip("only another test starts this one")
	}
	h := hubtest.New(t, hubtest.WithOptions(hub.Options{Data: dir}))
	fmt.Printf("\n%s %s\n", h.MQTTSAddr, h.Device("d1").Format())
	select {} // until it is killed
}

// startToKill starts a hub in another process, and returns where it listens
// and a device's connection string.
func startToKill(t *testing.T, dir string) (addr string, device sas.ConnectionString, kill func()) {
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
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(kill)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if addr, text, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(text, "HostName=") {
			if device, err = sas.ParseConnectionString(text); err != nil {
				t.Fatal(err)
			}
			return addr, device, kill
		}
	}
	t.Fatal("the hub did not start")
	return "", sas.ConnectionString{}, nil
}

func dialAddr(t *testing.T, addr string) *client {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	// What is tested here is not whom the client trusts.
	return newClient(t, tls.Client(nc, &tls.Config{InsecureSkipVerify: true}))
}

// TestNothingAcknowledgedIsMissingAfterAKill kills a hub while a device sends
// as fast as it can, and looks for what was acknowledged.
func TestNothingAcknowledgedIsMissingAfterAKill(t *testing.T) {
	dir := t.TempDir()
	sent, total := 0, 0
	for round := range 3 {
		addr, device, kill := startToKill(t, dir)
		d := dialAddr(t, addr)
		d.connect(device)
		first := sent
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				p := publishPacket(uint16(1+sent%60_000), 1, "devices/d1/messages/events/", fmt.Sprint(sent))
				if p.Write(d) != nil {
					return
				}
				sent++
			}
		}()
		acked := 0
		for acked < 500 {
			ack := receive[*packets.PubackPacket](d)
			if want := uint16(1 + (first+acked)%60_000); ack.MessageID != want {
				t.Fatalf("PUBACK for %d, want %d", ack.MessageID, want)
			}
			acked++
		}
		kill()
		// What was acknowledged before the connection broke counts too.
		d.SetReadDeadline(time.Now().Add(patience))
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

		s, err := hub.New(hub.Options{Data: dir})
		if err != nil {
			t.Fatal(err)
		}
		got := telemetryOf(t, s, "d1")
		if len(got)-total < acked {
			t.Errorf("round %d: %d messages were acknowledged, %d are there", round, acked, len(got)-total)
		}
		for i, e := range got[total:] {
			if want := fmt.Sprint(first + i); string(e.Body) != want {
				t.Fatalf("round %d: message %d is %s, want %s", round, i, e.Body, want)
			}
		}
		total = len(got)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
