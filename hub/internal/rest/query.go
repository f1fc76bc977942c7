package rest

import (
	"net/http"
	"strconv"

	"github.com/iotdm/iotdm/hub"
)

// Headers of a query's answer that this hub adds when the request has the first
// one: what was read, and how many rows were looked at.
const (
	headerExplain = "Iotdm-Explain"
	headerPlan    = "Iotdm-Plan"
	headerScanned = "Iotdm-Scanned"
)

// query answers a page of a query. A SDK that gets the header
// x-ms-continuation asks for another page, whatever its value, so that the last
// page must not have it.
func (d *Door) query(r *request) (reply, error) {
	var in struct {
		Query string `json:"query"`
	}
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	size := hub.MaxQueryPage
	if text := r.Header.Get("x-ms-max-item-count"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return reply{}, hub.ErrArgumentInvalid.With("x-ms-max-item-count must be a number from 1")
		}
		size = min(n, size)
	}
	page, err := d.hub.Query(r.Context(), in.Query, size, r.Header.Get("x-ms-continuation"))
	if err != nil {
		return reply{}, err
	}
	// The C# SDK knows the values of x-ms-item-type in this case only.
	header := http.Header{"X-Ms-Item-Type": {page.ItemType}}
	if page.Continuation != "" {
		header.Set("x-ms-continuation", page.Continuation)
	}
	if r.Header.Get(headerExplain) != "" {
		header[headerPlan] = []string{page.Plan}
		header[headerScanned] = []string{strconv.Itoa(page.Scanned)}
	}
	return reply{body: page.Body, header: header}, nil
}
