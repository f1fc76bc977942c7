package node

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/linked"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/provisioning"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// idScope is what is taken for one. Azure's are "0ne" and eight hexadecimal digits.
// Clients take any text, but one such as "devices" would begin paths of the hub.
var idScope = regexp.MustCompile(`^0ne[A-Za-z0-9]{1,61}$`)

// CheckIDScope says what is wrong with an id scope, if anything.
func CheckIDScope(scope string) error {
	if !idScope.MatchString(scope) {
		return fmt.Errorf("id scope %q: it must be 0ne and more letters and digits, such as 0ne00ABCDEF", words.Clip(scope))
	}
	return nil
}

// CheckLinkedHub says what is wrong with the connection string of a linked hub, if
// anything.
func CheckLinkedHub(c sas.ConnectionString) error {
	h, err := linked.New(c)
	if err == nil {
		h.Close()
	}
	return err
}

// IDScope returns what devices name the provisioning service by.
func (n *Node) IDScope() string { return n.Provisioning.IDScope() }

// openProvisioning makes the provisioning service.
func (n *Node) openProvisioning(opt Options, db *store.DB) (*provisioning.Service, error) {
	scope := cmp.Or(opt.IDScope, n.folder.idScope())
	if err := CheckIDScope(scope); err != nil {
		return nil, err
	}
	var hubs []*linked.Hub
	for _, c := range opt.LinkedHubs {
		h, err := linked.New(c)
		if err != nil {
			return nil, err
		}
		n.atEnd(h.Close)
		hubs = append(hubs, h)
	}
	return provisioning.New(n.Server, db, provisioning.Options{
		IDScope: scope, HostName: n.hostName, Linked: hubs, WebhookHosts: opt.WebhookHosts, Assigning: opt.Assigning, Logger: opt.Logger,
	})
}

// idScope is that of the folder's CA: it needs no file, and lasts as long as the
// trust of devices in the hub.
func (f *folder) idScope() string {
	sum := sha256.Sum256(f.certs.ca.Leaf.Raw)
	return fmt.Sprintf("0ne%08X", sum[:4])
}

// hostName is the name that the hub has published for itself, without a port.
func (n *Node) hostName() string {
	n.publishing.Lock()
	defer n.publishing.Unlock()
	name := n.published.HostName
	if host, _, err := net.SplitHostPort(name); err == nil {
		return host
	}
	return cmp.Or(strings.Trim(name, "[]"), "localhost")
}
