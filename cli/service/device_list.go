package service

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// deviceColumns are what the table of devices shows.
var deviceColumns = []output.Column{
	{"DEVICE", "deviceId"},
	{"STATUS", "status"},
	{"CONNECTION", "connectionState"},
	{"AUTHENTICATION", "authentication.type"},
	{"LAST ACTIVITY", "lastActivityTime"},
}

type deviceListOptions struct {
	target.Service
	top           int
	where, parent string
}

func deviceListCommand(s output.Streams) *urfave.Command {
	var o deviceListOptions
	return command.Leaf(&urfave.Command{
		Name:  "list",
		Usage: "list device identities, without their keys",
		Description: "For example:\n" +
			"   iotdm service device list\n" +
			"   iotdm service device list --where \"status = 'disabled'\" --jq '.[].deviceId'\n" +
			"   iotdm service device list --parent gateway",
		Flags: command.Concat([]urfave.Flag{
			&urfave.IntFlag{Name: "top", Destination: &o.top, Usage: "list at most `N` devices", DefaultText: "all"},
			&urfave.StringFlag{Name: "where", Destination: &o.where, Usage: "only those that meet the query `CONDITION`"},
			&urfave.StringFlag{Name: "parent", Destination: &o.parent, Usage: "only the children of the IoT Edge device `ID`"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if ctx.IsSet("top") && o.top < 1 {
				return fail.Usagef("--top %d is less than 1", o.top)
			}
			if err := o.Output.Check(); err != nil {
				return err
			}
			return listDevices(ctx.Context, s, o)
		},
	})
}

// A listedDevice is a device identity as a list shows it: like that of "get",
// but without what no query tells, such as keys.
type listedDevice struct {
	DeviceID                  string               `json:"deviceId"`
	ETag                      string               `json:"etag"`
	ConnectionState           string               `json:"connectionState"`
	Status                    hubrest.Status       `json:"status"`
	StatusReason              string               `json:"statusReason,omitempty"`
	StatusUpdatedTime         hubrest.Time         `json:"statusUpdatedTime,omitzero"`
	LastActivityTime          hubrest.Time         `json:"lastActivityTime,omitzero"`
	CloudToDeviceMessageCount int                  `json:"cloudToDeviceMessageCount"`
	Authentication            listedAuth           `json:"authentication"`
	Capabilities              hubrest.Capabilities `json:"capabilities"`
	DeviceScope               string               `json:"deviceScope,omitempty"`
	ParentScopes              []string             `json:"parentScopes,omitempty"`
}

type listedAuth struct {
	X509Thumbprint hubrest.X509Thumbprint     `json:"x509Thumbprint,omitzero"`
	Type           hubrest.AuthenticationType `json:"type"`
}

// listSelection names what of a twin belongs to the identity.
const listSelection = "SELECT deviceId, deviceEtag, connectionState, status, statusReason, statusUpdateTime, lastActivityTime," +
	" cloudToDeviceMessageCount, authenticationType, x509Thumbprint, capabilities, deviceScope, parentScopes FROM devices"

// maxPage is the largest page of a query.
const maxPage = 1000

func listDevices(ctx context.Context, s output.Streams, o deviceListOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	var conditions []string
	if o.where != "" && strings.TrimSpace(o.where) != "*" {
		conditions = append(conditions, "("+o.where+")")
	}
	if o.parent != "" {
		scopes, err := parentScopes(ctx, client, o.parent)
		if err != nil {
			return t.Explain(ctx, err, target.NoIdentity)
		}
		conditions = append(conditions, "array_contains(parentScopes, "+condition.Quote(scopes[0])+")")
	}
	query := listSelection
	if len(conditions) > 0 {
		query += " WHERE " + strings.Join(conditions, " AND ")
	}
	size := maxPage
	if o.top > 0 {
		size = min(size, o.top)
	}
	devices := func(yield func(json.RawMessage, error) bool) {
		progress, n := output.NewRowTally(s), 0
		defer progress.Clear()
		for row, err := range client.Query(ctx, query, size) {
			if err == nil {
				row, err = listed(row)
			}
			if err != nil {
				err = t.Explain(ctx, err, target.NoIdentity)
			}
			if n++; !yield(row, err) || n == o.top {
				return
			}
			progress.Show(n, output.Count(n, "device"))
		}
	}
	return o.Output.PrintRows(s, devices, func([]json.RawMessage) []output.Column { return deviceColumns })
}

// listed makes the row of a list of a row of a query.
func listed(row json.RawMessage) (json.RawMessage, error) {
	var t struct {
		listedDevice
		DeviceETag         string                     `json:"deviceEtag"`
		StatusUpdateTime   hubrest.Time               `json:"statusUpdateTime"`
		AuthenticationType hubrest.AuthenticationType `json:"authenticationType"`
		X509Thumbprint     hubrest.X509Thumbprint     `json:"x509Thumbprint"`
	}
	if err := json.Unmarshal(row, &t); err != nil {
		return nil, fmt.Errorf("list devices: the hub's answer is not as documented: %w", err)
	}
	d := t.listedDevice
	d.ETag, d.StatusUpdatedTime = t.DeviceETag, t.StatusUpdateTime
	d.Authentication = listedAuth{X509Thumbprint: t.X509Thumbprint, Type: t.AuthenticationType}
	return jsontext.Marshal(d)
}
