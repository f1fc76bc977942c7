package hubrest

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"strconv"
)

// A PageRequest says which page of a list is wanted. The zero value is the first.
type PageRequest struct {
	Size int    // how many rows it may have; 0: the service's choice, and the service may send fewer
	From string // Page.Next of the page before; empty: the first page
	// Explain has a query's page tell how it was found, if the hub does, as that of iotdm.
	Explain bool
}

// A Page is a part of a list, for who shows it page by page.
type Page[T any] struct {
	Rows []T
	Next string    // PageRequest.From of the page behind it; empty: there is none
	Plan QueryPlan // zero unless it was asked for
}

// QueryPage returns one page of what [Client.Query] yields.
func (c *Client) QueryPage(ctx context.Context, query string, p PageRequest) (Page[json.RawMessage], error) {
	r := queryRequest(query)
	if p.Explain {
		r.header = http.Header{headerExplain: {"true"}}
	}
	got, err := c.page(ctx, r, p.Size, p.From)
	if err != nil {
		return Page[json.RawMessage]{}, err
	}
	page := Page[json.RawMessage]{Rows: got.rows, Next: got.header.Get(headerContinuation)}
	if p.Explain {
		page.Plan.add(got)
	}
	return page, nil
}

// JobDevicePage returns one page of what [Client.JobDevices] yields.
func (c *Client) JobDevicePage(ctx context.Context, id, condition string, p PageRequest) (Page[JobDevice], error) {
	return decodedPage[JobDevice](ctx, &c.requester, queryRequest(jobDevicesQuery(id, condition)), p)
}

// EnrollmentPage returns one page of what [ProvisioningClient.Enrollments] yields.
func (c *ProvisioningClient) EnrollmentPage(ctx context.Context, kind EnrollmentKind, p PageRequest) (Page[Enrollment], error) {
	return decodedPage[Enrollment](ctx, &c.requester, enrollmentsRequest(kind), p)
}

// RegistrationPage returns one page of what [ProvisioningClient.Registrations] yields.
func (c *ProvisioningClient) RegistrationPage(ctx context.Context, group string, p PageRequest) (Page[Registration], error) {
	return decodedPage[Registration](ctx, &c.requester, registrationsRequest(group), p)
}

func decodedPage[T any](ctx context.Context, c *requester, r request, p PageRequest) (Page[T], error) {
	got, err := c.page(ctx, r, p.Size, p.From)
	if err != nil {
		return Page[T]{}, err
	}
	page := Page[T]{Rows: make([]T, len(got.rows)), Next: got.header.Get(headerContinuation)}
	for i, row := range got.rows {
		if err := json.Unmarshal(row, &page.Rows[i]); err != nil {
			return Page[T]{}, fmt.Errorf("%s: %s's answer is not as documented: %w", r.what, c.peer.name, err)
		}
	}
	return page, nil
}

// A page is one answer to a request that is answered page by page.
type page struct {
	rows   []json.RawMessage
	header http.Header
}

// page makes the request for one page, the first if from is empty.
func (c *requester) page(ctx context.Context, r request, size int, from string) (page, error) {
	r.header = r.header.Clone()
	if r.header == nil {
		r.header = make(http.Header)
	}
	if size > 0 {
		r.header.Set("x-ms-max-item-count", strconv.Itoa(size))
	}
	if from != "" {
		r.header.Set(headerContinuation, from)
	}
	var rows []json.RawMessage
	h, err := c.do(ctx, r, &rows)
	return page{rows, h}, err
}

// pages makes the same request for page after page.
func (c *requester) pages(ctx context.Context, r request, pageSize int) iter.Seq2[page, error] {
	return func(yield func(page, error) bool) {
		token := ""
		for {
			p, err := c.page(ctx, r, pageSize, token)
			if err != nil {
				yield(page{}, err)
				return
			}
			if !yield(p, nil) {
				return
			}
			next := p.header.Get(headerContinuation)
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
