package hub

import (
	"regexp"
	"strings"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// An ID names one identity of the registry: a device, or a module of a
// device. Ids are case-sensitive.
type ID struct {
	Device string
	Module string // empty for the device itself
}

// String returns "device" or "device/module", which is also the MQTT client
// id of the identity.
func (id ID) String() string {
	if id.Module == "" {
		return id.Device
	}
	return id.Device + "/" + id.Module
}

// title names the identity with what it is.
func (id ID) title() string {
	if id.Module == "" {
		return "device " + id.Device
	}
	return "module " + id.String()
}

// path is the part of a shared access signature's audience behind the host.
func (id ID) path() string {
	if id.Module == "" {
		return "/devices/" + id.Device
	}
	return "/devices/" + id.Device + "/modules/" + id.Module
}

// idPattern is the pattern the service's SDKs enforce for device and module
// ids; "Understand the identity registry" lists the same characters.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}$`)

// ValidName reports whether a device, module or job may be called so.
func ValidName(name string) bool { return idPattern.MatchString(name) }

// Validate says what is wrong with the id, if anything.
//
// Errors: ErrArgumentInvalid.
func (id ID) Validate() error {
	if !ValidName(id.Device) {
		return ErrArgumentInvalid.With("device id '%s' must be 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ '", words.Clip(id.Device))
	}
	if id.Module != "" && !ValidName(id.Module) {
		return ErrArgumentInvalid.With("module id '%s' must be 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ '", words.Clip(id.Module))
	}
	return nil
}

func (id ID) identityKey() []byte {
	if id.Module == "" {
		return disk.Of(disk.Device, id.Device, "")
	}
	return disk.Of(disk.Module, id.Device, id.Module)
}

func (id ID) twinKey() []byte {
	if id.Module == "" {
		return disk.Of(disk.DeviceTwin, id.Device, "")
	}
	return disk.Of(disk.ModuleTwin, id.Device, id.Module)
}

func (id ID) activityKey() []byte { return disk.Of(disk.Activity, id.Device, id.Module) }

func (id ID) refusalKey() []byte { return disk.Of(disk.Refusal, id.Device, id.Module) }

// parseID reads what String returned.
func parseID(name string) ID {
	device, module, _ := strings.Cut(name, "/")
	return ID{Device: device, Module: module}
}

// notFound is the service's answer for an identity that does not exist.
func (id ID) notFound() *Error {
	if id.Module == "" {
		return ErrDeviceNotFound.With("%s", words.Clip(id.Device))
	}
	return ErrModuleNotFound.With("device %s has no module %s", words.Clip(id.Device), words.Clip(id.Module))
}
