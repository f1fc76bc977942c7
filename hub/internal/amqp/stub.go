package amqp

import (
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

func (c *conn) why() error                                 { panic("") }
func deliveryTag(s string) []byte                          { panic("") }
func textOf(v any) (string, bool)                          { panic("") }
func (c *conn) guard(l *engine.Link, allowed func() error) { panic("") }
func bodyOf(m *wire.Message) []byte                        { panic("") }
func asError(err error) *wire.Error                        { panic("") }

const (
	condDecode   wire.Symbol = "amqp:decode-error"
	condArgument wire.Symbol = "x"
	condForced   wire.Symbol = "y"
	condLockLost wire.Symbol = "z"
)
