package node

import (
	"crypto/tls"
	"time"
)

// expiring returns the TLS configuration of a hub under test: while a fault wants it, clients see a certificate that has
// expired.
func (n *Node) expiring(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if !n.HandshakeFault() {
			return nil, nil
		}
		cert, err := n.folder.certs.expired()
		if err != nil {
			return nil, err
		}
		struck := config.Clone()
		struck.GetConfigForClient = nil
		struck.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
		struck.SessionTicketsDisabled = true // who resumes a session looks at no certificate
		return struck, nil
	}
	return config
}

// expired makes a certificate of the hub that has expired by the machine's clock, which clients go by.
func (c *certs) expired() (*tls.Certificate, error) {
	return c.makeLeafAt(&leaf{newKey: newECDSAKey}, time.Now().Add(-leafLife))
}
