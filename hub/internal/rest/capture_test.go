package rest_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A restCapture is a request of a service SDK, byte for byte, and the answer that
// satisfied the SDK.
type restCapture struct {
	Client, Flow, Request string
	Status                int
	Answer                string
}

type restCaptures struct {
	HostName, Policy string
	OwnerKey         sas.Key
	Calls            []restCapture
}

func readRESTCaptures(t testing.TB) restCaptures {
	t.Helper()
	data, err := os.ReadFile("testdata/rest-captures.json")
	if err != nil {
		t.Fatal(err)
	}
	var c restCaptures
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// Each recorded request gets an answer of the recorded shape: the status, the
// error's name, and every member that the SDK was given, of the same type.
func TestRecordedRequestsAreAnsweredAsTheirSDKsExpect(t *testing.T) {
	rec := readRESTCaptures(t)
	h := hubtest.New(t, hubtest.WithOptions(node.Options{
		HostNames: []string{rec.HostName},
		Policies: []hub.Policy{{
			Name: rec.Policy, PrimaryKey: rec.OwnerKey, SecondaryKey: sas.NewKey(),
			Rights: []hub.Right{hub.RegistryRead, hub.RegistryWrite, hub.ServiceConnect, hub.DeviceConnect},
		}},
	}))
	config := h.ClientTLS()
	config.ServerName = rec.HostName
	nc, err := tls.Dial("tcp", h.HTTPSAddr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	answers := bufio.NewReader(nc)
	for n, c := range rec.Calls {
		t.Run(fmt.Sprintf("%d %s %s", n, c.Client, c.Flow), func(t *testing.T) {
			defer prepare(t, h, &c)()
			if _, err := io.WriteString(nc, c.Request); err != nil {
				t.Fatal(err)
			}
			req := &http.Request{Method: strings.Fields(c.Request)[0]}
			resp, err := http.ReadResponse(answers, req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.Status {
				t.Fatalf("%d %s, want %d", resp.StatusCode, body, c.Status)
			}
			if c.Answer == "" {
				if len(body) > 0 {
					t.Errorf("the answer has the body %s", body)
				}
				return
			}
			var want, got any
			if err := json.Unmarshal([]byte(c.Answer), &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatalf("body %s: %v", body, err)
			}
			sameShape(t, "", want, got)
		})
	}
}

var (
	recordedPath = regexp.MustCompile(`^([A-Z]+) /(devices|twins)/([^/? ]+)(?:/modules/([^/? ]+))?(/methods)?`)
	recordedTag  = regexp.MustCompile(`(?i)(If-Match: ")([^*"]+)"`)
)

// prepare brings about what the recorded answer presupposes: that the device
// exists or not, has the recorded etag, or is there to answer a method.
func prepare(t *testing.T, h *hubtest.Hub, c *restCapture) (done func()) {
	t.Helper()
	m := recordedPath.FindStringSubmatch(c.Request)
	if m == nil {
		return func() {}
	}
	id := hub.ID{Device: m[3], Module: m[4]}
	conditional := strings.Contains(strings.ToLower(c.Request), "if-match:")
	online := m[5] != "" && c.Status == 200
	switch creates := m[1] == "PUT" && m[2] == "devices" && !conditional; {
	case creates && c.Status == 200:
		h.DeleteIdentity(id, hub.Match{})
		if id.Module != "" {
			h.Device(id.Device)
		}
	case c.Status == 404 && m[5] == "":
		h.DeleteIdentity(id, hub.Match{})
	case id.Module == "":
		h.Device(id.Device)
	default:
		h.Module(id.Device, id.Module)
	}
	if c.Status < 300 && recordedTag.MatchString(c.Request) {
		i, err := h.Identity(id)
		if err != nil {
			t.Fatal(err)
		}
		etag := i.ETag()
		if m[2] == "twins" {
			v, err := h.Twin(id)
			if err != nil {
				t.Fatal(err)
			}
			etag = v.ETag()
		}
		c.Request = recordedTag.ReplaceAllString(c.Request, "${1}"+etag+`"`)
	}
	if !online {
		return func() {}
	}
	return answerMethod(t, h, id, c.Answer)
}

// answerMethod has a device answer one method as the recorded one did.
func answerMethod(t *testing.T, h *hubtest.Hub, id hub.ID, recorded string) (done func()) {
	t.Helper()
	var want struct {
		Status  int
		Payload json.RawMessage
	}
	if err := json.Unmarshal([]byte(recorded), &want); err != nil {
		t.Fatal(err)
	}
	cs := h.Device(id.Device)
	if id.Module != "" {
		cs = h.Module(id.Device, id.Module)
	}
	d := wiretest.DialTLS(t, h)
	d.Connect(cs, wiretest.CleanSession)
	d.Subscribe(0, "$iothub/methods/POST/#")
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		p, err := packets.ReadPacket(d)
		if err != nil {
			return // the caller fails, and says so
		}
		topic := "$iothub/methods/res/" + strconv.Itoa(want.Status) + "/?$rid=" + wiretest.RequestID(p.(*packets.PublishPacket))
		wiretest.PublishPacket(0, 0, topic, string(want.Payload)).Write(d)
	}()
	return func() {
		<-answered
		d.Disconnect()
	}
}

// sameShape checks that got has every member of want, with a value of the same
// type. Names of properties in a twin depend on what came before.
func sameShape(t *testing.T, path string, want, got any) {
	t.Helper()
	if strings.HasSuffix(path, ".desired") || strings.HasSuffix(path, ".reported") || strings.HasSuffix(path, ".tags") {
		return
	}
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s is %T, want an object", path, got)
			return
		}
		for name, value := range want {
			member, ok := object[name]
			if !ok && name != "tags" && name != "capabilities" && name != "statusReason" {
				t.Errorf("%s.%s is missing", path, name)
			} else if ok {
				sameShape(t, path+"."+name, value, member)
			}
		}
	case []any:
		list, ok := got.([]any)
		if !ok {
			t.Errorf("%s is %T, want an array", path, got)
		} else if len(want) > 0 && len(list) > 0 {
			sameShape(t, path+"[0]", want[0], list[0])
		}
	case nil:
	default:
		if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
			t.Errorf("%s is %T, want %T", path, got, want)
		}
	}
}
