package hub

import (
	"regexp"
	"strings"
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

func (id ID) validate() error {
	if !idPattern.MatchString(id.Device) {
		return ErrArgumentInvalid.with("device id '%s' must be 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ '", clip(id.Device))
	}
	if id.Module != "" && !idPattern.MatchString(id.Module) {
		return ErrArgumentInvalid.with("module id '%s' must be 1 to 128 of the letters, digits and - : . + %% _ # * ? ! ( ) , = @ ; $ '", clip(id.Module))
	}
	return nil
}

// clip keeps what a peer sent from filling an error text or the log.
func clip(s string) string {
	const most = 140
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// Keys of the store. An id holds neither "/" nor a byte above "~", so that one
// identity's key is never a prefix of another's and "/" separates them.
const (
	devicePrefix     = "device/"
	modulePrefix     = "module/"
	deviceTwinPrefix = "twin/device/"
	moduleTwinPrefix = "twin/module/"
	activityPrefix   = "activity/"
)

func (id ID) identityKey() []byte {
	if id.Module == "" {
		return []byte(devicePrefix + id.Device)
	}
	return []byte(modulePrefix + id.Device + "/" + id.Module)
}

func (id ID) twinKey() []byte {
	if id.Module == "" {
		return []byte(deviceTwinPrefix + id.Device)
	}
	return []byte(moduleTwinPrefix + id.Device + "/" + id.Module)
}

func (id ID) activityKey() []byte { return []byte(activityPrefix + id.String()) }

// notFound is the service's answer for an identity that does not exist.
func (id ID) notFound() *Error {
	if id.Module == "" {
		return ErrDeviceNotFound.with("%s", clip(id.Device))
	}
	return ErrModuleNotFound.with("device %s has no module %s", clip(id.Device), clip(id.Module))
}
