// Package sas has the commands of "iotdm sas": to make, read and check shared
// access signatures.
package sas

import (
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
)

// Commands returns the group "sas".
func Commands(s output.Streams) *urfave.Command {
	return command.Group("sas", "make and check shared access signatures, and derive keys",
		tokenCommand(s), verifyCommand(s), inspectCommand(s), deriveKeyCommand(s))
}
