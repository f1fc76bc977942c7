package hubrest

import (
	"context"
	"encoding/json"
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
		plan.add(p)
	}
	return plan, nil
}

// add counts a page.
func (q *QueryPlan) add(p page) {
	q.Pages++
	q.Rows += len(p.rows)
	if q.Plan == "" {
		q.Plan = p.header.Get("Iotdm-Plan")
	}
	scanned, _ := strconv.Atoi(p.header.Get("Iotdm-Scanned"))
	q.Scanned += scanned
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
