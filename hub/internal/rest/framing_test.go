package rest_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// What is legal in HTTP, or nearly so, is read in one way only: a request never
// becomes two, nor one for somebody else. Each case is written as it is and the
// connection closed behind it.
func TestHTTPFraming(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	h.Do(wiretest.Call{Method: "PUT", Path: "/devices/d1", Body: `{}`}).Want(t, 200, "")
	token := "Authorization: " + h.Token("iothubowner") + "\r\n"
	const path = "/devices/d1?api-version=2021-04-12"
	const host = "Host: localhost\r\n"
	get := func(target, headers string) string { return "GET " + target + " HTTP/1.1\r\n" + headers + "\r\n" }
	hidden := get(path, host+token)
	for name, tt := range map[string]struct {
		request string
		want    []int // the statuses of all answers
	}{
		"one request":                         {get(path, host+token), []int{200}},
		"two behind each other":               {hidden + hidden, []int{200, 200}},
		"an absolute URI":                     {get("https://localhost"+path, host+token), []int{200}},
		"a host that is dialled in between":   {get(path, "Host: gateway.example\r\n"+token), []int{200}}, // the token says which hub is meant
		"no host":                             {get(path, token), []int{400}},
		"two hosts":                           {get(path, host+host+token), []int{400}},
		"two credentials":                     {get(path, host+token+token), []int{401}},
		"two lengths":                         {"POST " + path + " HTTP/1.1\r\n" + host + token + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + hidden, []int{400}},
		"a length that is none":               {"POST " + path + " HTTP/1.1\r\n" + host + token + "Content-Length: +0\r\n\r\n" + hidden, []int{400}},
		"a length beside chunks, which count": {"PUT /devices/d2?api-version=2021-04-12 HTTP/1.1\r\n" + host + token + "Content-Length: 400\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", []int{200}},
		"another encoding than chunks":        {"POST " + path + " HTTP/1.1\r\n" + host + token + "Transfer-Encoding: gzip, chunked\r\n\r\n", []int{501}},
		"a chunk whose size is none":          {"PUT " + path + " HTTP/1.1\r\n" + host + token + "If-Match: *\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + hidden, []int{400}},
		"a blank in front of a colon":         {get(path, host+token+"Content-Length : 5\r\n"), []int{400}},
		"a header on two lines":               {get(path, host+"Authorization: SharedAccessSignature\r\n "+strings.TrimPrefix(token, "Authorization: SharedAccessSignature ")), []int{200}},
		"a header with a NUL":                 {get(path, host+token+"X: a\x00b\r\n"), []int{400}},
		"a NUL in the path":                   {get("/devices/d1%00?api-version=2021-04-12", host+token), []int{404}},
		"a slash that belongs to the id":      {get("/devices/d1%2F?api-version=2021-04-12", host+token), []int{404}},
		"dots in the path":                    {get("/twins/../devices/d1?api-version=2021-04-12", host+token), []int{404}},
		"a fragment":                          {get("/devices/d1#x?api-version=2021-04-12", host+token), []int{404}},
		"a method in small letters":           {"get " + path + " HTTP/1.1\r\n" + host + token + "\r\n", []int{405}},
		"HTTP/1.0":                            {"GET " + path + " HTTP/1.0\r\n" + host + token + "\r\n", []int{200}},
		"HTTP/2":                              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{400}},
		"no HTTP":                             {"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\r\n\r\n", []int{400}},
		"64 KiB of headers":                   {get(path, host+token+"X: "+strings.Repeat("x", 64<<10)+"\r\n"), []int{431}},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := tls.Dial("tcp", h.HTTPSAddr, h.ClientTLS())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			go func() {
				// The hub may have hung up before all of it is written.
				_, _ = io.WriteString(nc, tt.request)
				_ = nc.CloseWrite()
			}()
			var got []int
			for r := bufio.NewReader(nc); ; {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					break
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatal(err)
				}
				got = append(got, resp.StatusCode)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
		})
	}
	h.Do(wiretest.Call{Method: "GET", Path: "/devices/d2"}).Want(t, 200, "")
}
