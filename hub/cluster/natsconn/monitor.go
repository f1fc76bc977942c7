package natsconn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Server is what a server of NATS says of itself on its monitoring port, which
// clients are not told.
type Server struct {
	URL        string
	Name       string
	Version    string
	JetStream  bool
	SyncAlways bool // what is acknowledged is on its disk
	Servers    int  // of its cluster
}

// ErrServer means that a server of NATS is not as the hub needs it.
var ErrServer = errors.New("a server of NATS is not as the hub needs it")

// monitorPatience is how long a server may take to tell of itself.
const monitorPatience = 3 * time.Second

// MonitorURLs splits the addresses of monitoring ports, such as
// http://nats-1:8222,http://nats-2:8222.
func MonitorURLs(text string) ([]string, error) {
	var list []string
	for one := range strings.SplitSeq(text, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "":
			return nil, errors.New("the address of a monitoring port of NATS must be like http://nats-1:8222, or several with commas between them")
		case u.User != nil:
			return nil, errors.New("the address of a monitoring port of NATS holds a user or password, which it does not ask for: leave that out")
		}
		list = append(list, strings.TrimRight(u.String(), "/"))
	}
	return list, nil
}

// Monitor asks the servers of NATS at their monitoring ports, and returns those that
// answer. missing says of the others why, and whether there are some that were not
// named.
//
// Errors: ErrServer if one that answers is not as the hub needs it, with what to do.
func Monitor(ctx context.Context, opt Options, urls []string) (servers []Server, missing []error, err error) {
	config, err := opt.tls()
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: monitorPatience}
	var wrong []error
	for _, at := range urls {
		s, err := ask(ctx, client, at)
		if err != nil {
			missing = append(missing, fmt.Errorf("the monitoring port of NATS at %s cannot be asked: %w", at, err))
			continue
		}
		servers = append(servers, s)
		if err := s.check(); err != nil {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) > 0 {
		return servers, missing, wrong[0] // one line; the next one comes when it is mended
	}
	if most := mostServers(servers); len(urls) < most {
		missing = append(missing, fmt.Errorf("--cluster-monitor names %d servers of NATS, of which there are %d", len(urls), most))
	}
	return servers, missing, nil
}

func mostServers(servers []Server) (most int) {
	if len(servers) > 0 {
		most = slices.MaxFunc(servers, func(a, b Server) int { return a.Servers - b.Servers }).Servers
	}
	return most
}

// ask asks one server.
func ask(ctx context.Context, client *http.Client, at string) (Server, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/varz", nil)
	if err != nil {
		return Server{}, err
	}
	answer, err := client.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return Server{}, err
	}
	defer answer.Body.Close()
	var v struct {
		Name      string `json:"server_name"`
		Version   string `json:"version"`
		JetStream struct {
			Config *struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
			Meta struct {
				Size int `json:"cluster_size"`
			} `json:"meta"`
		} `json:"jetstream"`
	}
	const most = 1 << 20
	err = json.NewDecoder(io.LimitReader(answer.Body, most)).Decode(&v)
	if answer.StatusCode != http.StatusOK || err != nil || v.Version == "" {
		return Server{}, fmt.Errorf("it does not answer as nats-server does (%s): give the http or https port of its configuration", answer.Status)
	}
	s := Server{URL: at, Name: v.Name, Version: v.Version, Servers: max(v.JetStream.Meta.Size, 1)}
	if c := v.JetStream.Config; c != nil {
		s.JetStream, s.SyncAlways = true, c.SyncAlways
	}
	return s, nil
}

// check refuses a server that may lose what it has acknowledged.
func (s Server) check() error {
	switch {
	case tooOld(s.Version):
		return fmt.Errorf("%w: %s at %s is nats-server %s: install %s or later", ErrServer, s.Name, s.URL, s.Version, oldest())
	case s.JetStream && !s.SyncAlways:
		return fmt.Errorf("%w: %s at %s writes to its disk now and then only, and loses what it has acknowledged when the power fails: put sync_interval: always into jetstream {...} of its configuration, and restart it", ErrServer, s.Name, s.URL)
	}
	return nil
}
