package rest

import (
	"net/http"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// Routes lists the method and path of every route, so that tests can say what
// each needs and find that none was forgotten.
func Routes() (list []string) {
	for _, r := range routes {
		list = append(list, r.method+" /"+r.path)
	}
	return list
}

// Unguarded answers requests as the door does, but for a caller who may do
// everything, and on the routes of devices for the one of the path. A panic is
// left to the test.
func (d *Door) Unguarded() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{door: d, w: w, r: r, id: words.NewRequestID(), began: time.Now()}
		m := match(r.Method, httprequest.Segments(httprequest.RawPath(r)))
		if m.route == nil {
			x.refuse(hub.ErrRouteNotFound)
			return
		}
		x.nested = m.route.is(nested)
		rep, err := m.route.handle(d, &request{Request: r, w: w, id: m.id, name: m.name, caller: hub.Caller{Name: "test"}, peer: hub.Peer{ID: m.id}})
		if err != nil {
			x.refuse(err)
			return
		}
		x.answer(rep)
	})
}
