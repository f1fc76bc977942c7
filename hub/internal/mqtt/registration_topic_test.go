package mqtt

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRegistrationNames(t *testing.T) {
	type name = registrationName
	for _, tt := range []struct {
		what, clientID, userName string
		want                     name
		ok                       bool
	}{
		{"Python", "dev-1", "0ne00ABCDEF/registrations/dev-1/api-version=2019-03-31&ClientVersion=azure-iot-device-provisioning-py%2F2.14.0", name{"0ne00ABCDEF", "dev-1"}, true},
		{"with a question mark", "dev-1", "0ne00ABCDEF/registrations/dev-1/?api-version=2021-06-01", name{"0ne00ABCDEF", "dev-1"}, true},
		{"a slash in the client version", "dev-1", "0ne00ABCDEF/registrations/dev-1/api-version=2019-03-31&ClientVersion=c/1.2", name{"0ne00ABCDEF", "dev-1"}, true},
		{"nothing behind", "dev-1", "0ne00ABCDEF/registrations/dev-1", name{"0ne00ABCDEF", "dev-1"}, true},
		{"every character", "a-.:_Z", "0ne1/registrations/a-.:_Z/api-version=1", name{"0ne1", "a-.:_Z"}, true},
		{"another client id, which is refused later", "dev-2", "0ne1/registrations/dev-1/api-version=1", name{"0ne1", "dev-1"}, true},
		{"no scope, which is refused later", "dev-1", "/registrations/dev-1/api-version=1", name{"", "dev-1"}, true},
		{"a registration called registrations", "registrations", "0ne1/registrations/registrations/api-version=1", name{"0ne1", "registrations"}, true},
		{"a device called registrations", "registrations", "localhost/registrations/?api-version=2021-04-12", name{}, false},
		{"the same, without a question mark", "registrations", "localhost/registrations/api-version=2021-04-12", name{}, false},
		{"the same, without a query", "registrations", "localhost/registrations", name{}, false},
		{"its module", "registrations/m1", "localhost/registrations/m1/?api-version=2021-04-12", name{}, false},
		{"a device", "d1", "localhost/d1/?api-version=2021-04-12", name{}, false},
		{"a device with registrations as module", "d1/registrations", "localhost/d1/registrations/?api-version=2021-04-12", name{}, false},
		{"another spelling", "d1", "0ne1/Registrations/d1/api-version=1", name{}, false},
		{"nothing", "", "", name{}, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			got, ok := parseRegistrationName(tt.clientID, tt.userName)
			if got != tt.want || ok != tt.ok {
				t.Errorf("parseRegistrationName(%q, %q) = %v, %v, want %v, %v", tt.clientID, tt.userName, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestRegistrationTopics(t *testing.T) {
	type request = registrationRequest
	long := strings.Repeat("1", maxRequestID)
	for _, tt := range []struct {
		topic string
		want  request
		err   error
	}{
		{"$dps/registrations/PUT/iotdps-register/?$rid=1", request{rid: "1"}, nil},
		{"$dps/registrations/PUT/iotdps-register/?$rid={b9a5-1}", request{rid: "{b9a5-1}"}, nil},
		{"$dps/registrations/PUT/iotdps-register/?$rid=" + long, request{rid: long}, nil},
		{"$dps/registrations/PUT/iotdps-register/?%24rid=a%20b", request{rid: "a%20b"}, nil},
		{"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=4.d0a6.42d7", request{rid: "2", poll: true, operation: "4.d0a6.42d7"}, nil},
		{"$dps/registrations/GET/iotdps-get-operationstatus/?operationId=4%2Ed0&$rid=2", request{rid: "2", poll: true, operation: "4.d0"}, nil},
		{"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2", request{rid: "2", poll: true}, nil},
		{"$dps/registrations/PUT/iotdps-register/?$rid=", request{}, errRequestID},
		{"$dps/registrations/PUT/iotdps-register/?", request{}, errRequestID},
		{"$dps/registrations/PUT/iotdps-register/?$rid=1" + long, request{}, errRequestID},
		{"$dps/registrations/PUT/iotdps-register/", request{}, errTopic},
		{"$dps/registrations/PUT/iotdps-register?$rid=1", request{}, errTopic},
		{"$dps/registrations/POST/iotdps-register/?$rid=1", request{}, errTopic},
		{"$dps/registrations/GET/iotdps-register/?$rid=1", request{}, errTopic},
		{"$dps/registrations/res/200/?$rid=1", request{}, errTopic},
		{"devices/d1/messages/events/", request{}, errTopic},
		{"$iothub/twin/GET/?$rid=1", request{}, errTopic},
		{"", request{}, errTopic},
	} {
		t.Run(tt.topic, func(t *testing.T) {
			got, err := parseRegistrationTopic(tt.topic)
			if err != tt.err {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(request{})); err == nil && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What is taken for a registration's names it, whatever else there is; a user name
// of a device or module is never taken for one.
func FuzzRegistrationName(f *testing.F) {
	f.Add("dev-1", "0ne1/registrations/dev-1/api-version=2019-03-31&ClientVersion=x")
	f.Add("registrations", "localhost/registrations/?api-version=2021-04-12")
	f.Add("registrations/m1", "localhost/registrations/m1/?api-version=2021-04-12")
	f.Fuzz(func(t *testing.T, clientID, userName string) {
		n, ok := parseRegistrationName(clientID, userName)
		if ok && userName != n.scope+"/registrations/"+n.id && !strings.HasPrefix(userName, n.scope+"/registrations/"+n.id+"/") {
			t.Errorf("%q is taken for scope %q, id %q", userName, n.scope, n.id)
		}
		if _, _, err := parseUserName(clientID, userName); err == nil && ok && !strings.EqualFold(n.id, clientID) {
			t.Errorf("%q of client %q is a device's, and is taken for registration %q", userName, clientID, n.id)
		}
	})
}

// A topic that is taken has a request id that can be echoed.
func FuzzRegistrationTopic(f *testing.F) {
	f.Add("$dps/registrations/PUT/iotdps-register/?$rid=1")
	f.Add("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=4.d0a6%2E42d7")
	f.Fuzz(func(t *testing.T, topic string) {
		r, err := parseRegistrationTopic(topic)
		if err != nil {
			return
		}
		if r.rid == "" || len(r.rid) > maxRequestID || !strings.Contains(topic, "="+r.rid) || strings.Contains(r.rid, "&") {
			t.Errorf("%q has request id %q", topic, r.rid)
		}
		again := registerTopic
		if r.poll {
			again = operationTopic
		}
		if same, err := parseRegistrationTopic(again + "?$rid=" + r.rid); err != nil || same.rid != r.rid || same.poll != r.poll {
			t.Errorf("%q: request id %q is read as %+v (%v)", topic, r.rid, same, err)
		}
	})
}
