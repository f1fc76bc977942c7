package hubrest

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"strconv"
)

const (
	headerContinuation = "x-ms-continuation"
	headerExplain      = "Iotdm-Explain" // asks an iotdm hub to add Iotdm-Plan and Iotdm-Scanned to its answer
)

// Query runs a query of the IoT Hub query language and yields its rows, as the hub wrote them, fetching page after page
// as it goes. pageSize is how many rows a page may have, 0 the hub's choice; the hub may send fewer. After an error it
// ends. Rows of "SELECT * FROM devices" can be unmarshalled into a Twin. What changes while the query runs may be seen
// or not. See the article "IoT Hub query language for device and module twins, jobs, and message routing".
func (c *Client) Query(ctx context.Context, query string, pageSize int) iter.Seq2[json.RawMessage, error] {
	return c.rows(ctx, queryRequest(query), pageSize)
}

// A QueryPlan is what it took to answer a query.
type QueryPlan struct {
	Plan    string `json:"plan"`    // what was read, in the hub's words; empty if the hub doesn't tell, as IoT Hub itself
	Scanned int    `json:"scanned"` // how many rows were looked at; 0 if the hub doesn't tell
	Rows    int    `json:"rows"`    // how many rows the result has
	Pages   int    `json:"pages"`   // in how many answers they came
}

// ExplainQuery runs a query as Query does, and returns how the hub found its rows instead of the rows.
func (c *Client) ExplainQuery(ctx context.Context, query string, pageSize int) (QueryPlan, error) {
	r := queryRequest(query)
	r.header = http.Header{headerExplain: {"true"}}
	var plan QueryPlan
	for p, err := range c.pages(ctx, r, pageSize) {
		if err != nil {
			return QueryPlan{}, err
		}
		plan.Pages++
		plan.Rows += len(p.rows)
		if text := p.header.Get("Iotdm-Plan"); plan.Plan == "" {
			plan.Plan = text
		}
		scanned, _ := strconv.Atoi(p.header.Get("Iotdm-Scanned"))
		plan.Scanned += scanned
	}
	return plan, nil
}

func queryRequest(query string) request {
	body := struct {
		Query string `json:"query"`
	}{query}
	return request{what: "query", method: http.MethodPost, path: []string{"devices", "query"}, body: body, repeat: repeatAlways}
}

// rows makes the same request for page after page and yields the rows of all.
func (c *requester) rows(ctx context.Context, r request, pageSize int) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for p, err := range c.pages(ctx, r, pageSize) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range p.rows {
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}

// A page is one answer to a request that is answered page by page.
type page struct {
	rows   []json.RawMessage
	header http.Header
}

// pages makes the same request for page after page.
func (c *requester) pages(ctx context.Context, r request, pageSize int) iter.Seq2[page, error] {
	first := r.header
	return func(yield func(page, error) bool) {
		token := ""
		for {
			r.header = first.Clone()
			if r.header == nil {
				r.header = make(http.Header)
			}
			if pageSize > 0 {
				r.header.Set("x-ms-max-item-count", strconv.Itoa(pageSize))
			}
			if token != "" {
				r.header.Set(headerContinuation, token)
			}
			var rows []json.RawMessage
			h, err := c.do(ctx, r, &rows)
			if err != nil {
				yield(page{}, err)
				return
			}
			if !yield(page{rows, h}, nil) {
				return
			}
			next := h.Get(headerContinuation)
			if next == "" {
				return
			}
			if next == token {
				yield(page{}, fmt.Errorf("%s: %s names the same page as the next one", r.what, c.peer.name))
				return
			}
			token = next
		}
	}
}
