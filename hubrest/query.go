package hubrest

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"strconv"
)

const headerContinuation = "x-ms-continuation"

// Query runs a query of the IoT Hub query language and yields its rows, as the hub wrote them, fetching page after page
// as it goes. pageSize is how many rows a page may have, 0 the hub's choice; the hub may send fewer. After an error it
// ends. Rows of "SELECT * FROM devices" can be unmarshalled into a Twin. What changes while the query runs may be seen
// or not. See the article "IoT Hub query language for device and module twins, jobs, and message routing".
func (c *Client) Query(ctx context.Context, query string, pageSize int) iter.Seq2[json.RawMessage, error] {
	body := struct {
		Query string `json:"query"`
	}{query}
	r := request{what: "query", method: http.MethodPost, path: []string{"devices", "query"}, body: body, repeat: repeatAlways}
	return c.pages(ctx, r, pageSize)
}

// pages makes the same request for page after page of rows.
func (c *Client) pages(ctx context.Context, r request, pageSize int) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		token := ""
		for {
			r.header = make(http.Header)
			if pageSize > 0 {
				r.header.Set("x-ms-max-item-count", strconv.Itoa(pageSize))
			}
			if token != "" {
				r.header.Set(headerContinuation, token)
			}
			var rows []json.RawMessage
			h, err := c.do(ctx, r, &rows)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			next := h.Get(headerContinuation)
			if next == "" {
				return
			}
			if next == token {
				yield(nil, errors.New(r.what+": the hub names the same page as the next one"))
				return
			}
			token = next
		}
	}
}
