package hub

import (
	"encoding/json"
	"net"
)

// STOPGAP by the lead: replaced whole by the MQTT door (session.go, mqtt.go, conn.go).

const sessionPrefix = "session/"

func (id ID) sessionKey() []byte { return []byte(sessionPrefix + id.String()) }

func (c *conn) takesMethods() bool                                   { return false }
func (c *conn) sendMethod(rid, name string, payload json.RawMessage) {}
func (c *conn) sendDesired(version int64, body json.RawMessage)      {}
func (s *Server) ServeMQTTS(l net.Listener) error                    { return ErrClosed }
