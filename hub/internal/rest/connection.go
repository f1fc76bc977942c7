package rest

import (
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/twin"
)

// A connectionDoc is what an operator may want to know of the connection of a
// device or module. IoT Hub has nothing like it: there it is in Azure Monitor.
type connectionDoc struct {
	State          string       `json:"connectionState"`
	Now            *linkDoc     `json:"connection,omitempty"`
	LastDisconnect *incidentDoc `json:"lastDisconnect,omitempty"`
	LastRefusal    *incidentDoc `json:"lastRefusal,omitempty"`
}

// A linkDoc is the connection that there is.
type linkDoc struct {
	Since  string `json:"since"`
	Door   string `json:"door"`
	Remote string `json:"remote"`
}

type incidentDoc struct {
	Time   string `json:"time"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Door   string `json:"door"`
	Remote string `json:"remote"`
}

func newIncidentDoc(i *hub.Incident) *incidentDoc {
	if i == nil {
		return nil
	}
	return &incidentDoc{twin.FormatTime(i.Time), i.Reason, i.Detail, i.Door, i.Remote}
}

func (d *Door) getConnection(r *request) (reply, error) {
	if _, err := d.hub.Identity(r.id); err != nil {
		return reply{}, err
	}
	refused, ended := d.hub.Incidents(r.Context(), r.id)
	doc := connectionDoc{LastDisconnect: newIncidentDoc(ended), LastRefusal: newIncidentDoc(refused)}
	if p, ok := d.hub.Connection(r.id); ok {
		doc.Now = &linkDoc{twin.FormatTime(p.Since), p.Door, p.Remote}
	}
	doc.State = hub.ConnectionState{Connected: doc.Now != nil}.String()
	return reply{body: doc}, nil
}

// A refusalDoc is a refusal with whom the peer claimed to be.
type refusalDoc struct {
	Device string `json:"deviceId,omitempty"`
	Module string `json:"moduleId,omitempty"`
	incidentDoc
}

// listRefusals tells of the last refusals, whoever was refused.
func (d *Door) listRefusals(r *request) (reply, error) {
	all := d.hub.Refusals(r.Context())
	list := make([]refusalDoc, len(all.Recent))
	for n := range all.Recent {
		r := &all.Recent[n]
		list[n] = refusalDoc{r.ID.Device, r.ID.Module, *newIncidentDoc(&r.Incident)}
	}
	return reply{body: struct {
		Since  string            `json:"since"`
		Counts map[string]uint64 `json:"counts"`
		Recent []refusalDoc      `json:"recent"`
	}{twin.FormatTime(all.Since), all.Counts, list}}, nil
}
